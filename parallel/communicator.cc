#include "parallel/communicator.h"

namespace cohort {

void Communicator::AllReduceAddRmsNorm(Ops& ops, TensorView x, TensorView residual,
                                       TensorView gamma, float eps, TensorView out) {
  AllReduceSum(x);
  ops.AddRmsNorm(residual, x, gamma, eps, out);
}

}  // namespace cohort
