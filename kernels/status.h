// Error propagation: the project's string type, and early returns on absl::Status.
//
// Two kinds of errors. What the outside world can cause (files, network, flags, requests, memory,
// peers) is an absl::Status that names the offending value and the way out. What only a bug of ours
// can cause is a CHECK (kernels/check.h).
#ifndef COHORT_KERNELS_STATUS_H_
#define COHORT_KERNELS_STATUS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace cohort {

using StringView = absl::string_view;

// The same code with `context` put before the message: "tensor model.norm.weight: ...".
inline absl::Status Annotate(const absl::Status& status, StringView context) {
  return status.ok() ? status
                     : absl::Status(status.code(), absl::StrCat(context, ": ", status.message()));
}

}  // namespace cohort

#define COHORT_CONCAT_INNER(a, b) a##b
#define COHORT_CONCAT(a, b) COHORT_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expression)                                       \
  do {                                                                    \
    if (absl::Status cohort_status = (expression); !cohort_status.ok()) { \
      return cohort_status;                                               \
    }                                                                     \
  } while (false)

#define ASSIGN_OR_RETURN(target, expression) \
  ASSIGN_OR_RETURN_INNER(COHORT_CONCAT(cohort_statusor_, __LINE__), target, expression)

#define ASSIGN_OR_RETURN_INNER(temporary, target, expression) \
  auto temporary = (expression);                              \
  if (!temporary.ok()) {                                      \
    return temporary.status();                                \
  }                                                           \
  target = std::move(temporary).value()

#endif  // COHORT_KERNELS_STATUS_H_
