#include "kernels/cpu/kernel_table.h"

#include "kernels/check.h"

namespace cohort {

namespace portable {
extern const KernelTable kKernels;
}
namespace avx2 {
extern const KernelTable kKernels;
}
namespace avx512 {
extern const KernelTable kKernels;
}
namespace avx512_bf16 {
extern const KernelTable kKernels;
}

const KernelTable& KernelsOf(InstructionSet set) {
  switch (set) {
    case InstructionSet::kPortable:
      return portable::kKernels;
    case InstructionSet::kAvx2:
      return avx2::kKernels;
    case InstructionSet::kAvx512:
      return avx512::kKernels;
    case InstructionSet::kAvx512Bf16:
      return avx512_bf16::kKernels;
  }
  CHECK(false) << "no kernels for instruction set " << static_cast<int>(set);
  return portable::kKernels;
}

}  // namespace cohort
