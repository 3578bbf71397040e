#include "parallel/host_communicator.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "parallel/region_communicator.h"
#include "parallel/shared_region.h"

namespace cohort {
namespace {

absl::Status CheckSize(int size) {
  if (size < 1 || size > SharedRegion::kMaxRanks) {
    return absl::InvalidArgumentError(absl::StrCat("communicator size is ", size,
                                                   "; it must be in 1..", SharedRegion::kMaxRanks));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckHostCommunicatorOptions(const HostCommunicatorOptions& options) {
  RETURN_IF_ERROR(CheckSize(options.size));
  if (options.rank < 0 || options.rank >= options.size) {
    return absl::InvalidArgumentError(absl::StrCat("communicator rank is ", options.rank,
                                                   "; it must be in 0..", options.size - 1));
  }
  if (options.timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat("communicator timeout is ",
                                                   absl::FormatDuration(options.timeout),
                                                   "; it must be positive"));
  }
  if (options.spin_iterations < 0) {
    return absl::InvalidArgumentError(absl::StrCat("communicator spin_iterations is ",
                                                   options.spin_iterations, "; it must be >= 0"));
  }
  return absl::OkStatus();
}

int64_t HostCommunicatorRegionBytes(int size) { return SharedRegion::Bytes(size); }

absl::StatusOr<int> CreateHostCommunicatorRegion(int size) {
  RETURN_IF_ERROR(CheckSize(size));
  const int fd = memfd_create("cohort-communicator", MFD_CLOEXEC);
  if (fd < 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("communicator region: memfd_create failed: ", std::strerror(errno)));
  }
  if (ftruncate(fd, HostCommunicatorRegionBytes(size)) != 0) {
    const int error = errno;
    close(fd);
    return absl::ResourceExhaustedError(
        absl::StrCat("communicator region of ", HostCommunicatorRegionBytes(size),
                     " bytes: ftruncate failed: ", std::strerror(error)));
  }
  return fd;
}

absl::StatusOr<std::unique_ptr<Communicator>> MakeHostCommunicator(
    int region_fd, const HostCommunicatorOptions& options) {
  RETURN_IF_ERROR(CheckHostCommunicatorOptions(options));
  if (options.size == 1) {
    return MakeSelfCommunicator();
  }
  ASSIGN_OR_RETURN(std::shared_ptr<const SharedRegion> region,
                   SharedRegion::Map(region_fd, options.size));
  const RegionCommunicatorOptions region_options = {.rank = options.rank,
                                                    .size = options.size,
                                                    .timeout = options.timeout,
                                                    .spin_iterations = options.spin_iterations};
  return std::make_unique<RegionCommunicator>(std::move(region), region_options);
}

}  // namespace cohort
