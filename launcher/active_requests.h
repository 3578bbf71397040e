// The unfinished requests by the id that clients know them by: for refusing duplicates, for
// cancelling and for Control.Abort. Safe from any thread.
#ifndef COHORT_LAUNCHER_ACTIVE_REQUESTS_H_
#define COHORT_LAUNCHER_ACTIVE_REQUESTS_H_

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "runtime/engine.h"

namespace cohort {

// One request on its way into, through and out of the engine. Owned by its call and, while it is
// unfinished, by ActiveRequests.
class ActiveRequest {
 public:
  explicit ActiveRequest(Engine& engine) : engine_(engine) {}
  absl::Status Submit(Request request, std::shared_ptr<RequestSink> sink);
  // At any time, also before Submit has returned. Idempotent.
  void Cancel();

 private:
  Engine& engine_;
  std::mutex mutex_;  // not held while the engine is called
  std::optional<RequestId> id_;
  bool cancelled_ = false;
};

class ActiveRequests {
 public:
  explicit ActiveRequests(Engine& engine) : engine_(engine) {}

  // ALREADY_EXISTS while a request of this id is unfinished.
  absl::StatusOr<std::shared_ptr<ActiveRequest>> Reserve(const std::string& request_id);
  // Once per Reserve: refused by the engine, or finished. May be called by a sink.
  void Release(const std::string& request_id);

  // Cancels those that are known and returns their ids.
  std::vector<std::string> Abort(const std::vector<std::string>& request_ids);

 private:
  Engine& engine_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<ActiveRequest>> requests_;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_ACTIVE_REQUESTS_H_
