#include "kernels/plugin_device.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/plugin_library.h"

namespace cohort {
namespace {

// 13000 is 13.0.
std::string CudaVersion(int32_t version) {
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

std::string Describe(int index, const CohortCudaProperties& properties) {
  return absl::StrCat("cuda:", index, " ", properties.name, ", ",
                      properties.memory_bytes / (uint64_t{1} << 20), " MiB, compute ",
                      properties.compute_major, ".", properties.compute_minor, ", driver ",
                      CudaVersion(properties.driver_version), ", runtime ",
                      CudaVersion(properties.runtime_version));
}

// False when the bytes do not fit in 64 bits; then nobody has that much.
bool BytesOf(const Shape& shape, DType dtype, int64_t* bytes) {
  *bytes = SizeOf(dtype);
  bool fits = true;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (shape[axis] == 0) {
      *bytes = 0;
      return true;
    }
    fits = fits && !__builtin_mul_overflow(*bytes, shape[axis], bytes);
  }
  return fits;
}

uint64_t CopiedBytes(const TensorView& view) {
  CHECK(view.rows() <= 1 || view.is_dense()) << "copy of a strided tensor";
  return static_cast<uint64_t>(view.shape.elements() * SizeOf(view.dtype));
}

std::string DeviceName(int index) { return absl::StrCat("cuda:", index); }

class PluginMark : public Mark {
 public:
  // Takes `handle`.
  PluginMark(const CohortCudaTable* table, CohortCudaMark* handle, int index)
      : table_(table), handle_(handle), index_(index) {}
  ~PluginMark() override { table_->mark_destroy(handle_); }
  PluginMark(const PluginMark&) = delete;
  PluginMark& operator=(const PluginMark&) = delete;

  void Set() override { table_->mark_set(handle_); }
  absl::Status Wait(absl::Duration timeout) override {
    const int64_t microseconds = std::max<int64_t>(absl::ToInt64Microseconds(timeout), 0);
    return Annotate(FromPlugin(table_->mark_wait(handle_, microseconds)), DeviceName(index_));
  }

 private:
  const CohortCudaTable* table_;
  CohortCudaMark* handle_;
  int index_;
};

class PluginCopyQueue : public CopyQueue {
 public:
  // Takes `queue`.
  PluginCopyQueue(const CohortCudaTable* table, CohortCudaDevice* device,
                  CohortCudaCopyQueue* queue, int index)
      : table_(table), device_(device), queue_(queue), index_(index) {}
  ~PluginCopyQueue() override { table_->copy_queue_destroy(queue_); }
  PluginCopyQueue(const PluginCopyQueue&) = delete;
  PluginCopyQueue& operator=(const PluginCopyQueue&) = delete;

  void EnqueueCopyFromHost(const void* source, TensorView destination) override {
    table_->copy_queue_enqueue(queue_, source, destination.data, CopiedBytes(destination));
  }
  absl::StatusOr<std::unique_ptr<Mark>> CreateMark() override {
    CohortCudaMark* mark = nullptr;
    RETURN_IF_ERROR(
        Annotate(FromPlugin(table_->mark_create(device_, queue_, &mark)), DeviceName(index_)));
    return std::make_unique<PluginMark>(table_, mark, index_);
  }

 private:
  const CohortCudaTable* table_;
  CohortCudaDevice* device_;
  CohortCudaCopyQueue* queue_;
  int index_;
};

class PluginPinnedHost : public PinnedHost {
 public:
  PluginPinnedHost(const CohortCudaTable* table, int index, const void* memory)
      : table_(table), index_(index), memory_(memory) {}
  ~PluginPinnedHost() override { table_->host_memory_unpin(index_, memory_); }
  PluginPinnedHost(const PluginPinnedHost&) = delete;
  PluginPinnedHost& operator=(const PluginPinnedHost&) = delete;

