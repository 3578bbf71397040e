// The secret that the nodes of a group share.
#ifndef COHORT_LAUNCHER_JOIN_TOKEN_H_
#define COHORT_LAUNCHER_JOIN_TOKEN_H_

#include <string>

#include "kernels/status.h"

namespace cohort {

// The environment variable that is read when neither is given. Unlike the command line of a
// process, its environment is hidden from other users.
inline constexpr char kJoinTokenVariable[] = "COHORT_JOIN_TOKEN";

struct JoinTokenOptions {
  std::string value;
  std::string file;  // its only line
};

// The token; empty when there is none. INVALID_ARGUMENT when both are given or when it cannot be
// sent (1 to 1024 printable ASCII characters without spaces can); the errors of reading the file.
absl::StatusOr<std::string> ReadJoinToken(const JoinTokenOptions& options);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_JOIN_TOKEN_H_
