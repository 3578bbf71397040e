#include <algorithm>
#include <cmath>

#include "tests/kernels/devices.h"
#include "tests/kernels/reference_ops.h"

namespace cohort {
namespace {

struct Problem {
  HostTensor x;
  HostTensor w;
  HostTensor bias;
};

Problem MakeProblem(std::mt19937_64& random, DType dtype, int64_t tokens, int64_t in, int64_t out) {
  return {RandomNormal(random, dtype, Shape{tokens, in}),
          RandomNormal(random, dtype, Shape{out, in}), RandomNormal(random, dtype, Shape{out}, 30)};
}

HostTensor MatMul(Device& device, const Problem& problem, bool with_bias, DType out_dtype,
                  int64_t padding = 0) {
  const DeviceTensor x(device, problem.x, padding);
  const DeviceTensor w(device, problem.w);
  const DeviceTensor bias(device, problem.bias);
  const DeviceTensor out(device, Poison(out_dtype, Shape{problem.x.rows(), problem.w.rows()}),
                         padding);
  const TensorView bias_view = bias.view();
  device.ops().MatMul(x.view(), Weight{w.view()}, with_bias ? &bias_view : nullptr, out.view());
  return out.Read();
}

HostTensor Magnitude(HostTensor tensor) {
  for (double& value : tensor.values) {
    value = std::abs(value);
  }
  return tensor;
}

// A sum of n fp32 products errs by at most n units of the sum of their magnitudes, whatever the
// order; then comes the rounding to the dtype of the result.
std::vector<double> Bounds(const Problem& problem, bool with_bias, DType out,
                           const HostTensor& expected) {
  const HostTensor bias = Magnitude(problem.bias);
  const HostTensor sums = reference::MatMul(Magnitude(problem.x), Magnitude(problem.w),
                                            with_bias ? &bias : nullptr, DType::kF32);
  const double terms = static_cast<double>(problem.x.columns() + 2);
  std::vector<double> bounds;
  for (size_t i = 0; i < sums.values.size(); ++i) {
    bounds.push_back(terms * kFloatUnit * sums.values[i] +
                     Spacing(out) * std::abs(expected.values[i]));
  }
  return bounds;
}

TEST(MatMul, MatchesTheReference) {
  OnEachDevice([](Device& device) {
    for (const uint64_t seed : {1, 2, 3}) {
      SCOPED_TRACE(seed);
      std::mt19937_64 random(seed);
      for (const int64_t tokens : {0, 1, 3, 4, 9}) {
        const int64_t in = std::uniform_int_distribution<int64_t>(1, 150)(random);
        const int64_t out = std::uniform_int_distribution<int64_t>(1, 70)(random);
        for (const DType dtype : {DType::kF32, DType::kBF16}) {
          const Problem problem = MakeProblem(random, dtype, tokens, in, out);
          for (const DType out_dtype : {DType::kF32, dtype}) {
            const bool with_bias = (tokens + in) % 2 == 0;
            const HostTensor expected = reference::MatMul(
                problem.x, problem.w, with_bias ? &problem.bias : nullptr, out_dtype);
            ExpectWithin(MatMul(device, problem, with_bias, out_dtype, tokens), expected.values,
                         Bounds(problem, with_bias, out_dtype, expected));
          }
        }
      }
    }
  });
}

TEST(MatMul, EmptySumsGiveTheBias) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(4);
    const Problem problem = MakeProblem(random, DType::kBF16, 2, 0, 5);
    const HostTensor with_bias = MatMul(device, problem, true, DType::kBF16);
    ExpectSame(RowsOf(with_bias, 1, 1), {DType::kBF16, Shape{1, 5}, problem.bias.values});
    ExpectSame(MatMul(device, problem, false, DType::kF32), Filled(DType::kF32, Shape{2, 5}, 0));
    MatMul(device, MakeProblem(random, DType::kF32, 3, 4, 0), true, DType::kF32);
  });
}

// Weight rows of a slice may lie apart.
TEST(MatMul, TakesStridedWeights) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(5);
    const Problem problem = MakeProblem(random, DType::kBF16, 2, 40, 6);
    const DeviceTensor x(device, problem.x);
    const DeviceTensor w(device, problem.w, 24);
    const DeviceTensor out(device, Poison(DType::kBF16, Shape{2, 6}));
    device.ops().MatMul(x.view(), Weight{w.view()}, nullptr, out.view());
    ExpectSame(out.Read(), MatMul(device, problem, false, DType::kBF16));
  });
}

TEST(MatMul, RowsDoNotDependOnTheBatch) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(6);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const int64_t in : {64, 131}) {
        Problem problem = MakeProblem(random, dtype, 11, in, 37);
        const HostTensor x = problem.x;
        const HostTensor whole = MatMul(device, problem, true, DType::kF32);
        for (const int64_t chunk : {1, 2, 3, 5, 7}) {
          for (int64_t begin = 0; begin < 11; begin += chunk) {
            const int64_t count = std::min(chunk, 11 - begin);
            problem.x = RowsOf(x, begin, count);
            ExpectSame(MatMul(device, problem, true, DType::kF32), RowsOf(whole, begin, count));
          }
        }
      }
    }
  });
}

// The kernels change their way through the weights with the number of tokens: one, a few, many.
TEST(MatMul, RowsDoNotDependOnTheBatchAtAnyLength) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(8);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      constexpr int64_t kTokens = 133;
      Problem problem = MakeProblem(random, dtype, kTokens, 75, 11);
      const HostTensor x = problem.x;
      const HostTensor whole = MatMul(device, problem, false, dtype);
      for (const int64_t chunk : {1, 10, 19, 128}) {
        for (int64_t begin = 0; begin < kTokens; begin += chunk) {
          const int64_t count = std::min(chunk, kTokens - begin);
          problem.x = RowsOf(x, begin, count);
          ExpectSame(MatMul(device, problem, false, dtype), RowsOf(whole, begin, count));
        }
      }
    }
  });
}

TEST(MatMul, ResultsDoNotDependOnThreads) {
  std::mt19937_64 random(7);
  const Problem problem = MakeProblem(random, DType::kBF16, 6, 777, 301);
  DeviceOptions options;
  absl::StatusOr<std::unique_ptr<Device>> one = Device::Create(options);
  options.threads = 3;
  absl::StatusOr<std::unique_ptr<Device>> three = Device::Create(options);
  ASSERT_TRUE(one.ok() && three.ok());
  const HostTensor expected = MatMul(**one, problem, true, DType::kF32);
  for (int round = 0; round < 5; ++round) {
    ExpectSame(MatMul(**three, problem, true, DType::kF32), expected);
  }
}

}  // namespace
}  // namespace cohort
