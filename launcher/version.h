// Cohort's version, and the revision of its public API.
#ifndef COHORT_LAUNCHER_VERSION_H_
#define COHORT_LAUNCHER_VERSION_H_

#include <cstdint>

namespace cohort {

inline constexpr char kVersion[] = "0.1.0";
// Grows with every addition to proto/cohort/v1 that a client may want to ask for.
inline constexpr uint32_t kApiRevision = 1;

}  // namespace cohort

#endif  // COHORT_LAUNCHER_VERSION_H_
