// The preconditions of Communicator::AllToAll, the same for every implementation.
#ifndef COHORT_PARALLEL_EXCHANGE_SHAPE_H_
#define COHORT_PARALLEL_EXCHANGE_SHAPE_H_

#include "parallel/communicator.h"

namespace cohort {

// CHECKs that both views are of `size` ranks and of one capacity, width and dtype, and dense.
void CheckExchangeShapes(int size, const ExchangeView& send, const ExchangeView& receive);

}  // namespace cohort

#endif  // COHORT_PARALLEL_EXCHANGE_SHAPE_H_
