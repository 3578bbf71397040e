// The table of one instruction set. No include guard: compiled once per instruction set, in its
// namespace.

template <class T>
constexpr ActKernels ActKernelsOf() {
  return {.x_dtype = DTypeOf<typename Product<T>::X>(),
          .x_step = Product<T>::kStep,
          .feature_step = kWideFeatures,
          .multiply_to_act = Multiply<T, T>,
          .multiply_to_fp32 = Multiply<T, float>,
          .attend = Attend<T>,
          .normalise = NormaliseRow<T>,
          .add_act = AddRow<T, T>,
          .add_fp32 = AddRow<T, float>,
          .silu_multiply = SiluMultiplyRow<T>,
          .rotate = RotateHead<T>};
}

extern const KernelTable kKernels;
const KernelTable kKernels = {.fp32 = ActKernelsOf<float>(), .bf16 = ActKernelsOf<BFloat16>()};
