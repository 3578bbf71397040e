// `cohort score`: the log-probability of each prompt token after the ones before it.
#ifndef COHORT_LAUNCHER_SCORE_COMMAND_H_
#define COHORT_LAUNCHER_SCORE_COMMAND_H_

#include <nlohmann/json.hpp>

#include "cohort/v1/generation.pb.h"
#include "launcher/client_options.h"

namespace cohort {

// The first token has no log-probability: null. "top" is there where it was asked for.
nlohmann::ordered_json ToJson(const v1::ScoreResult& result);

int RunScore(const ScoreOptions& options);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_SCORE_COMMAND_H_
