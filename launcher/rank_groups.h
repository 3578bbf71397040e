// The groups of one rank in one epoch: their memory, their connections to other nodes, and in the
// end their communicators.
#ifndef COHORT_LAUNCHER_RANK_GROUPS_H_
#define COHORT_LAUNCHER_RANK_GROUPS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "cohort/v1/cluster.pb.h"
#include "launcher/epoch_groups.h"
#include "launcher/file_descriptor.h"
#include "parallel/cluster_communicator.h"
#include "parallel/communicator.h"

namespace cohort {

struct RankGroupsOptions {
  int rank = 0;
  std::string address;             // of this node, where those of other nodes connect
  absl::Duration timeout;          // of every collective
  absl::Duration connect_timeout;  // for the other nodes to be connected
  int spin_iterations = 0;
};

struct RankCommunicators {
  std::unique_ptr<Communicator> tensor;
  std::unique_ptr<Communicator> data;  // null where ranks exchange no rows for experts
};

// Used from the worker's thread; Abort from any.
class RankGroups {
 public:
  // `regions`: one per group of the rank, in the order of GroupsOf. Listens for other nodes where
  // the rank is to connect its own.
  static absl::StatusOr<std::unique_ptr<RankGroups>> Prepare(const RankGroupsOptions& options,
                                                             const v1::BeginEpoch& begin,
                                                             std::vector<FileDescriptor> regions);

  // Whether this rank has to tell where it listens, and to Connect.
  bool connects() const;
  v1::EpochListeners listeners() const;  // without the epoch
  absl::Status Connect(const v1::EpochPeers& peers);

  absl::StatusOr<RankCommunicators> MakeCommunicators();

  void Abort();  // wakes Connect

 private:
  struct Member {
    EpochGroup group;
    FileDescriptor region;
    std::shared_ptr<GlooMesh> mesh;  // where this rank connects its node; else null
  };

  explicit RankGroups(RankGroupsOptions options) : options_(std::move(options)) {}
  absl::Status Listen(Member& member) const;
  absl::StatusOr<std::unique_ptr<Communicator>> MakeCommunicator(const Member& member) const;

  const RankGroupsOptions options_;
  std::vector<Member> members_;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_RANK_GROUPS_H_
