// How fast this process can read memory now, with as many threads as what is compared with it.
#ifndef COHORT_TESTS_BENCH_KERNEL_BANDWIDTH_H_
#define COHORT_TESTS_BENCH_KERNEL_BANDWIDTH_H_

#include "kernels/cpu/thread_pool.h"
#include "kernels/device.h"

namespace cohort {

// Reads a tensor that no cache holds, allocated as weights are: one sequential stream per thread.
class ReadBandwidth {
 public:
  explicit ReadBandwidth(int threads);
  double Measure();  // bytes per second

 private:
  std::unique_ptr<Device> device_;
  std::unique_ptr<ThreadPool> pool_;
  Tensor memory_;
};

}  // namespace cohort

#endif  // COHORT_TESTS_BENCH_KERNEL_BANDWIDTH_H_
