// What the public halves of the operations check, and how they name it. For kernels/ops*.cc.
#ifndef COHORT_KERNELS_OPS_CHECKS_H_
#define COHORT_KERNELS_OPS_CHECKS_H_

#include "kernels/tensor.h"

namespace cohort {

inline void CheckActivation(const TensorView& tensor, StringView name) {
  CHECK(tensor.dtype == DType::kF32 || tensor.dtype == DType::kBF16)
      << name << " holds " << NameOf(tensor.dtype) << ", not an activation dtype";
}

inline void CheckDType(const TensorView& tensor, DType dtype, StringView name) {
  CHECK(tensor.dtype == dtype) << name << " holds " << NameOf(tensor.dtype) << ", expected "
                               << NameOf(dtype);
}

inline void CheckShape(const TensorView& tensor, const Shape& shape, StringView name) {
  CHECK(tensor.shape == shape) << name << " is " << tensor.shape.ToString() << ", expected "
                               << shape.ToString();
}

inline void CheckRank(const TensorView& tensor, int rank, StringView name) {
  CHECK_EQ(tensor.shape.rank(), rank) << name << " is " << tensor.shape.ToString();
}

// `count` int32 numbers in a row.
inline void CheckIndices(const TensorView& indices, int64_t count, StringView name) {
  CheckDType(indices, DType::kI32, name);
  CheckShape(indices, Shape{count}, name);
  CHECK(count <= 1 || indices.row_stride == 1) << name << " is strided";
}

}  // namespace cohort

#endif  // COHORT_KERNELS_OPS_CHECKS_H_
