// The preconditions of Communicator::AllGather, the same for every implementation.
#ifndef COHORT_PARALLEL_GATHER_SHAPE_H_
#define COHORT_PARALLEL_GATHER_SHAPE_H_

#include "absl/types/span.h"
#include "kernels/tensor.h"
#include "parallel/shard_plan.h"

namespace cohort {

// CHECKs that `parts`, one per rank, tile the columns of `out` and that `shard` is part `rank`.
void CheckGatherShapes(int rank, int size, const TensorView& shard, absl::Span<const Range> parts,
                       const TensorView& out);

}  // namespace cohort

#endif  // COHORT_PARALLEL_GATHER_SHAPE_H_
