// Joins the shared regions of several hosts into one. Every host's region has a place for every
// rank of the group; the bridge, driven by one rank of each host, copies what the ranks of its host
// posted to the other hosts, and what theirs posted to its own region. So a rank finds the data of
// all ranks in memory, wherever they are, and sums them in the same order as on one host.
#ifndef COHORT_PARALLEL_REGION_BRIDGE_H_
#define COHORT_PARALLEL_REGION_BRIDGE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "parallel/gloo_mesh.h"
#include "parallel/shard_plan.h"
#include "parallel/shared_region.h"

namespace cohort {

// Of a step: which bytes of the buffer of group rank `source` the ranks in `readers` (all of one
// host, none of them `source`) read. The same on every rank.
using StepBytes = absl::FunctionRef<Range(int source, Range readers)>;

class RegionBridge {
 public:
  // `hosts`: the group ranks of each host, in order, none empty. `mesh`: connected, between just
  // these hosts. Of the mesh's host, the bridge reads and writes `region`.
  RegionBridge(std::shared_ptr<const SharedRegion> region, std::vector<Range> hosts,
               std::shared_ptr<GlooMesh> mesh);

  // The longest message from a host with `ranks` ranks, bytes.
  static int64_t MessageBytes(int64_t ranks);

  Range own_ranks() const { return hosts_[static_cast<size_t>(mesh_->host())]; }

  // Once all ranks of this host have posted `step`: fills in the announcements and buffers of the
  // others' ranks, whose `posted` is left to the caller. The statuses of GlooMesh::Exchange;
  // INTERNAL when another host is in another step.
  absl::Status Carry(uint32_t step, StepBytes bytes, absl::Duration timeout);

  void Abort() { mesh_->Abort(); }  // any thread

 private:
  int64_t Pack(uint32_t step, int host, StepBytes bytes);
  absl::Status Unpack(uint32_t step, int host, StepBytes bytes);

  const std::shared_ptr<const SharedRegion> region_;
  const std::vector<Range> hosts_;
  const std::shared_ptr<GlooMesh> mesh_;
  std::vector<int64_t> lengths_;  // scratch, by host
};

}  // namespace cohort

#endif  // COHORT_PARALLEL_REGION_BRIDGE_H_
