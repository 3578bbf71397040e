#include "runtime/request.h"

#include "kernels/check.h"

namespace cohort {

StringView NameOf(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kDeadline:
      return "deadline";
    case FinishReason::kError:
      return "error";
  }
  CHECK(false) << "finish reason " << static_cast<int>(reason);
  return "";
}

}  // namespace cohort
