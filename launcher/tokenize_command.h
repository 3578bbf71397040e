// `cohort tokenize`: the token ids of a text, without a server.
#ifndef COHORT_LAUNCHER_TOKENIZE_COMMAND_H_
#define COHORT_LAUNCHER_TOKENIZE_COMMAND_H_

#include "launcher/client_options.h"

namespace cohort {

int RunTokenize(const TokenizeOptions& options);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_TOKENIZE_COMMAND_H_
