// `cohort status`: state and load of a server.
#ifndef COHORT_LAUNCHER_STATUS_COMMAND_H_
#define COHORT_LAUNCHER_STATUS_COMMAND_H_

#include <nlohmann/json.hpp>

#include "cohort/v1/control.pb.h"
#include "launcher/client_options.h"

namespace cohort {

nlohmann::ordered_json ToJson(const v1::Load& load);

int RunStatus(const StatusOptions& options);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_STATUS_COMMAND_H_
