// The table of one instruction set. No include guard: compiled once per instruction set, in its
// namespace.

extern const KernelTable kKernels;
const KernelTable kKernels = {.fp32 = ProductKernelsOf<float>(),
                              .bf16 = ProductKernelsOf<BFloat16>()};
