// `cohort rank`: one rank process. Started by its node agent with one end of a socket pair as
// descriptor `control_fd`; exits when that closes, whatever it is doing.
#ifndef COHORT_LAUNCHER_RANK_H_
#define COHORT_LAUNCHER_RANK_H_

namespace cohort {

// The process's exit code.
int RunRank(int control_fd);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_RANK_H_
