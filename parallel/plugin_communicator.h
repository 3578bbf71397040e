// Ranks as processes with one CUDA device each: collectives over NCCL, behind the plugin's table.
#ifndef COHORT_PARALLEL_PLUGIN_COMMUNICATOR_H_
#define COHORT_PARALLEL_PLUGIN_COMMUNICATOR_H_

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "kernels/device.h"
#include "parallel/communicator.h"

namespace cohort {

struct PluginCommunicatorOptions {
  int rank = 0;
  int size = 1;
  // Bytes of CreatePluginUniqueId(), the same on every rank. A new one per group and epoch.
  std::string unique_id;
  // Of joining and of every collective. NCCL itself waits for ever.
  absl::Duration timeout = absl::Seconds(60);
};

// An id for a new group. Made in the process of one of its ranks, which must live until all have
// joined: it listens for them.
absl::StatusOr<std::string> CreatePluginUniqueId(Device& device);

// Waits for all ranks. `device` is a CUDA device (kernels/plugin_device.h) and outlives the
// communicator; collectives are ordered with its operations.
//
// A thread of the communicator watches the collectives: one that is not done `timeout` after it
// was enqueued (a quarter more at most) aborts the communicator with DEADLINE_EXCEEDED, so that
// Device::Synchronize() returns. NCCL does not tell which ranks are missing.
absl::StatusOr<std::unique_ptr<Communicator>> MakePluginCommunicator(
    Device& device, const PluginCommunicatorOptions& options);

}  // namespace cohort

#endif  // COHORT_PARALLEL_PLUGIN_COMMUNICATOR_H_
