// What `cohort serve` finds out about its other nodes before anything is started.
#ifndef COHORT_LAUNCHER_CLUSTER_SETUP_H_
#define COHORT_LAUNCHER_CLUSTER_SETUP_H_

#include "launcher/coordinator.h"
#include "launcher/model_setup.h"
#include "launcher/serve_options.h"

namespace cohort {

// Fills in the cluster's part of `coordinator`. INVALID_ARGUMENT names the flag that does not fit
// the others; FAILED_PRECONDITION when a listener beyond loopback has no join token.
absl::Status SetUpCluster(const ServeOptions& options, const ModelSetup& setup,
                          CoordinatorOptions& coordinator);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_CLUSTER_SETUP_H_
