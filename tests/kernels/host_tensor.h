// Tensors of the kernel tests in host memory: numbers as doubles, each exactly a value of its
// dtype.
#ifndef COHORT_TESTS_KERNELS_HOST_TENSOR_H_
#define COHORT_TESTS_KERNELS_HOST_TENSOR_H_

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/tensor.h"

namespace cohort {

struct HostTensor {
  DType dtype = DType::kF32;
  Shape shape;
  std::vector<double> values;

  int64_t rows() const { return shape[0]; }
  int64_t columns() const { return TensorView(nullptr, dtype, shape).columns(); }
  double& At(int64_t row, int64_t column) {
    return values[static_cast<size_t>(row * columns() + column)];
  }
  double At(int64_t row, int64_t column) const {
    return values[static_cast<size_t>(row * columns() + column)];
  }
  double At(int64_t index) const { return values[static_cast<size_t>(index)]; }
};

// Half the distance between neighbours at 1 (fp32), and the whole distance in `dtype`.
inline constexpr double kFloatUnit = 0x1p-24;
double Spacing(DType dtype);

// `value` as `dtype` stores it.
double RoundTo(double value, DType dtype);

HostTensor Filled(DType dtype, const Shape& shape, double value);
// NaN, or -12345 for int32: what an operation must overwrite, and must not read.
HostTensor Poison(DType dtype, const Shape& shape);
// Normally distributed with the given standard deviation. Other numbers for every COHORT_TEST_SEED
// of the environment (default 0).
HostTensor RandomNormal(std::mt19937_64& random, DType dtype, const Shape& shape,
                        double deviation = 1);
HostTensor Indices(const std::vector<int32_t>& values);
HostTensor RowsOf(const HostTensor& x, int64_t begin, int64_t count);

// Whole storage of the tensor in its own dtype, and back.
std::vector<uint8_t> Encode(const HostTensor& tensor);
HostTensor Decode(const std::vector<uint8_t>& bytes, DType dtype, const Shape& shape);

// Every element lies within `bounds` (one per element, or one for all) of `expected`.
void ExpectWithin(const HostTensor& actual, const std::vector<double>& expected,
                  const std::vector<double>& bounds);
// Equal to the bit; NaN equals NaN.
void ExpectSame(const HostTensor& actual, const HostTensor& expected);

}  // namespace cohort

#endif  // COHORT_TESTS_KERNELS_HOST_TENSOR_H_
