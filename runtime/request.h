// A request on its way through the engine, and what comes back.
#ifndef COHORT_RUNTIME_REQUEST_H_
#define COHORT_RUNTIME_REQUEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/status.h"
#include "runtime/sampling.h"

namespace cohort {

using RequestId = uint64_t;  // given by the engine, never reused

struct Request {
  std::vector<int32_t> prompt;  // at least one id
  SamplingParameters sampling;
  StoppingParameters stopping;
  // Score: no token is generated; the log-probability of prompt[i] after prompt[0..i) comes back.
  bool score = false;
  absl::Time deadline = absl::InfiniteFuture();
};

enum class FinishReason { kStop, kLength, kCancelled, kDeadline, kError };
StringView NameOf(FinishReason reason);  // "stop", "length", "cancelled", "deadline", "error"

// Times are of the engine's clock.
struct RequestTiming {
  absl::Time submitted, scheduled, first_token, finished;  // InfinitePast where it never happened
};

struct Finish {
  FinishReason reason = FinishReason::kStop;
  absl::Status
      status;  // not OK for kError (UNAVAILABLE when a rank was lost), kDeadline, kCancelled
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;
  RequestTiming timing;
  std::vector<float> prompt_logprobs;  // score: one per prompt id after the first
};

// Receives what becomes of one request. Called from the engine's thread, in order, OnFinish exactly
// once and last; must not block and must not call back into the engine.
class RequestSink {
 public:
  virtual ~RequestSink() = default;
  // `first_index` counts generated tokens from 0. Ids include the final end or stop token.
  virtual void OnTokens(int64_t first_index, absl::Span<const int32_t> ids) = 0;
  virtual void OnFinish(const Finish& finish) = 0;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_REQUEST_H_
