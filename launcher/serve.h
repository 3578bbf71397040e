// `cohort serve`: the coordinator, its local agent and the public services, in one process.
#ifndef COHORT_LAUNCHER_SERVE_H_
#define COHORT_LAUNCHER_SERVE_H_

#include "launcher/serve_options.h"

namespace cohort {

// Serves until SIGTERM or SIGINT (0), or until it cannot (1).
int RunServe(const ServeOptions& options);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_SERVE_H_
