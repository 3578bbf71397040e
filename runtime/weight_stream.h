// Weights on their way to a device's own memory: threads read slices into a ring of pinned buffers,
// converting and cutting them, while the buffers that are full are copied beside them.
#ifndef COHORT_RUNTIME_WEIGHT_STREAM_H_
#define COHORT_RUNTIME_WEIGHT_STREAM_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/device.h"
#include "runtime/checkpoint_source.h"
#include "runtime/weight_source.h"

namespace cohort {

struct WeightStreamOptions {
  // One reader copies about 8 GB/s from the page cache; the bus takes some 50.
  int readers = 8;
  int buffers = 12;                           // at least 1
  int64_t buffer_bytes = int64_t{8} << 20;    // more where one row is larger
  absl::Duration timeout = absl::Minutes(5);  // for one buffer to be read, or copied
};

// Fills all pieces. RESOURCE_EXHAUSTED for pinned memory; DEADLINE_EXCEEDED; the first error of the
// device.
absl::Status StreamWeights(absl::Span<const WeightPiece> pieces, const CheckpointReader& reader,
                           const WeightStreamOptions& options, Device& device,
                           const LoadedBytes& report);

}  // namespace cohort

#endif  // COHORT_RUNTIME_WEIGHT_STREAM_H_
