// Ranks as processes with one CUDA device each: collectives over NCCL, behind the plugin's table.
#ifndef COHORT_PARALLEL_PLUGIN_COMMUNICATOR_H_
#define COHORT_PARALLEL_PLUGIN_COMMUNICATOR_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "kernels/cuda_plugin.h"
#include "kernels/device.h"
#include "parallel/communicator.h"

namespace cohort {

// Small reductions go over the memory of the other GPUs instead of NCCL: never, where NVLink links
// them all, or where they reach each other's memory at all.
enum class PeerReduction { kNever, kAuto, kAlways };

struct PluginCommunicatorOptions {
  int rank = 0;
  int size = 1;
  // Bytes of CreatePluginUniqueId(), the same on every rank. A new one per group and epoch. Not
  // needed in a group of one.
  std::string unique_id;
  absl::Duration join_timeout = absl::Seconds(60);
  // Of every collective. NCCL itself waits for ever.
  absl::Duration timeout = absl::Seconds(60);
  PeerReduction peer_reduction = PeerReduction::kAuto;
  // Up to how many bytes a message goes in one exchange, and in two; 0: as is usual. Larger ones
  // go over NCCL.
  int64_t one_shot_bytes = 0;
  int64_t two_shot_bytes = 0;
  // Join() finds both by the clock instead. Sums do not depend on them.
  bool measures_sizes = false;
};

// An id for a new group. Made in the process of one of its ranks, which must live until all have
// joined: it listens for them.
absl::StatusOr<std::string> CreatePluginUniqueId(Device& device);

struct PeerLinks {
  std::vector<CohortCudaLink> of_rank;
  bool reduces_over_peers = false;
  // Of messages that go over peer memory in one exchange, and of larger ones in two; 0: none.
  int64_t one_shot_bytes = 0;
  int64_t two_shot_bytes = 0;
};

class PluginCommunicator : public Communicator {
 public:
  // Waits for all ranks and makes every connection. Once, before the first collective. Abort()
  // ends it.
  virtual absl::Status Join() = 0;
  // How this rank's GPU reaches that of each rank, and whether small reductions go over peer
  // memory; after Join().
  virtual PeerLinks links() const = 0;
};

// Begins to join the group; waits for nobody. `device` is a CUDA device (kernels/plugin_device.h)
// and outlives the communicator; collectives are ordered with its operations.
//
// A thread of the communicator watches the collectives: one that is not done `timeout` after it
// was enqueued (a quarter more at most) aborts the communicator with DEADLINE_EXCEEDED, so that
// Device::Synchronize() returns. NCCL does not tell which ranks are missing.
absl::StatusOr<std::unique_ptr<PluginCommunicator>> MakePluginCommunicator(
    Device& device, const PluginCommunicatorOptions& options);

}  // namespace cohort

#endif  // COHORT_PARALLEL_PLUGIN_COMMUNICATOR_H_
