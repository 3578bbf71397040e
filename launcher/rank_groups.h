// The groups of one rank in one epoch: their memory, their connections to other nodes, and in the
// end their communicators.
#ifndef COHORT_LAUNCHER_RANK_GROUPS_H_
#define COHORT_LAUNCHER_RANK_GROUPS_H_

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "cohort/v1/cluster.pb.h"
#include "kernels/device.h"
#include "launcher/epoch_groups.h"
#include "launcher/file_descriptor.h"
#include "launcher/flag_values.h"
#include "launcher/gpu_transport.h"
#include "launcher/nccl_log.h"
#include "parallel/cluster_communicator.h"
#include "parallel/communicator.h"
#include "parallel/plugin_communicator.h"

namespace cohort {

struct RankGroupsOptions {
  int rank = 0;
  std::string address;             // of this node, where those of other nodes connect
  absl::Duration timeout;          // of every collective
  absl::Duration connect_timeout;  // for the other nodes to be connected
  int spin_iterations = 0;
  // Of a rank on a GPU; outlive the groups.
  Device* gpu = nullptr;  // that it computes on; null on the CPU
  NcclLog* nccl_log = nullptr;
  TransportRequirements requirements;
  PeerReduction peer_reduction = PeerReduction::kAuto;
  ReductionSizes reduction_sizes;
};

struct RankCommunicators {
  std::unique_ptr<Communicator> tensor;
  std::unique_ptr<Communicator> data;  // null where ranks exchange no rows for experts
  std::string transport;               // of GPUs, in words
};

// On the CPU the ranks of a node meet in shared memory, and one of them connects it to others. GPUs
// meet by NCCL: the first rank of a group makes an id, by which all join.
//
// Used from the worker's thread; Abort from any.
class RankGroups {
 public:
  // `regions`: one per group of the rank, in the order of GroupsOf. Listens for other nodes where
  // the rank is to connect its own.
  static absl::StatusOr<std::unique_ptr<RankGroups>> Prepare(const RankGroupsOptions& options,
                                                             const v1::BeginEpoch& begin,
                                                             std::vector<FileDescriptor> regions);

  // Whether this rank has to say its listeners.
  bool listens() const;
  v1::EpochListeners listeners() const;  // without the epoch
  // Whether it has to Connect, with what all ranks that listen have said.
  bool connects() const;
  absl::Status Connect(const v1::EpochPeers& peers);

  // FAILED_PRECONDITION: joined, but not by the transport that is required.
  absl::StatusOr<RankCommunicators> MakeCommunicators();

  void Abort();  // wakes Connect and MakeCommunicators

 private:
  struct Member {
    EpochGroup group;
    FileDescriptor region;
    std::shared_ptr<GlooMesh> mesh;  // where this rank connects its node; else null
    std::string unique_id;           // of a group of GPUs
    bool is_first = false;           // which this rank has made
  };

  explicit RankGroups(RankGroupsOptions options) : options_(std::move(options)) {}
  absl::Status Listen(Member& member) const;
  absl::Status ConnectMesh(size_t index, const v1::EpochPeers& peers);
  absl::Status FindUniqueId(size_t index, const v1::EpochPeers& peers);
  absl::StatusOr<std::unique_ptr<Communicator>> MakeCommunicator(const Member& member);
  absl::StatusOr<std::unique_ptr<Communicator>> JoinGpus(const Member& member);
  absl::Status ReportTransport(const Member& member, const PeerLinks& links);

  const RankGroupsOptions options_;
  std::vector<Member> members_;
  std::string transport_;

  std::mutex mutex_;  // guards what follows
  bool is_aborted_ = false;
  PluginCommunicator* joining_ = nullptr;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_RANK_GROUPS_H_
