// Does what a rank is about to allocate fit this machine?
#ifndef COHORT_RUNTIME_WORKER_MEMORY_H_
#define COHORT_RUNTIME_WORKER_MEMORY_H_

#include <cstdint>

#include "kernels/status.h"

namespace cohort {

// Bytes of one rank, by what they are for.
struct WorkerMemory {
  int64_t weights = 0;
  int64_t kv = 0;
  int64_t workspace = 0;
  int64_t total() const { return weights + kv + workspace; }
  bool operator==(const WorkerMemory&) const = default;
};

// MemAvailable of the text of /proc/meminfo, in bytes.
absl::StatusOr<int64_t> ParseAvailableMemory(StringView meminfo);

// RESOURCE_EXHAUSTED, with the bytes, when `needed` is more than is available on this host. OK when
// the system does not tell.
absl::Status CheckHostMemory(const WorkerMemory& needed);

// The same against a given amount.
absl::Status CheckMemory(const WorkerMemory& needed, int64_t available_bytes);

}  // namespace cohort

#endif  // COHORT_RUNTIME_WORKER_MEMORY_H_
