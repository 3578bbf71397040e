// The ranks of one model as threads of the test, driven plan by plan without scheduler or engine.
#ifndef COHORT_TESTS_RUNTIME_WORKER_RANKS_H_
#define COHORT_TESTS_RUNTIME_WORKER_RANKS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/worker.h"

namespace cohort {

class WorkerRanks {
 public:
  // options.parallelism.world() workers with one CPU thread each; options.rank is set per worker.
  // Another device is for a world of one: the ranks talk through the memory of this process.
  static absl::StatusOr<std::unique_ptr<WorkerRanks>> Create(const ModelConfig& config,
                                                             WorkerOptions options,
                                                             const DeviceOptions& device = {});

  absl::Status Join(uint64_t epoch, absl::Duration timeout = absl::Seconds(60));
  // Which data-parallel group computes the plans made below; the others have no rows. At first 0.
  void UseGroup(int group) { group_ = group; }
  // On every rank at once. Expects equal digests inside a data-parallel group, and sequences from
  // its first rank only; the first error in rank order, else the result of the first rank of the
  // group in use.
  absl::StatusOr<StepResult> Run(const StepPlan& plan);
  Worker& worker(int rank) { return *workers_[static_cast<size_t>(rank)]; }

  // Natural-log probability of each id after the ones before it, `chunk` rows per step.
  std::vector<float> Score(const std::vector<int32_t>& ids, int64_t chunk);
  // `count` tokens after the prompt. The next token is named by the step that sampled it.
  std::vector<int32_t> Generate(const std::vector<int32_t>& prompt, int64_t count, int64_t chunk,
                                const SamplingParameters& sampling);
  // The same with everything that an admission can say (its slot and prompt_tokens are set), and
  // with the whole results of the steps that sampled.
  std::vector<SequenceResult> Results(const std::vector<int32_t>& prompt, int64_t count,
                                      int64_t chunk, AdmitSequence admit);

 private:
  explicit WorkerRanks(const WorkerOptions& options) : options_(options) {}
  absl::Status JoinGpu();
  absl::Status JoinThreads(absl::Duration timeout);
  // A plan for the first slot of the group in use that follows the last one; it begins with `admit`
  // at position 0.
  StepPlan NextPlan(int64_t first_position, int64_t rows, const AdmitSequence& admit);

  uint32_t slot() const { return static_cast<uint32_t>(group_ * options_.max_running); }

  WorkerOptions options_;
  int group_ = 0;
  std::vector<std::unique_ptr<Worker>> workers_;
  Device* gpu_ = nullptr;  // of the worker, where it is one
  uint64_t epoch_ = 0;
  uint64_t last_step_ = 0;
  int32_t blocks_used_ = 0;
};

}  // namespace cohort

#endif  // COHORT_TESTS_RUNTIME_WORKER_RANKS_H_
