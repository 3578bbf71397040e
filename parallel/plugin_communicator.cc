#include "parallel/plugin_communicator.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "kernels/plugin_device.h"
#include "kernels/plugin_library.h"
#include "parallel/exchange_shape.h"
#include "parallel/gather_shape.h"

namespace cohort {
namespace {

using Clock = std::chrono::steady_clock;

PluginDevice& AsPlugin(Device& device) {
  CHECK(device.kind() == "cuda") << "NCCL works on CUDA devices, not on " << device.kind();
  return static_cast<PluginDevice&>(device);
}

class PluginCommunicator : public Communicator {
 public:
  // Takes `handle`.
  PluginCommunicator(const CohortCudaTable* table, CohortCudaCommunicator* handle, int rank,
                     int size, absl::Duration timeout)
      : table_(table),
        handle_(handle),
        rank_(rank),
        size_(size),
        timeout_(absl::ToChronoNanoseconds(timeout)),
        watcher_([this] { Watch(); }) {}
  ~PluginCommunicator() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void AllReduceSum(TensorView inout) override;
  void AllGather(TensorView shard, absl::Span<const Range> parts, TensorView out) override;
  void AllToAll(const ExchangeView& send, const ExchangeView& receive) override;
  void Barrier() override;
  void Abort() override;
  absl::Status status() const override;

 private:
  // Runs call(table, handle) -> CohortCudaError unless the communicator has failed.
  template <class Call>
  void Collective(StringView name, Call call);

  // Keeps the first failure and lets no wait of this rank last.
  void Fail(const absl::Status& failure);

  // The watching thread.
  void Watch();
  // OK, or why the communicator must be given up. The mutex is not held.
  absl::Status Look();

  const CohortCudaTable* const table_;
  CohortCudaCommunicator* const handle_;  // owned
  const int rank_;
  const int size_;
  const std::chrono::nanoseconds timeout_;

  mutable std::mutex mutex_;  // guards what follows
  absl::Status failure_;
  std::string last_name_;            // of the collective enqueued last
  uint64_t enqueued_ = 0;            // collectives
  uint64_t finished_ = 0;            // collectives the device is known to have finished
  Clock::time_point waiting_since_;  // while finished_ < enqueued_: when that was last news
  bool is_leaving_ = false;
  std::condition_variable leaving_;

  std::thread watcher_;  // last: it uses everything above
};

PluginCommunicator::~PluginCommunicator() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_leaving_ = true;
  }
  leaving_.notify_all();
  watcher_.join();
  table_->communicator_destroy(handle_);
}

template <class Call>
void PluginCommunicator::Collective(StringView name, Call call) {
  uint64_t number = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!failure_.ok()) {
      return;
    }
    number = enqueued_ + 1;
  }
  const absl::Status status = FromPlugin(call());
  if (!status.ok()) {
    Fail(Annotate(status, absl::StrCat("collective ", number, " (", name, ")")));
    return;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  if (finished_ == enqueued_) {
    waiting_since_ = Clock::now();
  }
  enqueued_ = number;
  last_name_ = std::string(name);
}

void PluginCommunicator::AllReduceSum(TensorView inout) {
  CHECK(inout.is_dense()) << "AllReduceSum of " << inout.shape.ToString();
  CHECK(inout.dtype != DType::kI32) << "AllReduceSum of " << NameOf(inout.dtype);
  const CohortCudaTensor plugin_inout = ToPlugin(inout);
  Collective("AllReduceSum", [&] { return table_->all_reduce_sum(handle_, &plugin_inout); });
}

void PluginCommunicator::AllGather(TensorView shard, absl::Span<const Range> parts,
                                   TensorView out) {
  CheckGatherShapes(rank_, size_, shard, parts, out);
  const CohortCudaTensor plugin_shard = ToPlugin(shard);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  std::vector<CohortCudaRange> plugin_parts;
  for (const Range& part : parts) {
    plugin_parts.push_back({part.begin, part.end});
  }
  Collective("AllGather", [&] {
    return table_->all_gather(handle_, &plugin_shard, plugin_parts.data(), &plugin_out);
  });
}

