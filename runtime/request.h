// A request on its way through the engine, and what comes back.
#ifndef COHORT_RUNTIME_REQUEST_H_
#define COHORT_RUNTIME_REQUEST_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/status.h"
#include "runtime/sampling.h"
#include "runtime/step_plan.h"

namespace cohort {

using RequestId = uint64_t;  // given by the engine, never reused

struct Request {
  std::vector<int32_t> prompt;  // at least one id
  SamplingParameters sampling;
  StoppingParameters stopping;
  // Score: no token is generated; the log-probability of prompt[i] after prompt[0..i) comes back.
  bool score = false;
  // Most probable ids reported beside each prompt token's log-probability, for scores and for
  // generations; -1: a generation reports none.
  int32_t prompt_logprobs = -1;
  absl::Time deadline = absl::InfiniteFuture();
  int32_t priority = 0;              // larger is more urgent
  uint32_t sequence_index = 0;       // of a request's n sequences; part of the random numbers' key
  std::string cache_salt;            // prefixes are shared only between equal salts
  bool bypass_prefix_cache = false;  // the whole prompt is computed
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
  // One per prompt id after the first, and the most probable ids beside each, where asked for.
  std::vector<float> prompt_logprobs;
  std::vector<TokenLogprob> prompt_top;  // request.prompt_logprobs each
};

inline Finish MakeFinish(FinishReason reason, absl::Status status = absl::OkStatus()) {
  Finish finish;
  finish.reason = reason;
  finish.status = std::move(status);
  return finish;
}

// Newly generated tokens; views are valid during the call.
struct GeneratedTokens {
  int64_t first_index = 0;                  // among the generated ones, from 0
  absl::Span<const int32_t> ids = {};       // the final end or stop token included
  absl::Span<const float> logprobs = {};    // one per id where sampling.logprobs >= 0, else empty
  absl::Span<const TokenLogprob> top = {};  // sampling.logprobs per id
};

// What a step, or a cancellation, did to one request.
struct RequestUpdate {
  RequestId id = 0;
  int64_t first_index = 0;      // of `tokens` among the generated ones
  std::vector<int32_t> tokens;  // new since the last update; logprobs and top as above
  std::vector<float> logprobs;
  std::vector<TokenLogprob> top;
  bool scheduled = false;        // first rows planned by the committed step
  std::optional<Finish> finish;  // timing left empty (the scheduler has no clock)
};

enum class SinkAnswer { kContinue, kStop };

// Receives what becomes of one request. Called from the engine's thread, in order, OnFinish exactly
// once and last; must not block, and of the engine may call only Cancel, Pause and Resume.
class RequestSink {
 public:
  virtual ~RequestSink() = default;
  // kStop ends the sequence as a stop token would (a stop string was found); at most one more row
  // is computed for it, which nobody sees.
  virtual SinkAnswer OnTokens(const GeneratedTokens& tokens) = 0;
  virtual void OnFinish(const Finish& finish) = 0;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_REQUEST_H_
