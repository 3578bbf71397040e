// A whole model on one device, driven plan by plan as a rank is.
#ifndef COHORT_TESTS_GPU_BENCH_MODEL_H_
#define COHORT_TESTS_GPU_BENCH_MODEL_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/performance_model.h"
#include "runtime/worker.h"
#include "tests/gpu/bench_setup.h"

namespace cohort::gpu {

class ModelRun {
 public:
  // `sequences` of at most `max_len` positions each, `batch_tokens` rows a step. Reads
  // `checkpoint`, or fills dummy weights where it is empty.
  ModelRun(const Flags& flags, const std::string& checkpoint, int64_t sequences, int64_t max_len,
           int64_t batch_tokens);
  ~ModelRun();

  // Forgets all sequences.
  void Restart() {
    position_ = 0;
    have_all_sampled_ = false;
  }
  // One step of the first `sequences` sequences, `rows` rows each. One row continues with the token
  // that the step before has sampled.
  void Step(int64_t sequences, int64_t rows, bool sample = true);
  // Until the device has computed all steps.
  void Finish();
  // What the steps since the last call took until they were enqueued.
  std::vector<double> TakeEnqueueSeconds() { return std::exchange(enqueue_seconds_, {}); }
  // Brings all sequences to `context` positions and one more, which samples.
  void FillTo(int64_t context);

  const ModelConfig& config() const { return config_; }
  int64_t weight_bytes() const { return worker_->weight_bytes(); }

 private:
  StepPlan PlanFor(int64_t first, int64_t count, int64_t rows, bool sample);
  void Run(StepPlan plan);

  ModelConfig config_;
  WorkerOptions options_;
  std::unique_ptr<Worker> worker_;
  int64_t position_ = 0;
  bool have_all_sampled_ = false;  // in the last step
  uint64_t last_step_ = 0;
  std::vector<double> enqueue_seconds_;
};

// What a step of `rows` rows must read and compute, `sampled` of them through the head, each row
// seeing `context` positions of one of `cached` sequences: the planner's own count.
StepWork WorkOfStep(const ModelConfig& config, double rows, double sampled, double context,
                    double cached);

}  // namespace cohort::gpu

#endif  // COHORT_TESTS_GPU_BENCH_MODEL_H_
