// What the benchmark programs share: flags and the middle of some measurements.
#ifndef COHORT_TESTS_BENCH_FLAGS_H_
#define COHORT_TESTS_BENCH_FLAGS_H_

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "kernels/check.h"
#include "kernels/status.h"

namespace cohort {

using Flags = std::map<std::string, std::string>;  // by name, without the dashes

// `flags`, the defaults of all that there are, with those of the command line: --name=value.
inline Flags ParseFlags(int argc, char** argv, Flags flags) {
  for (int i = 1; i < argc; ++i) {
    const std::vector<std::string> parts = absl::StrSplit(argv[i], absl::MaxSplits('=', 1));
    CHECK(parts.size() == 2 && absl::StartsWith(parts[0], "--") &&
          flags.count(parts[0].substr(2)) == 1)
        << "unknown flag " << argv[i];
    flags[parts[0].substr(2)] = parts[1];
  }
  return flags;
}

inline int64_t Number(StringView text) {
  int64_t value = 0;
  CHECK(absl::SimpleAtoi(text, &value)) << text << " is not a number";
  return value;
}

inline int64_t Number(const Flags& flags, const std::string& name) {
  return Number(flags.at(name));
}

// Of numbers separated by commas.
inline std::vector<int64_t> Numbers(const Flags& flags, const std::string& name) {
  std::vector<int64_t> numbers;
  for (const StringView text : absl::StrSplit(flags.at(name), ',')) numbers.push_back(Number(text));
  return numbers;
}

inline double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace cohort

#endif  // COHORT_TESTS_BENCH_FLAGS_H_
