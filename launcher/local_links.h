// Where the agent of the coordinator's own process leaves the ends of its ranks' rings for the
// coordinator, so that plans reach local ranks without an RPC. Safe from any thread.
#ifndef COHORT_LAUNCHER_LOCAL_LINKS_H_
#define COHORT_LAUNCHER_LOCAL_LINKS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "launcher/rank_links.h"

namespace cohort {

class LocalLinks final : public RankLinks {
 public:
  void Put(uint64_t epoch, int rank, std::unique_ptr<StepLink> link) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    links_[{epoch, rank}] = std::move(link);
  }

  // The link, now the caller's; nullptr when none was left for this epoch and rank.
  std::unique_ptr<StepLink> Take(uint64_t epoch, int rank) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = links_.find({epoch, rank});
    if (found == links_.end()) return nullptr;
    std::unique_ptr<StepLink> link = std::move(found->second);
    links_.erase(found);
    return link;
  }

  void DropUntil(uint64_t epoch) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    links_.erase(links_.begin(), links_.lower_bound({epoch + 1, 0}));
  }

 private:
  std::mutex mutex_;
  std::map<std::pair<uint64_t, int>, std::unique_ptr<StepLink>> links_;  // by (epoch, rank)
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_LOCAL_LINKS_H_