 private:
  const CohortCudaTable* table_;
  int index_;
  const void* memory_;
};

class PluginRecording : public Recording {
 public:
  // Takes `handle`.
  PluginRecording(const CohortCudaTable* table, CohortCudaRecording* handle)
      : table_(table), handle_(handle) {}
  ~PluginRecording() override { table_->recording_destroy(handle_); }
  PluginRecording(const PluginRecording&) = delete;
  PluginRecording& operator=(const PluginRecording&) = delete;

  void Enqueue() override { table_->recording_enqueue(handle_); }
  Kernels kernels() const override {
    CohortCudaRecordedKernels kernels{};
    table_->recording_kernels(handle_, &kernels);
    return {.count = kernels.count, .pairs = kernels.pairs, .programmatic = kernels.programmatic};
  }

 private:
  const CohortCudaTable* table_;
  CohortCudaRecording* handle_;
};

}  // namespace

absl::Status PluginAvailable() { return LoadUsablePlugin().status(); }

absl::StatusOr<int> PluginDeviceCount() {
  ASSIGN_OR_RETURN(const CohortCudaTable* table, LoadUsablePlugin());
  int32_t count = 0;
  RETURN_IF_ERROR(FromPlugin(table->device_count(&count)));
  return count;
}

absl::StatusOr<int64_t> PluginDeviceMemory() {
  ASSIGN_OR_RETURN(const CohortCudaTable* table, LoadUsablePlugin());
  ASSIGN_OR_RETURN(const int count, PluginDeviceCount());
  int64_t least = std::numeric_limits<int64_t>::max();
  for (int index = 0; index < count; ++index) {
    CohortCudaProperties properties{};
    RETURN_IF_ERROR(FromPlugin(table->device_properties(index, &properties)));
    least = std::min(least, static_cast<int64_t>(properties.memory_bytes));
  }
  return least;
}

absl::StatusOr<std::unique_ptr<Device>> MakePluginDevice(const DeviceOptions& options) {
  const int index = options.index;
  ASSIGN_OR_RETURN(const CohortCudaTable* table, LoadUsablePlugin());
  ASSIGN_OR_RETURN(const int count, PluginDeviceCount());
  if (index < 0 || index >= count) {
    return absl::InvalidArgumentError(absl::StrCat("there is no device cuda:", index,
                                                   ": this host has ", count,
                                                   " (cuda:0 to cuda:", count - 1, ")"));
  }
  CohortCudaProperties properties{};
  RETURN_IF_ERROR(FromPlugin(table->device_properties(index, &properties)));
  CohortCudaDevice* handle = nullptr;
  RETURN_IF_ERROR(FromPlugin(table->device_create(index, &handle)));
  return std::make_unique<PluginDevice>(table, handle, index, Describe(index, properties),
                                        options.record_steps.value_or(true),
                                        options.persistent_steps);
}

PluginDevice::PluginDevice(const CohortCudaTable* table, CohortCudaDevice* handle, int index,
                           std::string description, bool records_steps,
                           std::optional<bool> persistent_steps)
    : table_(table),
      handle_(handle),
      index_(index),
      description_(std::move(description)),
      records_steps_(records_steps),
      ops_(table, handle, persistent_steps) {}

PluginDevice::~PluginDevice() { table_->device_destroy(handle_); }

absl::StatusOr<Tensor> PluginDevice::Allocate(Shape shape, DType dtype) {
  int64_t bytes = 0;
  if (!BytesOf(shape, dtype, &bytes)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cuda:", index_, " cannot allocate ", shape.ToString(), " ", NameOf(dtype)));
  }
  void* memory = nullptr;
  RETURN_IF_ERROR(FromPlugin(table_->memory_allocate(
      handle_, static_cast<uint64_t>(std::max<int64_t>(bytes, 1)), &memory)));
  return Tensor(memory, dtype, shape,
                [free = table_->memory_free, index = index_](void* data) { free(index, data); });
}

void PluginDevice::CopyFromHost(const void* source, TensorView destination) {
  table_->copy_from_host(handle_, source, destination.data, CopiedBytes(destination));
}

void PluginDevice::CopyToHost(TensorView source, void* destination) {
  table_->copy_to_host(handle_, source.data, destination, CopiedBytes(source));
}

absl::StatusOr<Tensor> PluginDevice::AllocateHost(Shape shape, DType dtype) {
  int64_t bytes = 0;
  if (!BytesOf(shape, dtype, &bytes)) {
    return absl::ResourceExhaustedError(absl::StrCat("no host memory for ", shape.ToString(), " ",
                                                     NameOf(dtype), " of cuda:", index_));
  }
  void* memory = nullptr;
  RETURN_IF_ERROR(FromPlugin(table_->host_memory_allocate(
      handle_, static_cast<uint64_t>(std::max<int64_t>(bytes, 1)), &memory)));
  return Tensor(
      memory, dtype, shape,
      [free = table_->host_memory_free, index = index_](void* data) { free(index, data); });
}

void PluginDevice::EnqueueCopyFromHost(const void* source, TensorView destination) {
  table_->enqueue_copy_from_host(handle_, source, destination.data, CopiedBytes(destination));
}

void PluginDevice::EnqueueCopyToHost(TensorView source, void* destination) {
  table_->enqueue_copy_to_host(handle_, source.data, destination, CopiedBytes(source));
}

absl::StatusOr<std::unique_ptr<Mark>> PluginDevice::CreateMark() {
  CohortCudaMark* mark = nullptr;
  RETURN_IF_ERROR(
      Annotate(FromPlugin(table_->mark_create(handle_, nullptr, &mark)), DeviceName(index_)));
  return std::make_unique<PluginMark>(table_, mark, index_);
}

absl::StatusOr<std::unique_ptr<CopyQueue>> PluginDevice::CreateCopyQueue() {
  CohortCudaCopyQueue* queue = nullptr;
  RETURN_IF_ERROR(
      Annotate(FromPlugin(table_->copy_queue_create(handle_, &queue)), DeviceName(index_)));
  return std::make_unique<PluginCopyQueue>(table_, handle_, queue, index_);
}

absl::StatusOr<std::unique_ptr<PinnedHost>> PluginDevice::PinHost(const void* begin,
                                                                  int64_t bytes) {
  RETURN_IF_ERROR(FromPlugin(table_->host_memory_pin(index_, begin, static_cast<uint64_t>(bytes))));
  return std::make_unique<PluginPinnedHost>(table_, index_, begin);
}

std::optional<int> PluginDevice::host_node() const {
  CohortCudaProperties properties{};
  properties.host_node = -1;
  if (table_->device_properties(index_, &properties).code != kCohortCudaOk ||
      properties.host_node < 0) {
    return std::nullopt;
  }
  return properties.host_node;
}

bool PluginDevice::records_steps() const {
  return records_steps_ && table_->recorded_candidates != nullptr &&
         table_->choose_recorded != nullptr && table_->select_ids != nullptr &&
         table_->store_tokens != nullptr;
}

absl::StatusOr<std::unique_ptr<Recording>> PluginDevice::Record(std::function<void()> work) {
  RETURN_IF_ERROR(Annotate(FromPlugin(table_->recording_begin(handle_)), DeviceName(index_)));
  work();
  CohortCudaRecording* recording = nullptr;
  RETURN_IF_ERROR(
      Annotate(FromPlugin(table_->recording_end(handle_, &recording)), DeviceName(index_)));
  return std::make_unique<PluginRecording>(table_, recording);
}

absl::StatusOr<DeviceMemory> PluginDevice::memory() const {
  uint64_t free_bytes = 0;
  uint64_t total_bytes = 0;
  RETURN_IF_ERROR(Annotate(FromPlugin(table_->memory_info(handle_, &free_bytes, &total_bytes)),
                           DeviceName(index_)));
  return DeviceMemory{.free = static_cast<int64_t>(free_bytes),
                      .total = static_cast<int64_t>(total_bytes)};
}

absl::Status PluginDevice::Synchronize() {
  return Annotate(FromPlugin(table_->synchronize(handle_)), DeviceName(index_));
}

}  // namespace cohort
