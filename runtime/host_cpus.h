// The CPUs near a device's memory, and threads that stay on them.
#ifndef COHORT_RUNTIME_HOST_CPUS_H_
#define COHORT_RUNTIME_HOST_CPUS_H_

#include <sched.h>

#include <optional>
#include <string>

#include "kernels/status.h"

namespace cohort {

// "0-3,8" as the system writes it; nullopt for anything else.
std::optional<cpu_set_t> ParseCpuList(StringView text);

// The CPUs of a NUMA node that the calling thread may use; nullopt where the system does not tell
// or there are none. `root` holds a folder for every node.
std::optional<cpu_set_t> CpusOfNode(int node, const std::string& root = "/sys/devices/system/node");

// Keeps the calling thread on `cpus`, and with it the memory that it touches first, while it lives;
// nothing where there are none.
class ScopedCpus {
 public:
  explicit ScopedCpus(const std::optional<cpu_set_t>& cpus);
  ~ScopedCpus();
  ScopedCpus(const ScopedCpus&) = delete;
  ScopedCpus& operator=(const ScopedCpus&) = delete;

 private:
  std::optional<cpu_set_t> before_;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_HOST_CPUS_H_
