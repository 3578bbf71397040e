// What the devices of one compute capability have (CUDA C++ Programming Guide, "Compute
// Capabilities").
#include "architecture.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>

#include "cuda_emulator/thread.h"
#include "runtime.h"

namespace cuda_emulator {
namespace {

constexpr Architecture kArchitectures[] = {
    {80, 163 << 10, 164 << 10, 2048, 32},
    {89, 99 << 10, 100 << 10, 1536, 24},
    {90, 227 << 10, 228 << 10, 2048, 32},
    {100, 227 << 10, 228 << 10, 2048, 32},
};

}  // namespace

const Architecture& TheArchitecture() {
  static const Architecture* const chosen = [] {
    const int64_t wanted = Setting("COHORT_EMULATOR_COMPUTE", 90);
    const auto* found =
        std::find_if(std::begin(kArchitectures), std::end(kArchitectures),
                     [&](const Architecture& known) { return known.compute == wanted; });
    if (found == std::end(kArchitectures)) {
      std::fprintf(stderr, "emulated GPU: COHORT_EMULATOR_COMPUTE is %lld, not 80, 89, 90 or 100\n",
                   static_cast<long long>(wanted));
      std::abort();
    }
    return found;
  }();
  return *chosen;
}

int CompiledFor() {
  static const int compute =
      static_cast<int>(Setting("COHORT_EMULATOR_COMPILED_FOR", TheArchitecture().compute));
  return compute;
}

void RequireCompute(int least, int most, const char* what) {
  if (CompiledFor() < least || CompiledFor() > most) {
    Fail("%s, which code for compute capability %d.%d has not", what, CompiledFor() / 10,
         CompiledFor() % 10);
  }
}

}  // namespace cuda_emulator
