// The elements of a view with strided rows as one dense stream, row after row, in pieces of any
// size.
#ifndef COHORT_PARALLEL_ROW_STREAM_H_
#define COHORT_PARALLEL_ROW_STREAM_H_

#include <cstddef>
#include <cstdint>

#include "kernels/tensor.h"

namespace cohort {

// Elements [begin, begin + count) of the stream of `view` to `dense`, and back.
void PackRows(const TensorView& view, int64_t begin, int64_t count, std::byte* dense);
void UnpackRows(const std::byte* dense, const TensorView& view, int64_t begin, int64_t count);

// Row by row; equal shapes and dtypes. The views may be the same memory.
void CopyRows(const TensorView& source, const TensorView& destination);

}  // namespace cohort

#endif  // COHORT_PARALLEL_ROW_STREAM_H_
