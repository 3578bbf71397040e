// One step of the group, written by the scheduler and executed by every rank exactly as it says,
// and the result that comes back. Both have one flat, versioned, little-endian encoding that the
// shared memory ring and gRPC carry alike.
//
// Ranks keep per sequence slot only what plans told them: the block table, the sampling parameters
// and the last tokens they sampled. A plan therefore carries deltas: `admits` (a slot starts anew),
// rows with the blocks appended since the last plan, `releases`.
#ifndef COHORT_RUNTIME_STEP_PLAN_H_
#define COHORT_RUNTIME_STEP_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/status.h"
#include "runtime/sampling.h"

namespace cohort {

inline constexpr uint32_t kStepPlanVersion = 3;

// A slot begins a sequence; whatever it held before is forgotten.
struct AdmitSequence {
  uint32_t slot = 0;
  uint32_t sequence_index = 0;  // for the random numbers
  // The sequence's first rows begin here; the keys and values of the positions before are in the
  // first blocks that those rows append (a prefix cache hit). A multiple of the block size.
  uint64_t first_position = 0;
  uint64_t prompt_tokens = 0;  // positions below hold the prompt, those from it on the completion
  bool plain_rope = false;     // with --yarn auto: short enough to do without YaRN
  // Ids of positions [0, first_position) where sampling.NeedsHistory(), else empty.
  std::vector<int32_t> history = {};
  uint64_t min_tokens = 0;                  // while the completion is shorter,
  std::vector<int32_t> held_back_ids = {};  // none of these is chosen
  SamplingParameters sampling;
  bool operator==(const AdmitSequence&) const = default;
};

// The input token of a row: a literal id, or what the slot sampled in step `sampled_in_step`.
struct TokenSource {
  static constexpr uint64_t kLiteral = ~uint64_t{0};
  int32_t id = 0;
  uint64_t sampled_in_step = kLiteral;
  bool is_literal() const { return sampled_in_step == kLiteral; }
  bool operator==(const TokenSource&) const = default;
};

// Consecutive positions of one sequence in this step: a prefill chunk or a decode.
struct SequenceRows {
  uint32_t slot = 0;
  uint64_t first_position = 0;
  std::vector<TokenSource> tokens = {};  // at least one
  std::vector<int32_t> appended_blocks =
      {};                  // to the slot's block table, before the rows are computed
  bool sample = false;     // choose a token after the last row
  uint32_t score_top = 0;  // most probable ids reported beside each score target's log-probability
  std::vector<int32_t> score_targets = {};  // empty, or one per row: id whose log-probability after
                                            // this row is wanted, -1: none
  bool operator==(const SequenceRows&) const = default;
};

struct StepPlan {
  uint64_t epoch = 0;
  uint64_t step = 0;  // counts from 1 in every epoch, without gaps
  std::vector<AdmitSequence> admits;
  std::vector<SequenceRows> rows;
  std::vector<uint32_t> releases;  // slots that are forgotten after this step
  int64_t tokens() const;
  bool operator==(const StepPlan&) const = default;
};

// Natural logarithm of a probability under the raw logits, over the whole vocabulary.
struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0;
  bool operator==(const TokenLogprob&) const = default;
};

inline constexpr int32_t kNotANumber = -1;      // in place of a token: the logits held a NaN
inline constexpr int32_t kNothingAllowed = -2;  // the request's parameters leave no id to choose

struct SequenceResult {
  uint32_t slot = 0;
  std::vector<int32_t> tokens = {};  // sampled, in order; kNotANumber or kNothingAllowed for none
  std::vector<float> token_logprobs = {};  // one per token where sampling.logprobs >= 0, else empty
  std::vector<TokenLogprob> token_top = {};  // sampling.logprobs per token, most probable first
  std::vector<float> logprobs = {};          // one per score target
  // score_top per score target, most probable first. Here and above id -1 fills up where there is
  // no target, or fewer ids than wanted have a probability.
  std::vector<TokenLogprob> score_top = {};
  bool operator==(const SequenceResult&) const = default;
};

struct StepResult {
  uint64_t epoch = 0;
  uint64_t step = 0;
  uint64_t digest = 0;  // hash of step and sampled tokens; equal on every rank of a group
  std::vector<SequenceResult> sequences;  // those that sampled or scored, in the plan's order; only
                                          // the first rank of a group fills it
  // Rows that chose each expert, of all layers together; as `sequences`, and empty without experts.
  std::vector<int32_t> expert_hits = {};
  bool operator==(const StepResult&) const = default;
};

std::string Encode(const StepPlan& plan);
std::string Encode(const StepResult& result);

// INVALID_ARGUMENT for anything that Encode does not produce: another version, truncated or
// trailing bytes, counts beyond the message. Never allocates more than the message's size warrants.
absl::StatusOr<StepPlan> DecodeStepPlan(StringView bytes);
// The same into a plan that was decoded before, whose memory serves again. Unspecified on failure.
absl::Status DecodeStepPlan(StringView bytes, StepPlan& plan);
absl::StatusOr<StepResult> DecodeStepResult(StringView bytes);

}  // namespace cohort

#endif  // COHORT_RUNTIME_STEP_PLAN_H_
