// The values of flags: durations, sizes, addresses, lists of ids and numbers within a range. Errors
// are INVALID_ARGUMENT and say the value and what is legal.
#ifndef COHORT_LAUNCHER_FLAG_VALUES_H_
#define COHORT_LAUNCHER_FLAG_VALUES_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "kernels/status.h"
#include "runtime/model_config.h"

namespace cohort {

struct HostPort {
  std::string host;
  int port = 0;
  std::string ToString() const;  // brackets around an IPv6 host
};

// "30s", "500ms", "2m", "1h30m"; finite and at least `minimum`.
absl::StatusOr<absl::Duration> ParseDuration(StringView text, absl::Duration minimum);

// "512MiB", "1.5GiB", "2GB", plain bytes; at least 1.
absl::StatusOr<int64_t> ParseByteSize(StringView text);

// "127.0.0.1:9000", "[::1]:9000", "localhost:0".
absl::StatusOr<HostPort> ParseHostPort(StringView text);

// "1,2,3"; each from 0 to 4294967295, at least one.
absl::StatusOr<std::vector<uint32_t>> ParseTokenIds(StringView text);

// "1:0.5,2:-100": distinct ids with a number each, at least one.
absl::StatusOr<std::vector<std::pair<uint32_t, double>>> ParseLogitBias(StringView text);

// "yarn:4.0", "yarn:4.0:32768": a factor of at least 1, and the length before it.
absl::StatusOr<YarnOverride> ParseRopeScaling(StringView text);

// "8192:1024", "8192:1024:32768": chunk size, local size below it, original length.
absl::StatusOr<DualChunkConfig> ParseDualChunks(StringView text);

// How much of a GPU a rank may take.
struct GpuMemoryLimit {
  double fraction = 1;  // of its memory, where bytes is 0
  int64_t bytes = 0;
  bool operator==(const GpuMemoryLimit&) const = default;
};

// "0.9" and the like, from above 0 up to 1; or a size as above.
absl::StatusOr<GpuMemoryLimit> ParseGpuMemory(StringView text);

// One rank of a tensor group that is not there.
struct SimulatedRank {
  int rank = 0;
  int size = 1;
  bool operator==(const SimulatedRank&) const = default;
};

// "0/8": a rank below the number of ranks, which is at least 2.
absl::StatusOr<SimulatedRank> ParseSimulatedRank(StringView text);

// Which reductions go over the memory of other GPUs: up to how many bytes in one exchange, and in
// two; 0: as is usual.
struct ReductionSizes {
  bool are_measured = true;  // by the ranks themselves, in place of the rest
  int64_t one_shot = 0;
  int64_t two_shot = 0;
  bool operator==(const ReductionSizes&) const = default;
};

// "measured", "usual", or two sizes as above: "256KiB:1MiB".
absl::StatusOr<ReductionSizes> ParseReductionSizes(StringView text);

absl::StatusOr<int64_t> ParseInteger(StringView text, int64_t minimum, int64_t maximum);
absl::StatusOr<uint64_t> ParseUnsigned(StringView text);

// Any number, nan and infinities included: the server refuses those by the field's name.
absl::StatusOr<double> ParseReal(StringView text);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_FLAG_VALUES_H_
