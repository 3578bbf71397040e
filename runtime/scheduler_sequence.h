// One request as the scheduler follows it: what is known, what is planned, what is committed.
// Owned by the scheduler; knows nothing of other sequences, of the pool or of the prefix cache.
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
  // `arrival` counts requests; of equal priority, the smaller goes first.
  Sequence(RequestId id, uint64_t arrival, Request request);

  RequestId id() const { return id_; }
  uint64_t arrival() const { return arrival_; }
  const Request& request() const { return request_; }  // its prompt has moved to tokens()
  int64_t prompt_tokens() const { return prompt_tokens_; }
  int64_t generated_tokens() const { return size() - prompt_tokens_; }
  int64_t size() const { return static_cast<int64_t>(tokens_.size()); }
  absl::Span<const int32_t> tokens() const { return tokens_; }  // prompt and committed ones

  // Positions whose keys and values are ever written: all but that of the last token generated.
  static int64_t PositionsNeeded(int64_t prompt_tokens, const Request& request);
  int64_t positions_needed() const { return PositionsNeeded(prompt_tokens_, request_); }

  // Positions planned so far are [0, planned()); those before prefill_end() were known when the
  // sequence was admitted.
  int64_t planned() const { return planned_; }
  int64_t prefill_end() const { return prefill_end_; }
  bool is_prefilling() const { return planned_ < prefill_end_; }
  // Rows that can be planned now: their tokens are known or are being sampled by a plan in flight,
  // and no token beyond max_tokens would come of them.
  int64_t plannable() const;

  // Whether keys and values that another sequence computed will do: not where the log-probabilities
  // of the prompt are still wanted, which need its rows.
  bool may_read_cache() const { return !request_.bypass_prefix_cache && !WantsScores(); }

  // The same of a request that nothing was computed of.
  static bool MayReadCache(const Request& request) {
    return !request.bypass_prefix_cache && !request.score && request.prompt_logprobs < 0;
  }

  bool is_new() const { return !cached_tokens_.has_value(); }  // never admitted

  // The sequence gets a slot; `cached` positions need not be computed.
  AdmitSequence Admit(uint32_t new_slot, int64_t cached, absl::Span<const int32_t> eos_token_ids);

  // The next `count` rows (1..plannable()) as part of step `step`; slot and blocks are the
  // caller's.
  SequenceRows PlanRows(int64_t count, uint64_t step);

  // The result of rows [first, end) came. Fills in what is new among the generated tokens, cut at
  // an end token or max_tokens, and the finish when the sequence ended with it.
  void Accept(int64_t first, int64_t end, const SequenceResult& result,
              absl::Span<const int32_t> eos_token_ids, RequestUpdate& update);

  // Fills the counts of a finish.
  Finish WithCounts(Finish finish) const;

  // Slot and blocks are gone: everything known is to be computed, or found, again.
  void Restart();

  // Set by the scheduler while the sequence has a slot.
  static constexpr uint32_t kNoSlot = ~uint32_t{0};
  bool has_slot() const { return slot != kNoSlot; }
  uint32_t slot = kNoSlot;
  std::vector<int32_t> blocks;  // block table so far
  int64_t blocks_told = 0;      // of these the ranks know
  int64_t blocks_cached = 0;    // of these the prefix cache was told,
  uint64_t cache_node = 0;      // and this is the prefix that they hold
  int64_t plans_in_flight = 0;  // that name this sequence
  bool preempted = false;       // goes back to the queue when no plan in flight names it
  bool ended = false;           // finished, but plans in flight still name it

  // Set by the scheduler when the request comes.
  bool plain_rope = false;  // with --yarn auto: short enough to do without YaRN

  // Set by the scheduler at any time.
  bool paused = false;    // not planned
  bool reported = false;  // an update said that it was scheduled

 private:
  bool WantsScores() const;
  bool WantsLogprobs() const { return request_.sampling.logprobs >= 0; }
  void AddScoreTargets(int64_t first, SequenceRows& rows) const;
  absl::Status AcceptScores(int64_t first, int64_t end, const SequenceResult& result);
  void AcceptToken(const SequenceResult& result, size_t index,
                   absl::Span<const int32_t> eos_token_ids, RequestUpdate& update);
  bool IsEnd(int32_t token, absl::Span<const int32_t> eos_token_ids) const;

  RequestId id_;
  uint64_t arrival_;
  Request request_;
  int64_t prompt_tokens_;
  std::vector<int32_t> tokens_;
  int64_t prefill_end_;
  int64_t planned_ = 0;
  // Tokens at positions below this are known or in flight; the one at known_end_ - 1, when not in
  // tokens_ yet, is what step last_sample_step_ samples.
  int64_t known_end_;
  uint64_t last_sample_step_ = 0;
  std::optional<int64_t> cached_tokens_;  // of the prompt, when it was first admitted
  std::vector<float> prompt_logprobs_;
  std::vector<TokenLogprob> prompt_top_;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_SCHEDULER_SEQUENCE_H_
