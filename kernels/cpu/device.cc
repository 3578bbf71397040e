#include "kernels/cpu/device.h"

#include <sys/mman.h>

#include <algorithm>
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
  // First writes to fresh memory cost more than the copy: pages are found and cleared meanwhile.
  // All threads share that, each in huge pages of its own.
  constexpr int64_t kPartBytes = int64_t{2} << 20;
  const int64_t bytes = static_cast<int64_t>(TotalBytes(destination));
  const int64_t parts = (bytes + kPartBytes - 1) / kPartBytes;
  threads_->ParallelFor(parts, 1, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kPartBytes;
    std::memcpy(static_cast<char*>(destination.data) + first,
                static_cast<const char*>(source) + first,
                static_cast<size_t>(std::min(end * kPartBytes, bytes) - first));
  });
}

void CpuDevice::CopyToHost(TensorView source, void* destination) {
  const size_t bytes = TotalBytes(source);
  if (bytes > 0) {
    std::memcpy(destination, source.data, bytes);
  }
}

}  // namespace cohort
