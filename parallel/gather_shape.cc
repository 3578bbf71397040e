#include "parallel/gather_shape.h"

#include "kernels/check.h"

namespace cohort {

void CheckGatherShapes(int rank, int size, const TensorView& shard, absl::Span<const Range> parts,
                       const TensorView& out) {
  CHECK_EQ(static_cast<int>(parts.size()), size) << "AllGather parts";
  CHECK(shard.dtype == out.dtype) << "AllGather of " << NameOf(shard.dtype) << " into "
                                  << NameOf(out.dtype);
  CHECK_EQ(shard.rows(), out.rows()) << "AllGather rows";
  CHECK_EQ(shard.columns(), parts[rank].size()) << "AllGather shard of rank " << rank;
  int64_t end = 0;
  for (const Range part : parts) {
    CHECK_EQ(part.begin, end) << "AllGather parts must tile";
    CHECK_GE(part.end, part.begin) << "AllGather part";
    end = part.end;
  }
  CHECK_EQ(out.columns(), end) << "AllGather columns";
}

}  // namespace cohort
