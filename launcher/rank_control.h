// A rank's side of its control socket: one thread that reads commands whatever the worker's thread
// is doing, and ends the process at once when the agent is gone.
#ifndef COHORT_LAUNCHER_RANK_CONTROL_H_
#define COHORT_LAUNCHER_RANK_CONTROL_H_

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "cohort/v1/cluster.pb.h"
#include "launcher/control_socket.h"

namespace cohort {

// An epoch to join: who is in it, and its memory.
struct EpochInvitation {
  v1::BeginEpoch begin;
  std::vector<FileDescriptor> descriptors;  // plans, outcomes, the regions of its groups
};

class RankControl {
 public:
  explicit RankControl(ControlSocket socket);
  ~RankControl();  // the agent's commands are read no more

  // From any thread. Nobody to say it to means that the process is about to end.
  void Say(const v1::RankToAgent& message);

  // ---- From the worker's thread ----

  v1::ConfigureRank WaitForConfiguration();

  // The next epoch, which is then the present one.
  EpochInvitation WaitForEpoch();

  // Has `abort` called, by the control thread, when the present epoch is to end. False, and no
  // call, when that has been said already.
  bool Enter(std::function<void()> abort);
  // True once the present epoch is to end.
  bool MustLeave() const;
  // Where the other nodes' ranks of the present epoch listen. ABORTED when it is to end;
  // DEADLINE_EXCEEDED.
  absl::StatusOr<v1::EpochPeers> WaitForPeers(absl::Time deadline);
  // From here on `abort` is not called; then `leave` is; then the agent hears that the rank is in
  // no epoch.
  void Exit(const std::function<void()>& leave);

 private:
  void Run();
  void Handle(ControlPacket packet);
  void HandleBegin(v1::BeginEpoch begin, std::vector<FileDescriptor> descriptors);
  void HandleAbort(uint64_t epoch);
  void EndEpochsUntil(uint64_t epoch);  // with the mutex held
  void SayLeft(uint64_t epoch);

  ControlSocket socket_;
  std::mutex send_mutex_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<v1::ConfigureRank> configuration_;
  std::optional<EpochInvitation> invitation_;
  std::optional<v1::EpochPeers> peers_;  // the latest
  uint64_t present_ = 0;                 // the epoch the worker's thread is in; 0: none
  uint64_t ended_ = 0;                   // epochs up to this one are over
  std::function<void()> abort_;  // of the present epoch, once entered; called with the mutex held
  bool stopping_ = false;

  std::thread thread_;  // last
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_RANK_CONTROL_H_
