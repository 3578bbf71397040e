// What NCCL says of its connections, which it tells nowhere but in its log.
#ifndef COHORT_LAUNCHER_NCCL_LOG_H_
#define COHORT_LAUNCHER_NCCL_LOG_H_

#include <string>
#include <vector>

#include "kernels/status.h"
#include "launcher/file_descriptor.h"

namespace cohort {

class NcclLog {
 public:
  // Has NCCL write its log into memory of this process, which is to have one thread so far: NCCL
  // reads the environment. Nothing is captured where the environment already says what to log.
  static NcclLog Capture();

  bool is_captured() const { return memory_.valid(); }
  // What has been written since the last call.
  std::string Take();

 private:
  FileDescriptor memory_;
  int64_t taken_ = 0;
};

// How `rank` of a communicator of `size` ranks sends to each, as the log says it without numbers of
// devices: "P2P/CUMEM", "SHM/direct", "NET/IB/GDRDMA"; empty where it says nothing.
std::vector<std::string> TransportsOf(StringView log, int rank, int size);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_NCCL_LOG_H_
