// One request as the scheduler follows it: what is known, what is planned, what is committed.
// Owned by the scheduler; knows nothing of other sequences or of the pool.
#ifndef COHORT_RUNTIME_SCHEDULER_SEQUENCE_H_
#define COHORT_RUNTIME_SCHEDULER_SEQUENCE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "runtime/request.h"
#include "runtime/step_plan.h"

namespace cohort {

class Sequence {
 public:
  Sequence(RequestId id, Request request);

  RequestId id() const { return id_; }
  const Request& request() const { return request_; }
  int64_t prompt_tokens() const { return prompt_tokens_; }
  int64_t generated_tokens() const { return size() - prompt_tokens_; }

  // Positions whose keys and values are ever written: all but that of the last token generated.
  static int64_t PositionsNeeded(int64_t prompt_tokens, const Request& request);
  int64_t positions_needed() const { return PositionsNeeded(prompt_tokens_, request_); }

  // Positions planned so far are [0, planned()); those before prefill_end() were known when the
  // sequence was admitted.
  int64_t planned() const { return planned_; }
  bool is_prefilling() const { return planned_ < prefill_end_; }
  // Rows that can be planned now: their tokens are known or are being sampled by a plan in flight,
  // and no token beyond max_tokens would come of them.
  int64_t plannable() const;

  // The next `count` rows (1..plannable()) as part of step `step`; slot and blocks are the
  // caller's.
  SequenceRows PlanRows(int64_t count, uint64_t step);

  // The result of rows [first, end) came. Returns what is new among the generated tokens, cut at
  // an end token or max_tokens; sets `finish` when the sequence ended with it.
  std::vector<int32_t> Accept(int64_t first, int64_t end, const SequenceResult* result,
                              absl::Span<const int32_t> eos_token_ids,
                              std::optional<Finish>& finish);

  // Fills the counts of a finish.
  Finish WithCounts(Finish finish) const;

  // The ranks lost what they held: everything known is to be computed again.
  void Restart();

  // Set by the scheduler while the sequence has a slot.
  static constexpr uint32_t kNoSlot = ~uint32_t{0};
  bool has_slot() const { return slot != kNoSlot; }
  uint32_t slot = kNoSlot;
  std::vector<int32_t> blocks;  // block table so far; the ranks were told all of it
  int64_t blocks_promised = 0;  // reserved at admission and not allocated yet
  int64_t plans_in_flight = 0;  // that name this sequence
  bool paused = false;          // not planned
  bool ended = false;           // finished, but plans in flight still name it
  bool reported = false;        // an update said that it was scheduled

 private:
  int64_t size() const { return static_cast<int64_t>(tokens_.size()); }
  absl::Status AcceptScores(int64_t first, int64_t end, absl::Span<const float> logprobs);
  bool IsEnd(int32_t token, absl::Span<const int32_t> eos_token_ids) const;

  RequestId id_;
  Request request_;  // its prompt has moved to tokens_
  int64_t prompt_tokens_;
  std::vector<int32_t> tokens_;  // prompt and committed generated ones
  int64_t prefill_end_;
  int64_t planned_ = 0;
  // Tokens at positions below this are known or in flight; the one at known_end_ - 1, when not in
  // tokens_ yet, is what step last_sample_step_ samples.
  int64_t known_end_;
  uint64_t last_sample_step_ = 0;
  std::vector<float> prompt_logprobs_;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_SCHEDULER_SEQUENCE_H_
