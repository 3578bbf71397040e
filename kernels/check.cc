#include "kernels/check.h"

#include <cstdio>
#include <cstdlib>

namespace cohort {

CheckFailure::CheckFailure(const char* file, int line, const char* expression) {
  message_ << file << ":" << line << ": CHECK failed: " << expression << " ";
}

CheckFailure::~CheckFailure() {
  message_ << "\n";
  std::fputs(message_.str().c_str(), stderr);
  std::fflush(stderr);
  std::abort();
}

}  // namespace cohort
