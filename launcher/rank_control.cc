#include "launcher/rank_control.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "launcher/log.h"

namespace cohort {

RankControl::RankControl(ControlSocket socket)
    : socket_(std::move(socket)), thread_([this] { Run(); }) {}

RankControl::~RankControl() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  shutdown(socket_.fd(), SHUT_RD);
  thread_.join();
}

void RankControl::Say(const v1::RankToAgent& message) {
  const std::lock_guard<std::mutex> lock(send_mutex_);
  // Fails only when the agent is gone; the control thread then ends the process.
  socket_.Send(message.SerializeAsString(), {}, ControlSocket::WhenFull::kWait).IgnoreError();
}

void RankControl::SayLeft(uint64_t epoch) {
  v1::RankToAgent message;
  message.mutable_epoch_left()->set_epoch(epoch);
  Say(message);
}

v1::ConfigureRank RankControl::WaitForConfiguration() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return configuration_.has_value(); });
  return *configuration_;
}

EpochInvitation RankControl::WaitForEpoch() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return invitation_.has_value(); });
  EpochInvitation invitation = *std::exchange(invitation_, std::nullopt);
  present_ = invitation.begin.epoch();
  return invitation;
}

bool RankControl::Enter(std::function<void()> abort) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (present_ <= ended_) return false;
  abort_ = std::move(abort);
  return true;
}

bool RankControl::MustLeave() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return present_ <= ended_;
}

absl::StatusOr<v1::EpochPeers> RankControl::WaitForPeers(absl::Time deadline) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto have_come = [this] { return peers_.has_value() && peers_->epoch() == present_; };
  const auto settled = [&] { return present_ <= ended_ || have_come(); };
  if (!changed_.wait_until(lock, absl::ToChronoTime(deadline), settled)) {
    return absl::DeadlineExceededError("the other ranks have not said how to reach them");
  }
  if (present_ <= ended_) return absl::AbortedError("the epoch has ended");
  return *peers_;
}

void RankControl::Exit(const std::function<void()>& leave) {
  uint64_t left = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    abort_ = nullptr;
  }
  leave();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    left = std::max(std::exchange(present_, 0), ended_);
  }
  SayLeft(left);
}

void RankControl::Run() {
  for (;;) {
    absl::StatusOr<std::optional<ControlPacket>> packet = socket_.Receive();
    if (packet.ok() && packet->has_value()) {
      Handle(**std::move(packet));
      continue;
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return;
    if (!packet.ok()) LogError("rank_failed", {{"reason", packet.status().message()}});
    // The agent is gone, and with it everyone who knows of this process.
    _exit(1);
  }
}

void RankControl::Handle(ControlPacket packet) {
  v1::AgentToRank message;
  if (!message.ParseFromString(packet.bytes)) _exit(1);  // not our agent
  switch (message.message_case()) {
    case v1::AgentToRank::kConfigure: {
      const std::lock_guard<std::mutex> lock(mutex_);
      configuration_ = std::move(*message.mutable_configure());
      changed_.notify_all();
      break;
    }
    case v1::AgentToRank::kBeginEpoch:
      HandleBegin(std::move(*message.mutable_begin_epoch()), std::move(packet.descriptors));
      break;
    case v1::AgentToRank::kEpochPeers: {
      const std::lock_guard<std::mutex> lock(mutex_);
      peers_ = std::move(*message.mutable_epoch_peers());
      changed_.notify_all();
      break;
    }
    case v1::AgentToRank::kAbortEpoch:
      HandleAbort(message.abort_epoch().epoch());
      break;
    case v1::AgentToRank::kShutdown:
      // Nothing of a rank is worth saving, and its thread may be deep in a step.
      _exit(0);
    case v1::AgentToRank::MESSAGE_NOT_SET:
      break;
  }
}

void RankControl::HandleBegin(v1::BeginEpoch begin, std::vector<FileDescriptor> descriptors) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (begin.epoch() <= ended_) return;
  EndEpochsUntil(begin.epoch() - 1);
  invitation_ = EpochInvitation{std::move(begin), std::move(descriptors)};
  changed_.notify_all();
}

void RankControl::HandleAbort(uint64_t epoch) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    EndEpochsUntil(epoch);
    // Exit says it otherwise.
    if (present_ != 0) return;
  }
  SayLeft(epoch);
}

void RankControl::EndEpochsUntil(uint64_t epoch) {
  ended_ = std::max(ended_, epoch);
  if (invitation_.has_value() && invitation_->begin.epoch() <= ended_) invitation_.reset();
  if (present_ != 0 && present_ <= ended_ && abort_) abort_();
  changed_.notify_all();
}

}  // namespace cohort
