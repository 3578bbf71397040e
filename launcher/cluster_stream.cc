#include "launcher/cluster_stream.h"

#include <utility>

namespace cohort {

std::shared_ptr<ClusterStream> ClusterStream::Open(const std::shared_ptr<grpc::Channel>& channel,
                                                   const std::string& token, Handler handler) {
  auto stream = std::make_shared<ClusterStream>(channel, std::move(handler));
  stream->self_ = stream;
  stream->context_.AddMetadata(kClusterTokenKey, token);
  stream->stub_->async()->Session(&stream->context_, stream.get());
  // Writes start from the agent's thread at any time: the hold keeps OnDone away until the last.
  stream->AddHold();
  stream->StartRead(&stream->incoming_);
  stream->StartCall();
  return stream;
}

ClusterStream::ClusterStream(const std::shared_ptr<grpc::Channel>& channel, Handler handler)
    : stub_(v1::Cluster::NewStub(channel)), handler_(std::move(handler)) {}

void ClusterStream::Send(v1::AgentMessage message) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (closed_ || finishing_) return;
  outbox_.push_back(std::move(message));
  WriteNext();
}

void ClusterStream::Finish() {
  const std::lock_guard<std::mutex> lock(mutex_);
  finishing_ = true;
  WriteNext();
}

void ClusterStream::WriteNext() {
  if (closed_ || writing_) return;
  if (!outbox_.empty()) {
    writing_ = true;
    StartWrite(&outbox_.front());
  } else if (finishing_) {
    StartWritesDone();
    Close();
  }
}

void ClusterStream::Close() {
  if (!closed_) RemoveHold();
  closed_ = true;
}

void ClusterStream::OnWriteDone(bool ok) {
  const std::lock_guard<std::mutex> lock(mutex_);
  writing_ = false;
  outbox_.pop_front();
  if (ok && !ended_) {
    WriteNext();
  } else {
    Close();
  }
}

void ClusterStream::OnReadDone(bool ok) {
  if (ok) {
    handler_.on_message(std::move(incoming_));
    incoming_.Clear();
    StartRead(&incoming_);
    return;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  ended_ = true;
  if (!writing_) Close();  // else when that write is done
}

void ClusterStream::OnDone(const grpc::Status& status) {
  const absl::Status ended = status.ok()
                                 ? absl::OkStatus()
                                 : absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                                                status.error_message());
  const std::function<void(absl::Status)> on_end = std::move(handler_.on_end);
  self_.reset();  // may be the end of this object
  on_end(ended);
}

}  // namespace cohort
