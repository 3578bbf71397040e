// On a node without the coordinator: the plans that come over the Cluster stream go into the rings
// of its ranks, what the ranks answer goes back. Two threads per rank, so that neither a full ring
// nor a slow rank holds up the agent or another rank.
#ifndef COHORT_LAUNCHER_STEP_RELAY_H_
#define COHORT_LAUNCHER_STEP_RELAY_H_

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/time/time.h"
#include "cohort/v1/cluster.pb.h"
#include "launcher/rank_links.h"

namespace cohort {

class StepRelay final : public RankLinks {
 public:
  // `report` is called from the relay's threads, and does not block.
  using Report = std::function<void(v1::AgentMessage)>;

  explicit StepRelay(Report report);
  ~StepRelay() override;  // ends what is left

  void Put(uint64_t epoch, int rank, std::unique_ptr<StepLink> link) override;
  // Returns once their threads have ended.
  void DropUntil(uint64_t epoch) override;

  // From any thread, in order for a rank. Those of a link that is not here are dropped: their epoch
  // is over.
  void Deliver(v1::Plan plan);

 private:
  class Line;

  const Report report_;
  std::mutex mutex_;
  std::map<std::pair<uint64_t, int>, std::shared_ptr<Line>> lines_;  // by (epoch, rank)
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_STEP_RELAY_H_