void PluginCommunicator::AllToAll(const ExchangeView& send, const ExchangeView& receive) {
  CheckExchangeShapes(size_, send, receive);
  Fail(absl::UnimplementedError(absl::StrCat("rank ", rank_, " of ", size_,
                                             ": all-to-all on this device is not there yet; use "
                                             "--device cpu")));
}

void PluginCommunicator::Barrier() {
  Collective("Barrier", [&] { return table_->barrier(handle_); });
}

void PluginCommunicator::Abort() {
  Fail(absl::AbortedError(
      absl::StrCat("rank ", rank_, " of ", size_, ": the communicator was aborted")));
}

absl::Status PluginCommunicator::status() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return failure_;
}

void PluginCommunicator::Fail(const absl::Status& failure) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!failure_.ok()) {
      return;
    }
    failure_ = failure;
  }
  table_->communicator_abort(handle_);
}

void PluginCommunicator::Watch() {
  const auto interval = std::min<std::chrono::nanoseconds>(timeout_ / 16, std::chrono::seconds(1));
  std::unique_lock<std::mutex> lock(mutex_);
  while (!leaving_.wait_for(lock, interval, [this] { return is_leaving_; })) {
    if (!failure_.ok()) {
      continue;
    }
    lock.unlock();
    if (const absl::Status status = Look(); !status.ok()) {
      Fail(status);
    }
    lock.lock();
  }
}

absl::Status PluginCommunicator::Look() {
  uint64_t finished = 0;
  RETURN_IF_ERROR(FromPlugin(table_->communicator_poll(handle_, &finished)));
  const std::lock_guard<std::mutex> lock(mutex_);
  const Clock::time_point now = Clock::now();
  if (finished > finished_) {
    finished_ = std::min(finished, enqueued_);
    waiting_since_ = now;
  }
  if (finished_ == enqueued_ || now - waiting_since_ < timeout_) {
    return absl::OkStatus();
  }
  return absl::DeadlineExceededError(
      absl::StrCat("rank ", rank_, " of ", size_, ": collectives ", finished_ + 1, " to ",
                   enqueued_, " (the last one ", last_name_, ") were not done within ",
                   absl::FormatDuration(absl::FromChrono(timeout_)), "; some rank did not arrive"));
}

}  // namespace

absl::StatusOr<std::string> CreatePluginUniqueId(Device& device) {
  CohortCudaUniqueId id{};
  RETURN_IF_ERROR(FromPlugin(AsPlugin(device).table()->unique_id_create(&id)));
  return std::string(id.bytes, sizeof(id.bytes));
}

absl::StatusOr<std::unique_ptr<Communicator>> MakePluginCommunicator(
    Device& device, const PluginCommunicatorOptions& options) {
  PluginDevice& plugin = AsPlugin(device);
  CHECK(options.rank >= 0 && options.rank < options.size)
      << "rank " << options.rank << " of " << options.size;
  CohortCudaUniqueId id{};
  if (options.unique_id.size() != sizeof(id.bytes)) {
    return absl::InvalidArgumentError(absl::StrCat("an NCCL id has ", sizeof(id.bytes),
                                                   " bytes, not ", options.unique_id.size()));
  }
  std::memcpy(id.bytes, options.unique_id.data(), sizeof(id.bytes));
  CohortCudaCommunicator* handle = nullptr;
  RETURN_IF_ERROR(FromPlugin(
      plugin.table()->communicator_create(plugin.handle(), options.size, options.rank, &id,
                                          absl::ToInt64Milliseconds(options.timeout), &handle)));
  return std::make_unique<PluginCommunicator>(plugin.table(), handle, options.rank, options.size,
                                              options.timeout);
}

}  // namespace cohort
