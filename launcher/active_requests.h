// The unfinished requests by the id that clients know them by: for refusing duplicates, for
// cancelling and for Control.Abort. Safe from any thread.
#ifndef COHORT_LAUNCHER_ACTIVE_REQUESTS_H_
#define COHORT_LAUNCHER_ACTIVE_REQUESTS_H_

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/engine.h"

namespace cohort {

// Hears what becomes of the sequences of one request, each as RequestSink does.
class SequenceReceiver {
 public:
  virtual ~SequenceReceiver() = default;
  virtual SinkAnswer OnTokens(uint32_t index, const GeneratedTokens& tokens) = 0;
  virtual void OnFinish(uint32_t index, const Finish& finish) = 0;
};

// One request, of one or more sequences, on its way into, through and out of the engine. Owned by
// its call and, while it is unfinished, by ActiveRequests.
class ActiveRequest {
 public:
  explicit ActiveRequest(Engine& engine) : engine_(engine) {}

  // All sequences or none: when one is refused, those before it are cancelled, and the receiver
  // must do nothing of what it still hears of them.
  absl::Status Submit(const Request& request, uint32_t sequences,
                      const std::shared_ptr<SequenceReceiver>& receiver);

  // At any time, also before Submit has returned, and from a receiver. Idempotent.
  void Cancel();
  void SetPaused(bool paused);

 private:
  Engine& engine_;
  std::mutex mutex_;  // held while the engine is told, so that the last word reaches it last
  std::vector<RequestId> ids_;
  bool cancelled_ = false;
  bool paused_ = false;
};

class ActiveRequests {
 public:
  explicit ActiveRequests(Engine& engine) : engine_(engine) {}

  // ALREADY_EXISTS while a request of this id is unfinished.
  absl::StatusOr<std::shared_ptr<ActiveRequest>> Reserve(const std::string& request_id);
  // Once per Reserve: refused by the engine, or finished. May be called by a receiver.
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
