// Invariants: CHECK aborts with the expression, the values and a message when our own code is
// wrong. Never for input from outside (kernels/status.h).
#ifndef COHORT_KERNELS_CHECK_H_
#define COHORT_KERNELS_CHECK_H_

#include <sstream>

namespace cohort {

// Prints file, line and what was streamed into it to standard error, then aborts.
class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const char* expression);
  [[noreturn]] ~CheckFailure();
  std::ostream& stream() { return message_; }

 private:
  std::ostringstream message_;
};

// Gives the ternary of CHECK two void branches, with lower precedence than <<.
struct CheckVoidify {
  void operator&(std::ostream&) const {}
};

}  // namespace cohort

#define CHECK(condition) \
  (condition)            \
      ? (void)0          \
      : ::cohort::CheckVoidify() & ::cohort::CheckFailure(__FILE__, __LINE__, #condition).stream()
#define COHORT_CHECK_OP(a, op, b) CHECK((a)op(b)) << " (" << (a) << " vs " << (b) << ") "
#define CHECK_EQ(a, b) COHORT_CHECK_OP(a, ==, b)
#define CHECK_NE(a, b) COHORT_CHECK_OP(a, !=, b)
#define CHECK_LT(a, b) COHORT_CHECK_OP(a, <, b)
#define CHECK_LE(a, b) COHORT_CHECK_OP(a, <=, b)
#define CHECK_GT(a, b) COHORT_CHECK_OP(a, >, b)
#define CHECK_GE(a, b) COHORT_CHECK_OP(a, >=, b)
#define CHECK_OK(expression)                                           \
  do {                                                                 \
    const auto cohort_check_status = (expression);                     \
    CHECK(cohort_check_status.ok()) << cohort_check_status.ToString(); \
  } while (false)

#endif  // COHORT_KERNELS_CHECK_H_
