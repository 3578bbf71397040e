// Ranks as threads of one process: for tests, and for the engine under ThreadSanitizer.
#ifndef COHORT_PARALLEL_THREAD_COMMUNICATOR_H_
#define COHORT_PARALLEL_THREAD_COMMUNICATOR_H_

#include <functional>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "parallel/communicator.h"

namespace cohort {

// One communicator per rank of a new group of `size`, in rank order. They share state and may
// outlive each other. `timeout` bounds every collective.
std::vector<std::unique_ptr<Communicator>> MakeThreadCommunicators(int size,
                                                                   absl::Duration timeout);

}  // namespace cohort

#endif  // COHORT_PARALLEL_THREAD_COMMUNICATOR_H_
