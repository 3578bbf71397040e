// The far side of a StepLink for tests of the near side: a rank whose "model" is a hash. It keeps
// what a rank keeps (block tables, the last sample, cells of paged memory) and reads every token
// back through the block table, so that a wrong block, position, source or prefix changes what it
// answers. A prefix that no earlier step has written is an error.
#ifndef COHORT_TESTS_RUNTIME_PAGED_RANK_H_
#define COHORT_TESTS_RUNTIME_PAGED_RANK_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "runtime/request.h"
#include "runtime/scheduler.h"
#include "runtime/step_plan.h"

namespace cohort {

// What the hash model is, as a pure function of the ids so far.
struct HashModel {
  int32_t vocabulary = 50;
  uint64_t nan_one_in = 0;   // one in so many rows has no number for logits; 0: none
  int32_t extra_tokens = 0;  // of a result, after the first: as if they had been guessed rightly

  struct Choice {
    uint64_t seed = 0;
    uint32_t sequence_index = 0;
    uint64_t prompt_tokens = 0;
    uint64_t min_tokens = 0;
    std::vector<int32_t> held_back_ids = {};
  };
  int32_t NextToken(absl::Span<const int32_t> ids, const Choice& choice) const;  // -1: NaN
  float LogProbability(absl::Span<const int32_t> ids, int32_t target) const;
  // `count` ids beside a log-probability, appended to `top`.
  void AppendTop(absl::Span<const int32_t> ids, int32_t count,
                 std::vector<TokenLogprob>& top) const;
};

// What a request must come to when nobody interferes.
struct ExpectedOutcome {
  std::vector<int32_t> tokens;
  FinishReason reason = FinishReason::kStop;
  std::vector<float> logprobs;
  std::vector<TokenLogprob> top;
  std::vector<float> prompt_logprobs;
  std::vector<TokenLogprob> prompt_top;
};
ExpectedOutcome Expect(const HashModel& model, const Request& request,
                       absl::Span<const int32_t> eos_token_ids);

class PagedRank {
 public:
  // Of `options`, the sizes.
  PagedRank(HashModel model, const SchedulerOptions& options, uint64_t epoch);

  // INTERNAL, with the reason, for a plan that a rank cannot execute.
  absl::StatusOr<StepResult> Run(const StepPlan& plan);

 private:
  struct Slot {
    bool live = false;
    AdmitSequence admit;
    HashModel::Choice choice;
    int64_t length = 0;  // positions written
    std::vector<int32_t> blocks;
    uint64_t sampled_in_step = 0;
    int32_t sample = 0;
  };

  absl::Status Admit(const AdmitSequence& admit);
  absl::Status CheckPrefix(const Slot& slot) const;
  absl::Status RunRows(const SequenceRows& rows, StepResult& result);
  void Sample(Slot& slot, SequenceResult& answer) const;
  absl::Status Write(const TokenSource& source, Slot& slot);
  size_t CellOf(const Slot& slot, size_t position) const;
  std::vector<int32_t> ReadBack(const Slot& slot) const;

  HashModel model_;
  int64_t block_size_;
  int64_t max_batch_tokens_;
  uint64_t epoch_;
  uint64_t last_step_ = 0;
  std::vector<Slot> slots_;
  std::vector<int32_t> cells_;             // [blocks * block_size] token ids
  std::vector<uint64_t> written_in_step_;  // per cell; 0: never
};

}  // namespace cohort

#endif  // COHORT_TESTS_RUNTIME_PAGED_RANK_H_
