// The instruction sets that the CPU kernels are compiled for. A device uses one of them throughout,
// so that its results do not vary.
#ifndef COHORT_KERNELS_CPU_INSTRUCTION_SET_H_
#define COHORT_KERNELS_CPU_INSTRUCTION_SET_H_

#include <vector>

#include "kernels/status.h"

namespace cohort {

enum class InstructionSet {
  kPortable,    // what every x86-64 has
  kAvx2,        // with FMA
  kAvx512,      // F, BW, DQ, VL
  kAvx512Bf16,  // and products of pairs of bf16
};

StringView NameOf(InstructionSet set);  // "portable", "avx2", "avx512", "avx512_bf16"

// Those that this machine can execute, from the plainest to the best.
std::vector<InstructionSet> SupportedInstructionSets();

// The set called `name`, the best supported one when it is empty. INVALID_ARGUMENT for another
// name, FAILED_PRECONDITION for a set that this machine does not have.
absl::StatusOr<InstructionSet> ChooseInstructionSet(StringView name);

}  // namespace cohort

#endif  // COHORT_KERNELS_CPU_INSTRUCTION_SET_H_
