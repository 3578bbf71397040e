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

static_assert(static_cast<int>(PeerReduction::kNever) == kCohortCudaPeersNever);
static_assert(static_cast<int>(PeerReduction::kAuto) == kCohortCudaPeersAuto);
static_assert(static_cast<int>(PeerReduction::kAlways) == kCohortCudaPeersAlways);

PluginDevice& AsPlugin(Device& device) {
  CHECK(device.kind() == "cuda") << "NCCL works on CUDA devices, not on " << device.kind();
  return static_cast<PluginDevice&>(device);
}

class NcclCommunicator : public PluginCommunicator {
 public:
  // Takes `handle`.
  NcclCommunicator(const CohortCudaTable* table, CohortCudaCommunicator* handle, int rank, int size,
                   absl::Duration timeout)
      : table_(table),
        handle_(handle),
        rank_(rank),
        size_(size),
        timeout_(absl::ToChronoNanoseconds(timeout)),
        watcher_([this] { Watch(); }) {}
  ~NcclCommunicator() override;

  absl::Status Join() override;
  PeerLinks links() const override;
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void AllReduceSum(TensorView inout) override;
  void AllGather(TensorView shard, absl::Span<const Range> parts, TensorView out) override;
  void AllToAll(const ExchangeView& send, const ExchangeView& receive) override;
  void AllReduceAddRmsNorm(Ops& ops, TensorView x, TensorView residual, TensorView gamma, float eps,
                           TensorView out) override;
  void Barrier() override;
  void Abort() override;
  absl::Status status() const override;

 private:
  // Runs call(table, handle) -> CohortCudaError unless the communicator has failed.
  template <class Call>
  void Collective(StringView name, Call call);

  // Keeps the first failure and lets no wait of this rank last.
  void Fail(const absl::Status& failure) const;

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
  mutable absl::Status failure_;
  std::string last_name_;            // of the collective enqueued last
  uint64_t number_ = 0;              // its number
  uint64_t finished_ = 0;            // pieces of work the device is known to have finished
  bool is_waiting_ = false;          // for some that it has not
  Clock::time_point waiting_since_;  // while is_waiting_: when that was last news
  bool is_leaving_ = false;
  std::condition_variable leaving_;

  std::thread watcher_;  // last: it uses everything above
};

NcclCommunicator::~NcclCommunicator() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_leaving_ = true;
  }
  leaving_.notify_all();
  watcher_.join();
  table_->communicator_destroy(handle_);
}

absl::Status NcclCommunicator::Join() {
  const absl::Status joined = FromPlugin(table_->communicator_join(handle_));
  if (!joined.ok()) {
    Fail(joined);
  }
  return status();
}

PeerLinks NcclCommunicator::links() const {
  std::vector<int32_t> numbers(static_cast<size_t>(size_));
  PeerLinks links;
  links.reduces_over_peers = table_->communicator_links(handle_, numbers.data()) != 0;
  table_->communicator_sizes(handle_, &links.one_shot_bytes, &links.two_shot_bytes);
  for (const int32_t number : numbers) {
    links.of_rank.push_back(static_cast<CohortCudaLink>(number));
  }
  return links;
}

template <class Call>
void NcclCommunicator::Collective(StringView name, Call call) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!failure_.ok()) {
      return;
    }
    ++number_;
    last_name_ = std::string(name);
  }
  const absl::Status status = FromPlugin(call());
  if (!status.ok()) {
    Fail(Annotate(status, absl::StrCat("collective ", number_, " (", name, ")")));
  }
}

void NcclCommunicator::AllReduceSum(TensorView inout) {
  CHECK(inout.is_dense()) << "AllReduceSum of " << inout.shape.ToString();
  CHECK(inout.dtype != DType::kI32) << "AllReduceSum of " << NameOf(inout.dtype);
  const CohortCudaTensor plugin_inout = ToPlugin(inout);
  Collective("AllReduceSum", [&] { return table_->all_reduce_sum(handle_, &plugin_inout); });
}

