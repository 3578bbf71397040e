#include "kernels/plugin_device.h"

#include <algorithm>
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

}  // namespace

absl::Status PluginAvailable() { return LoadUsablePlugin().status(); }

absl::StatusOr<std::unique_ptr<Device>> MakePluginDevice(int index) {
  ASSIGN_OR_RETURN(const CohortCudaTable* table, LoadUsablePlugin());
  int32_t count = 0;
  RETURN_IF_ERROR(FromPlugin(table->device_count(&count)));
  if (index < 0 || index >= count) {
    return absl::InvalidArgumentError(absl::StrCat("there is no device cuda:", index,
                                                   ": this host has ", count,
                                                   " (cuda:0 to cuda:", count - 1, ")"));
  }
  CohortCudaProperties properties{};
  RETURN_IF_ERROR(FromPlugin(table->device_properties(index, &properties)));
  CohortCudaDevice* handle = nullptr;
  RETURN_IF_ERROR(FromPlugin(table->device_create(index, &handle)));
  return std::make_unique<PluginDevice>(table, handle, index, Describe(index, properties));
}

PluginDevice::PluginDevice(const CohortCudaTable* table, CohortCudaDevice* handle, int index,
                           std::string description)
    : table_(table),
      handle_(handle),
      index_(index),
      description_(std::move(description)),
      ops_(table, handle) {}

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

absl::Status PluginDevice::Synchronize() {
  return Annotate(FromPlugin(table_->synchronize(handle_)), absl::StrCat("cuda:", index_));
}

}  // namespace cohort
