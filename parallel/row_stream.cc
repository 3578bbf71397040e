#include "parallel/row_stream.h"

#include <algorithm>
#include <cstring>

#include "kernels/check.h"

namespace cohort {
namespace {

// Calls visit(memory, offset in the piece, bytes) for each run of adjacent elements.
template <class Visit>
void ForEachRun(const TensorView& view, int64_t begin, int64_t count, const Visit& visit) {
  const int64_t element_bytes = SizeOf(view.dtype);
  const int64_t columns = view.columns();
  auto* const memory = static_cast<std::byte*>(view.data);
  for (int64_t done = 0; done < count;) {
    const int64_t row = (begin + done) / columns;
    const int64_t column = (begin + done) % columns;
    const int64_t run = std::min(columns - column, count - done);
    visit(memory + (row * view.row_stride + column) * element_bytes, done * element_bytes,
          static_cast<size_t>(run * element_bytes));
    done += run;
  }
}

}  // namespace

void PackRows(const TensorView& view, int64_t begin, int64_t count, std::byte* dense) {
  ForEachRun(view, begin, count, [dense](const std::byte* memory, int64_t offset, size_t bytes) {
    std::memcpy(dense + offset, memory, bytes);
  });
}

void UnpackRows(const std::byte* dense, const TensorView& view, int64_t begin, int64_t count) {
  ForEachRun(view, begin, count, [dense](std::byte* memory, int64_t offset, size_t bytes) {
    std::memcpy(memory, dense + offset, bytes);
  });
}

void CopyRows(const TensorView& source, const TensorView& destination) {
  CHECK(source.dtype == destination.dtype);
  CHECK_EQ(source.rows(), destination.rows());
  CHECK_EQ(source.columns(), destination.columns());
  const int64_t element_bytes = SizeOf(source.dtype);
  const auto bytes = static_cast<size_t>(source.columns() * element_bytes);
  if (bytes == 0) {
    return;
  }
  for (int64_t row = 0; row < source.rows(); ++row) {
    std::memmove(
        static_cast<std::byte*>(destination.data) + row * destination.row_stride * element_bytes,
        static_cast<const std::byte*>(source.data) + row * source.row_stride * element_bytes,
        bytes);
  }
}

}  // namespace cohort