void NcclCommunicator::AllGather(TensorView shard, absl::Span<const Range> parts, TensorView out) {
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

void NcclCommunicator::AllToAll(const ExchangeView& send, const ExchangeView& receive) {
  CheckExchangeShapes(size_, send, receive);
  const CohortCudaExchange from = {ToPlugin(send.rows), ToPlugin(send.counts)};
  const CohortCudaExchange to = {ToPlugin(receive.rows), ToPlugin(receive.counts)};
  Collective("AllToAll", [&] { return table_->all_to_all(handle_, &from, &to); });
}

void NcclCommunicator::AllReduceAddRmsNorm(Ops&, TensorView x, TensorView residual,
                                           TensorView gamma, float eps, TensorView out) {
  CHECK(x.is_dense()) << "AllReduceAddRmsNorm of " << x.shape.ToString();
  const CohortCudaTensor plugin_x = ToPlugin(x);
  const CohortCudaTensor plugin_residual = ToPlugin(residual);
  const CohortCudaTensor plugin_gamma = ToPlugin(gamma);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  Collective("AllReduceAddRmsNorm", [&] {
    return table_->all_reduce_add_rms_norm(handle_, &plugin_x, &plugin_residual, &plugin_gamma, eps,
                                           &plugin_out);
  });
}

void NcclCommunicator::Barrier() {
  Collective("Barrier", [&] { return table_->barrier(handle_); });
}

void NcclCommunicator::Abort() {
  Fail(absl::AbortedError(
      absl::StrCat("rank ", rank_, " of ", size_, ": the communicator was aborted")));
}

// Asks the other side too: what a kernel gave up must be known before its output is used.
absl::Status NcclCommunicator::status() const {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!failure_.ok()) {
      return failure_;
    }
  }
  uint64_t submitted = 0;
  uint64_t finished = 0;
  const absl::Status found = FromPlugin(table_->communicator_poll(handle_, &submitted, &finished));
  if (!found.ok()) {
    Fail(found);
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  return failure_;
}

void NcclCommunicator::Fail(const absl::Status& failure) const {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!failure_.ok()) {
      return;
    }
    failure_ = failure;
  }
  table_->communicator_abort(handle_);
}

void NcclCommunicator::Watch() {
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

absl::Status NcclCommunicator::Look() {
  uint64_t submitted = 0;
  uint64_t finished = 0;
  RETURN_IF_ERROR(FromPlugin(table_->communicator_poll(handle_, &submitted, &finished)));
  const std::lock_guard<std::mutex> lock(mutex_);
  const Clock::time_point now = Clock::now();
  if (!std::exchange(is_waiting_, finished < submitted) || finished > finished_) {
    waiting_since_ = now;
  }
  finished_ = finished;
  if (!is_waiting_ || now - waiting_since_ < timeout_) {
    return absl::OkStatus();
  }
  return absl::DeadlineExceededError(
      absl::StrCat("rank ", rank_, " of ", size_, ": work up to collective ", number_, " (",
                   last_name_, ") was not done within ",
                   absl::FormatDuration(absl::FromChrono(timeout_)), "; some rank did not arrive"));
}

}  // namespace

absl::StatusOr<std::string> CreatePluginUniqueId(Device& device) {
  CohortCudaUniqueId id{};
  RETURN_IF_ERROR(FromPlugin(AsPlugin(device).table()->unique_id_create(&id)));
  return std::string(id.bytes, sizeof(id.bytes));
}

absl::StatusOr<std::unique_ptr<PluginCommunicator>> MakePluginCommunicator(
    Device& device, const PluginCommunicatorOptions& options) {
  PluginDevice& plugin = AsPlugin(device);
  CHECK(options.rank >= 0 && options.rank < options.size)
      << "rank " << options.rank << " of " << options.size;
  CohortCudaGroup group{};
  if (options.size > 1 && options.unique_id.size() != sizeof(group.id.bytes)) {
    return absl::InvalidArgumentError(absl::StrCat("an NCCL id has ", sizeof(group.id.bytes),
                                                   " bytes, not ", options.unique_id.size()));
  }
  options.unique_id.copy(group.id.bytes, sizeof(group.id.bytes));
  group.world = options.size;
  group.rank = options.rank;
  group.join_timeout_ms = absl::ToInt64Milliseconds(options.join_timeout);
  group.timeout_ms = absl::ToInt64Milliseconds(options.timeout);
  group.peer_mode = static_cast<int32_t>(options.peer_reduction);
  group.one_shot_bytes = options.one_shot_bytes;
  group.two_shot_bytes = options.two_shot_bytes;
  group.measures_sizes = options.measures_sizes ? 1 : 0;
  CohortCudaCommunicator* handle = nullptr;
  RETURN_IF_ERROR(
      FromPlugin(plugin.table()->communicator_create(plugin.handle(), &group, &handle)));
  return std::make_unique<NcclCommunicator>(plugin.table(), handle, options.rank, options.size,
                                            options.timeout);
}

}  // namespace cohort
