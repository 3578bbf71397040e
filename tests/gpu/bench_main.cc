// Measures Cohort on one device, through the classes that a rank is made of: one line of JSON per
// measurement (measurement.h).
//
//   cohort_gpu_bench attention|products|experts|decode|prefill|load [--flag=value]...
//
// The flags are the defaults at the beginning of each Measure...(). --device=cpu tries them out.
#include <cstring>

#include "tests/gpu/bench_setup.h"

int main(int argc, char** argv) {
  using namespace cohort::gpu;  // NOLINT: only this function
  static constexpr struct {
    const char* name;
    void (*measure)(int argc, char** argv);
  } kCommands[] = {{"attention", MeasureAttention}, {"products", MeasureProducts},
                   {"experts", MeasureExperts},     {"decode", MeasureDecode},
                   {"prefill", MeasurePrefill},     {"load", MeasureLoad}};
  for (const auto& command : kCommands) {
    if (argc > 1 && std::strcmp(argv[1], command.name) == 0) {
      command.measure(argc - 1, argv + 1);
      return 0;
    }
  }
  std::fprintf(stderr,
               "usage: cohort_gpu_bench attention|products|experts|decode|prefill|load "
               "[--flag=value]...\n");
  return 2;
}
