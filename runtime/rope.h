// The table of rotations that RopeAndStoreKv reads.
#ifndef COHORT_RUNTIME_ROPE_H_
#define COHORT_RUNTIME_ROPE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace cohort {

// Rotations of positions 0..positions-1: consecutive rows of a table.
struct RopeRows {
  std::vector<float> inverse_frequencies;  // [head_dim / 2]
  double attention_factor = 1;             // of cosine and sine
  int64_t positions = 0;
};

// Owns the memory behind a RopeTable.
struct RopeTensors {
  Tensor cosine;  // [rows, head_dim / 2] fp32
  Tensor sine;    // [rows, head_dim / 2] fp32
  RopeTable table() const { return {cosine.view(), sine.view()}; }
};

// The rows of all parts, one part after the other. Angles in fp32, their cosine and sine times the
// attention factor in fp32, then rounded to `act`.
absl::StatusOr<RopeTensors> MakeRopeTensors(absl::Span<const RopeRows> parts, DType act,
                                            Device& device);

}  // namespace cohort

#endif  // COHORT_RUNTIME_ROPE_H_
