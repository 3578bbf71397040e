// Weights on their way to a device's own memory: threads read slices into a ring of pinned buffers,
// converting and cutting them, while the buffers that are full are copied beside them by several
// queues. Threads and buffers keep to the NUMA node of the device. Slices that lie ready in a file
// can be copied from there instead, window by window, pinned by the same threads.
#ifndef COHORT_RUNTIME_WEIGHT_STREAM_H_
#define COHORT_RUNTIME_WEIGHT_STREAM_H_

#include "absl/types/span.h"
#include "kernels/device.h"
#include "runtime/checkpoint_source.h"
#include "runtime/weight_source.h"

namespace cohort {

// Fills all pieces. RESOURCE_EXHAUSTED for memory that cannot be pinned; DEADLINE_EXCEEDED; the
// first error of the device.
absl::Status StreamWeights(absl::Span<const WeightPiece> pieces, const CheckpointReader& reader,
                           const WeightStreamOptions& options, Device& device,
                           const LoadedBytes& report);

}  // namespace cohort

#endif  // COHORT_RUNTIME_WEIGHT_STREAM_H_
