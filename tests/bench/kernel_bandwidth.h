// How fast this process can read memory now, with as many threads as what is compared with it.
#ifndef COHORT_TESTS_BENCH_KERNEL_BANDWIDTH_H_
#define COHORT_TESTS_BENCH_KERNEL_BANDWIDTH_H_

#include "kernels/cpu/thread_pool.h"
#include "kernels/device.h"

namespace cohort {

using Clock = double (*)();  // seconds since some moment

double WallSeconds();
double CpuSeconds();  // of all threads of this process

// Reads a tensor that no cache holds, allocated as weights are: one sequential stream per thread.
class ReadBandwidth {
 public:
  ReadBandwidth(int threads, Clock clock);
  double Measure();  // bytes per second

 private:
  std::unique_ptr<Device> device_;
  std::unique_ptr<ThreadPool> pool_;
  Tensor memory_;
  Clock clock_;
};

}  // namespace cohort

#endif  // COHORT_TESTS_BENCH_KERNEL_BANDWIDTH_H_
