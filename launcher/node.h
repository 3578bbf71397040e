// `cohort node`: the agent of a node without the coordinator, with its ranks.
#ifndef COHORT_LAUNCHER_NODE_H_
#define COHORT_LAUNCHER_NODE_H_

#include "launcher/serve_options.h"

namespace cohort {

// Serves its part of a group until SIGTERM or SIGINT (0), or until the coordinator refuses it or is
// away for too long (1).
int RunNode(const NodeOptions& options);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_NODE_H_
