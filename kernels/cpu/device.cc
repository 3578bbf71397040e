#include "kernels/cpu/device.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

namespace cohort {
namespace {

constexpr size_t kAlignment = 64;

// From here on memory comes straight from the system: its pages cost nothing until they are
// touched, and go back when they are freed.
constexpr size_t kMappedBytes = size_t{1} << 20;

// False when shape * dtype does not fit the address space.
bool ByteSize(const Shape& shape, DType dtype, int64_t* bytes) {
  *bytes = SizeOf(dtype);
  bool empty = false;
  bool fits = true;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    empty = empty || shape[axis] == 0;
    fits = fits && !__builtin_mul_overflow(*bytes, shape[axis], bytes);
  }
  *bytes = empty ? 0 : *bytes;
  return fits;
}

absl::Status OutOfMemory(const Shape& shape, DType dtype, StringView bytes) {
  return absl::ResourceExhaustedError(absl::StrCat(
      "no host memory for a tensor of ", bytes, " bytes (", shape.ToString(), " ", NameOf(dtype),
      "): lower the KV memory or the batch, or use more ranks on other machines"));
}

void* MapPages(size_t bytes) {
  void* data =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, /*offset=*/0);
  return data == MAP_FAILED ? nullptr : data;
}

size_t TotalBytes(const TensorView& view) {
  CHECK(view.rows() <= 1 || view.is_dense()) << "copy of a strided tensor";
  return static_cast<size_t>(view.shape.elements() * SizeOf(view.dtype));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> CpuDevice::Create(int threads) {
  ASSIGN_OR_RETURN(std::unique_ptr<ThreadPool> pool, ThreadPool::Create(threads));
  return std::unique_ptr<Device>(new CpuDevice(std::move(pool)));
}

std::string CpuDevice::description() const {
  return absl::StrCat("cpu, ", threads_->threads(),
                      threads_->threads() == 1 ? " thread" : " threads");
}

absl::StatusOr<Tensor> CpuDevice::Allocate(Shape shape, DType dtype) {
  int64_t size = 0;
  if (!ByteSize(shape, dtype, &size)) {
    return OutOfMemory(shape, dtype, "more than 2^63");
  }
  const size_t bytes = static_cast<size_t>(size);
  if (bytes >= kMappedBytes) {
    void* data = MapPages(bytes);
    if (data == nullptr) {
      return OutOfMemory(shape, dtype, absl::StrCat(bytes));
    }
    return Tensor(data, dtype, shape, [bytes](void* pages) { munmap(pages, bytes); });
  }
  void* data = std::aligned_alloc(kAlignment, (bytes / kAlignment + 1) * kAlignment);
  if (data == nullptr) {
    return OutOfMemory(shape, dtype, absl::StrCat(bytes));
  }
  return Tensor(data, dtype, shape, [](void* memory) { std::free(memory); });
}

void CpuDevice::CopyFromHost(const void* source, TensorView destination) {
  const size_t bytes = TotalBytes(destination);
  if (bytes > 0) {
    std::memcpy(destination.data, source, bytes);
  }
}

void CpuDevice::CopyToHost(TensorView source, void* destination) {
  const size_t bytes = TotalBytes(source);
  if (bytes > 0) {
    std::memcpy(destination, source.data, bytes);
  }
}

}  // namespace cohort
