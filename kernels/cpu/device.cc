#include "kernels/cpu/device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

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

// Where a huge page fits, the system is asked for them: reading through small ones costs up to a
// fifth of the memory's bandwidth.
constexpr size_t kHugePageBytes = size_t{2} << 20;

// A mapping whose data begins on a huge page when it holds one.
struct Pages {
  void* mapped = nullptr;
  size_t mapped_bytes = 0;
  void* data = nullptr;
};

// Null data when the system has no such room.
Pages MapPages(size_t bytes) {
  Pages pages;
  const bool is_huge = bytes >= kHugePageBytes;
  pages.mapped_bytes = bytes + (is_huge ? kHugePageBytes : 0);
  pages.mapped = mmap(nullptr, pages.mapped_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, /*offset=*/0);
  if (pages.mapped == MAP_FAILED) {
    return {};
  }
  pages.data = pages.mapped;
  if (is_huge) {
    size_t room = pages.mapped_bytes;
    std::align(kHugePageBytes, bytes, pages.data, room);
    // Only whole huge pages, so that no tensor takes more memory than it has. Refused where the
    // system has none, which is no error.
    madvise(pages.data, bytes / kHugePageBytes * kHugePageBytes, MADV_HUGEPAGE);
  }
  return pages;
}

size_t TotalBytes(const TensorView& view) {
  CHECK(view.rows() <= 1 || view.is_dense()) << "copy of a strided tensor";
  return static_cast<size_t>(view.shape.elements() * SizeOf(view.dtype));
}

// Operations are done when they return: every mark is reached as it is set.
class CpuMark : public Mark {
 public:
  void Set() override {}
  absl::Status Wait(absl::Duration) override { return absl::OkStatus(); }
};

// Copies are done when they return, too.
class CpuCopyQueue : public CopyQueue {
 public:
  explicit CpuCopyQueue(Device* device) : device_(device) {}
  void EnqueueCopyFromHost(const void* source, TensorView destination) override {
    device_->CopyFromHost(source, destination);
  }
  absl::StatusOr<std::unique_ptr<Mark>> CreateMark() override {
    return std::make_unique<CpuMark>();
  }

 private:
  Device* device_;
};

// Runs the work again.
class CpuRecording : public Recording {
 public:
  explicit CpuRecording(std::function<void()> work) : work_(std::move(work)) {}
  void Enqueue() override { work_(); }

 private:
  std::function<void()> work_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> CpuDevice::Create(const DeviceOptions& options) {
  ASSIGN_OR_RETURN(const InstructionSet set, ChooseInstructionSet(options.instruction_set));
  ASSIGN_OR_RETURN(std::unique_ptr<ThreadPool> pool, ThreadPool::Create(options.threads));
  return std::unique_ptr<Device>(
      new CpuDevice(std::move(pool), set, options.record_steps.value_or(false)));
}

absl::StatusOr<std::unique_ptr<Mark>> CpuDevice::CreateMark() {
  return std::make_unique<CpuMark>();
}

absl::StatusOr<std::unique_ptr<CopyQueue>> CpuDevice::CreateCopyQueue() {
  return std::make_unique<CpuCopyQueue>(this);
}

absl::StatusOr<std::unique_ptr<Recording>> CpuDevice::Record(std::function<void()> work) {
  return std::make_unique<CpuRecording>(std::move(work));
}

absl::StatusOr<DeviceMemory> CpuDevice::memory() const {
  const int64_t page = sysconf(_SC_PAGESIZE);
  return DeviceMemory{.free = int64_t{sysconf(_SC_AVPHYS_PAGES)} * page,
                      .total = int64_t{sysconf(_SC_PHYS_PAGES)} * page};
}

std::string CpuDevice::description() const {
  return absl::StrCat("cpu, ", threads_->threads(),
                      threads_->threads() == 1 ? " thread, " : " threads, ",
                      NameOf(instruction_set_));
}

absl::StatusOr<Tensor> CpuDevice::Allocate(Shape shape, DType dtype) {
  int64_t size = 0;
  if (!ByteSize(shape, dtype, &size)) {
    return OutOfMemory(shape, dtype, "more than 2^63");
  }
  const size_t bytes = static_cast<size_t>(size);
  if (bytes >= kMappedBytes) {
    const Pages pages = MapPages(bytes);
    if (pages.data == nullptr) {
      return OutOfMemory(shape, dtype, absl::StrCat(bytes));
    }
    return Tensor(pages.data, dtype, shape,
                  [pages](void*) { munmap(pages.mapped, pages.mapped_bytes); });
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
