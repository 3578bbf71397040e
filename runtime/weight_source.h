// Where the elements of weights come from: the mapped files of a checkpoint, or a formula.
#ifndef COHORT_RUNTIME_WEIGHT_SOURCE_H_
#define COHORT_RUNTIME_WEIGHT_SOURCE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/types/span.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "parallel/shard_plan.h"

namespace cohort {

// A rectangle of a stored matrix. A vector counts as a matrix of one column.
struct WeightSlice {
  std::string name;
  int64_t stored_columns = 1;  // of the whole tensor
  Range rows;
  Range columns;
  bool is_contiguous() const { return columns.size() == stored_columns; }
  int64_t elements() const { return rows.size() * columns.size(); }
};

// A slice and the dense rows, of a device's memory or of its host memory, that it fills.
struct WeightPiece {
  WeightSlice slice;
  TensorView destination;  // fp32 or bf16
};

// How weights go to a device's own memory (weight_stream.h).
struct WeightStreamOptions {
  // One reader copies about 8 GB/s from the page cache; the bus takes some 50.
  int readers = 8;
  int buffers = 12;                         // at least 1
  int64_t buffer_bytes = int64_t{8} << 20;  // more where one row is larger
  int queues = 2;                           // of copies beside each other; at least 1
  // Not 0: slices that lie in the file as they are wanted are copied from there, so much of a
  // mapped file pinned at a time, a multiple of a page. Which way is faster depends on how fast the
  // system pins pages.
  int64_t window_bytes = 0;
  absl::Duration timeout = absl::Minutes(5);  // for one buffer to be read, or copied
};

// Told of bytes as they are loaded.
using LoadedBytes = std::function<void(int64_t bytes)>;

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // Fills all pieces, rounded to the dtypes of their destinations. The first error of the device.
  virtual absl::Status Fill(absl::Span<const WeightPiece> pieces, Device& device,
                            const LoadedBytes& report) = 0;
};

// Can elements stored as `dtype` (spelled as in the file) be read?
bool IsReadableDType(StringView dtype);

// Random weights, made by the device: an element is a pure function of the tensor's name and its
// place in the whole tensor (kernels/random_fill.h), so every degree of parallelism sees the same
// model. Norms are 1, everything else is uniform with mean 0 and standard deviation 0.02.
std::unique_ptr<WeightSource> MakeDummySource();

}  // namespace cohort

#endif  // COHORT_RUNTIME_WEIGHT_SOURCE_H_
