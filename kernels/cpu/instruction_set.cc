#include "kernels/cpu/instruction_set.h"

#include "absl/strings/str_join.h"
#include "kernels/check.h"

namespace cohort {
namespace {

constexpr InstructionSet kAll[] = {InstructionSet::kPortable, InstructionSet::kAvx2,
                                   InstructionSet::kAvx512, InstructionSet::kAvx512Bf16};

bool HasAvx512() {
  return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0;
}

bool IsSupported(InstructionSet set) {
  switch (set) {
    case InstructionSet::kPortable:
      return true;
    case InstructionSet::kAvx2:
      return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
    case InstructionSet::kAvx512:
      return IsSupported(InstructionSet::kAvx2) && HasAvx512();
    case InstructionSet::kAvx512Bf16:
      return IsSupported(InstructionSet::kAvx512) && __builtin_cpu_supports("avx512bf16") != 0;
  }
  return false;
}

std::string Names(const std::vector<InstructionSet>& sets) {
  return absl::StrJoin(sets, ", ", [](std::string* out, InstructionSet set) {
    out->append(NameOf(set).data(), NameOf(set).size());
  });
}

}  // namespace

StringView NameOf(InstructionSet set) {
  switch (set) {
    case InstructionSet::kPortable:
      return "portable";
    case InstructionSet::kAvx2:
      return "avx2";
    case InstructionSet::kAvx512:
      return "avx512";
    case InstructionSet::kAvx512Bf16:
      return "avx512_bf16";
  }
  CHECK(false) << "instruction set " << static_cast<int>(set) << " has no name";
  return "";
}

std::vector<InstructionSet> SupportedInstructionSets() {
  std::vector<InstructionSet> supported;
  for (const InstructionSet set : kAll) {
    if (IsSupported(set)) {
      supported.push_back(set);
    }
  }
  return supported;
}

absl::StatusOr<InstructionSet> ChooseInstructionSet(StringView name) {
  const std::vector<InstructionSet> supported = SupportedInstructionSets();
  if (name.empty()) {
    return supported.back();
  }
  for (const InstructionSet set : kAll) {
    if (NameOf(set) != name) {
      continue;
    }
    if (!IsSupported(set)) {
      return absl::FailedPreconditionError(
          absl::StrCat("this machine has no ", name, "; it has ", Names(supported)));
    }
    return set;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown instruction set \"", name, "\": expected ", Names({kAll, kAll + 4})));
}

}  // namespace cohort
