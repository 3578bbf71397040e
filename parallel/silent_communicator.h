// One rank of a group whose other ranks are not there: it does its own work at its true size, and
// its collectives move nothing, so that one device can time what a rank of a larger group computes.
// What it computes means nothing, and the time of the collectives is not in it.
#ifndef COHORT_PARALLEL_SILENT_COMMUNICATOR_H_
#define COHORT_PARALLEL_SILENT_COMMUNICATOR_H_

#include <memory>

#include "kernels/device.h"
#include "parallel/communicator.h"

namespace cohort {

// A sum over ranks is the rank's own part. A gather gives the rank's own shard in place of every
// other's, as far as it reaches; of at most `max_rows` rows. All-to-all is refused. `device` must
// outlive the communicator.
absl::StatusOr<std::unique_ptr<Communicator>> MakeSilentCommunicator(Device& device, int rank,
                                                                     int size, int64_t max_rows);

}  // namespace cohort

#endif  // COHORT_PARALLEL_SILENT_COMMUNICATOR_H_
