// The table of rotations that RopeAndStoreKv reads.
#ifndef COHORT_RUNTIME_ROPE_H_
#define COHORT_RUNTIME_ROPE_H_

#include <cstdint>
#include <vector>

#include "kernels/device.h"
#include "kernels/ops.h"

namespace cohort {

// theta^(-2i/head_dim) for i in 0..head_dim/2-1, in fp32 step by step as the reference
// implementation computes it.
std::vector<float> InverseFrequencies(double theta, int64_t head_dim);

// Owns the memory behind a RopeTable.
struct RopeTensors {
  Tensor cosine;  // [positions, head_dim / 2] fp32
  Tensor sine;    // [positions, head_dim / 2] fp32
  RopeTable table() const { return {cosine.view(), sine.view()}; }
};

// Rotations of positions 0..positions-1; angles in fp32, then rounded to `act`.
absl::StatusOr<RopeTensors> MakeRopeTensors(double theta, int64_t head_dim, int64_t positions,
                                            DType act, Device& device);

}  // namespace cohort

#endif  // COHORT_RUNTIME_ROPE_H_
