#include <algorithm>
#include <cmath>
#include <utility>

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

// A problem with what every device must find, computed once for all of them.
struct Case {
  Problem problem;
  bool with_bias = false;
  DType out_dtype = DType::kBF16;
  HostTensor expected;
  std::vector<double> bounds;
};

Case MakeCase(std::mt19937_64& random, int64_t tokens, int64_t in, int64_t out) {
  Case made{MakeProblem(random, DType::kBF16, tokens, in, out),
            tokens % 2 == 0,
            tokens % 3 == 0 ? DType::kF32 : DType::kBF16,
            {},
            {}};
  made.expected = reference::MatMul(made.problem.x, made.problem.w,
                                    made.with_bias ? &made.problem.bias : nullptr, made.out_dtype);
  made.bounds = Bounds(made.problem, made.with_bias, made.out_dtype, made.expected);
  return made;
}

void ExpectOnEachDevice(const std::vector<Case>& cases) {
  OnEachDevice([&](Device& device) {
    for (const Case& c : cases) {
      SCOPED_TRACE(c.problem.x.shape.ToString() + " by " + c.problem.w.shape.ToString());
      ExpectWithin(MatMul(device, c.problem, c.with_bias, c.out_dtype, 8), c.expected.values,
                   c.bounds);
    }
  });
}

// Inner dimensions of the published models, whole and cut over ranks: with and without rests of a
// device's chunks, long enough that a device adds partial sums of several blocks. The features are
// an excerpt, with a rest of its own.
TEST(MatMul, TakesTheInnerDimensionsOfModels) {
  std::mt19937_64 random(9);
  std::vector<Case> cases;
  int64_t tokens = 0;
  for (const int64_t in : {448, 896, 1536, 1792, 3584, 3696, 4864, 8192, 8960, 18944}) {
    tokens = tokens % 17 + 2;
    cases.push_back(MakeCase(random, tokens, in, in < 4000 ? 70 : 20));
  }
  cases.push_back(MakeCase(random, 1, 29568, 17));
  cases.push_back(MakeCase(random, 50, 3696, 20));
  cases.push_back(MakeCase(random, 64, 896, 290));
  ExpectOnEachDevice(cases);
}

// Every number of tokens that one kernel may be made for, every rest of 16 features.
TEST(MatMul, TakesAnyFewTokensAndAnyFeatures) {
  std::mt19937_64 random(10);
  std::vector<Case> cases;
  for (int64_t tokens = 1; tokens <= 18; ++tokens) {
    cases.push_back(MakeCase(random, tokens, 264 + 8 * tokens, 60 + tokens));
  }
  for (const int64_t tokens : {31, 32, 33, 48, 49, 64, 65}) {
    cases.push_back(MakeCase(random, tokens, 8 * tokens, 100 + tokens));
  }
  ExpectOnEachDevice(cases);
}

// What lies behind the last column of a row belongs to others, here NaN.
TEST(MatMul, ReadsNothingBehindARow) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(11);
    for (const int64_t in : {8, 24, 40, 136, 264}) {
      const int64_t tokens = in == 40 ? 35 : 5;
      const Problem problem = MakeProblem(random, DType::kBF16, tokens, in, 35);
      const DeviceTensor x(device, problem.x, 8);
      const DeviceTensor w(device, problem.w, 16);
      const DeviceTensor out(device, Poison(DType::kF32, Shape{tokens, 35}), 3);
      // Whatever a block finds where it keeps its rows is NaN from here on.
      const Problem poisoned = {Poison(DType::kBF16, Shape{tokens == 5 ? 16 : 64, 512}),
                                Poison(DType::kBF16, Shape{64, 512}), problem.bias};
      MatMul(device, poisoned, false, DType::kF32);
      device.ops().MatMul(x.view(), Weight{w.view()}, nullptr, out.view());
      const HostTensor expected = reference::MatMul(problem.x, problem.w, nullptr, DType::kF32);
      ExpectWithin(out.Read(), expected.values, Bounds(problem, false, DType::kF32, expected));
    }
  });
}

// Sums that several blocks add up begin anew with every product.
TEST(MatMul, RepeatsItself) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(12);
    for (const int64_t tokens : {3, 40}) {
      const Problem long_rows = MakeProblem(random, DType::kBF16, tokens, 3584, 20);
      const Problem short_rows = MakeProblem(random, DType::kBF16, 3 * tokens / 2, 1024, 100);
      const HostTensor expected = MatMul(device, long_rows, true, DType::kBF16);
      for (int round = 0; round < 3; ++round) {
        MatMul(device, short_rows, false, DType::kF32);
        ExpectSame(MatMul(device, long_rows, true, DType::kBF16), expected);
      }
    }
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
      for (const int64_t in : {64, 131, 1160}) {
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

// Numbers of tokens that one kernel of a GPU takes, whose last tile several blocks add up.
TEST(MatMul, RowsDoNotDependOnABatchOfDozens) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(13);
    Problem problem = MakeProblem(random, DType::kBF16, 64, 1160, 150);
    const HostTensor x = problem.x;
    const HostTensor whole = MatMul(device, problem, true, DType::kF32);
    for (const auto& [begin, count] : {std::pair{0, 17}, std::pair{3, 33}, std::pair{10, 49}}) {
      problem.x = RowsOf(x, begin, count);
      ExpectSame(MatMul(device, problem, true, DType::kF32), RowsOf(whole, begin, count));
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
