// What the programs of this folder print: one line of JSON per measurement, which table.awk reads.
#ifndef COHORT_TESTS_GPU_MEASUREMENT_H_
#define COHORT_TESTS_GPU_MEASUREMENT_H_

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

namespace cohort::gpu {

// `row` is the first column of rows.tsv, or a name of its own for what is no row there.
struct Measurement {
  std::string row;
  std::vector<double> seconds;  // of one repetition each
  double bytes = 0;             // that one repetition must move at least
  double operations = 0;        // that one repetition must compute
  std::string note = {};        // without quotation marks
};

inline double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

inline void Print(const Measurement& measured) {
  const auto [best, worst] = std::minmax_element(measured.seconds.begin(), measured.seconds.end());
  std::printf(
      "{\"row\": \"%s\", \"seconds\": %.9g, \"best\": %.9g, \"worst\": %.9g, \"n\": %zu, "
      "\"bytes\": %.0f, \"operations\": %.0f, \"note\": \"%s\"}\n",
      measured.row.c_str(), Median(measured.seconds), *best, *worst, measured.seconds.size(),
      measured.bytes, measured.operations, measured.note.c_str());
  std::fflush(stdout);  // what follows may be ended by the time limit of the step
}

inline double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace cohort::gpu

#endif  // COHORT_TESTS_GPU_MEASUREMENT_H_
