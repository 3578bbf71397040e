#include <cmath>

#include "tests/kernels/devices.h"
#include "tests/kernels/reference_ops.h"

namespace cohort {
namespace {

constexpr int64_t kSizes[] = {1, 2, 7, 16, 33, 64, 150};
constexpr DType kActivations[] = {DType::kF32, DType::kBF16};

// Of a result whose fp32 steps err by `units` in all: those, one flip of the rounding in between
// (bf16 only), one of the last rounding.
std::vector<double> RelativeBounds(const HostTensor& expected, double units) {
  const double between = expected.dtype == DType::kBF16 ? Spacing(expected.dtype) : 0;
  const double relative = units * kFloatUnit + between + Spacing(expected.dtype);
  std::vector<double> bounds;
  for (const double value : expected.values) {
    bounds.push_back(relative * std::abs(value) + 0x1p-120);
  }
  return bounds;
}

// The squares' sum errs by `columns` units at most; the root halves them; a few steps follow.
double NormUnits(int64_t columns) { return static_cast<double>(columns) / 2 + 8; }

template <class Body>
void ForRandomShapes(Body body) {
  for (const uint64_t seed : {1, 2}) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    for (const DType dtype : kActivations) {
      for (const int64_t tokens : {0, 1, 5}) {
        for (const int64_t columns : kSizes) {
          body(random, dtype, Shape{tokens, columns});
        }
      }
    }
  }
}

TEST(RmsNorm, MatchesTheReference) {
  OnEachDevice([](Device& device) {
    ForRandomShapes([&](std::mt19937_64& random, DType dtype, const Shape& shape) {
      const HostTensor x = RandomNormal(random, dtype, shape, 100);
      const HostTensor gamma = RandomNormal(random, dtype, Shape{shape[1]});
      const DeviceTensor out(device, Poison(dtype, shape), 8);
      device.ops().RmsNorm(DeviceTensor(device, x, 16).view(), DeviceTensor(device, gamma).view(),
                           1e-6f, out.view());
      const HostTensor expected = reference::RmsNorm(x, gamma, 1e-6);
      ExpectWithin(out.Read(), expected.values, RelativeBounds(expected, NormUnits(shape[1])));
    });
  });
}

TEST(RmsNorm, WorksInPlace) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(3);
    const HostTensor x = RandomNormal(random, DType::kBF16, Shape{3, 50});
    const DeviceTensor gamma(device, RandomNormal(random, DType::kBF16, Shape{50}));
    const DeviceTensor in_place(device, x);
    const DeviceTensor out(device, Poison(DType::kBF16, x.shape));
    device.ops().RmsNorm(DeviceTensor(device, x).view(), gamma.view(), 1e-5f, out.view());
    device.ops().RmsNorm(in_place.view(), gamma.view(), 1e-5f, in_place.view());
    ExpectSame(in_place.Read(), out.Read());
  });
}

// eps keeps a row of zeros finite.
TEST(RmsNorm, ZerosStayZeros) {
  OnEachDevice([](Device& device) {
    const HostTensor zeros = Filled(DType::kF32, Shape{2, 9}, 0);
    const DeviceTensor out(device, Poison(DType::kF32, zeros.shape));
    device.ops().RmsNorm(DeviceTensor(device, zeros).view(),
                         DeviceTensor(device, Filled(DType::kF32, Shape{9}, 2)).view(), 1e-6f,
                         out.view());
    ExpectSame(out.Read(), zeros);
  });
}

TEST(AddRmsNorm, MatchesTheReference) {
  OnEachDevice([](Device& device) {
    ForRandomShapes([&](std::mt19937_64& random, DType dtype, const Shape& shape) {
      for (const DType x_dtype : {DType::kF32, dtype}) {
        const HostTensor residual = RandomNormal(random, dtype, shape, 10);
        const HostTensor x = RandomNormal(random, x_dtype, shape, 10);
        const HostTensor gamma = RandomNormal(random, dtype, Shape{shape[1]});
        const DeviceTensor sum(device, residual, 8);
        const DeviceTensor out(device, Poison(dtype, shape));
        device.ops().AddRmsNorm(sum.view(), DeviceTensor(device, x, 8).view(),
                                DeviceTensor(device, gamma).view(), 1e-6f, out.view());
        const HostTensor expected_sum = reference::Add(residual, x);
        ExpectWithin(
            sum.Read(), expected_sum.values,
            dtype == DType::kBF16 ? std::vector<double>{0} : RelativeBounds(expected_sum, 1));
        const HostTensor expected = reference::RmsNorm(expected_sum, gamma, 1e-6);
        ExpectWithin(out.Read(), expected.values, RelativeBounds(expected, NormUnits(shape[1])));
      }
    });
  });
}

TEST(SiluMultiply, MatchesTheReference) {
  OnEachDevice([](Device& device) {
    ForRandomShapes([&](std::mt19937_64& random, DType dtype, const Shape& shape) {
      const HostTensor gate_up = RandomNormal(random, dtype, Shape{shape[0], 2 * shape[1]}, 5);
      const DeviceTensor out(device, Poison(dtype, shape), 8);
      device.ops().SiluMultiply(DeviceTensor(device, gate_up, 8).view(), out.view());
      const HostTensor expected = reference::SiluMultiply(gate_up);
      // The exponential errs by a few units, the sum, the quotient and the product by one each.
      ExpectWithin(out.Read(), expected.values, RelativeBounds(expected, 8));
    });
  });
}

TEST(SiluMultiply, LargeGatesNeitherOverflowNorVanish) {
  OnEachDevice([](Device& device) {
    const HostTensor gate_up{DType::kF32, Shape{1, 4}, {-1000, 1000, 3, 3}};
    const DeviceTensor out(device, Poison(DType::kF32, Shape{1, 2}));
    device.ops().SiluMultiply(DeviceTensor(device, gate_up).view(), out.view());
    ExpectSame(out.Read(), {DType::kF32, Shape{1, 2}, {0, 3000}});
  });
}

TEST(Embed, RowsOfOtherRanksAreZero) {
  OnEachDevice([](Device& device) {
    ForRandomShapes([&](std::mt19937_64& random, DType dtype, const Shape& shape) {
      constexpr int64_t kFirstRow = 20;
      const HostTensor table = RandomNormal(random, dtype, Shape{6, shape[1]});
      std::vector<int32_t> ids{19, 20, 25, 26, 0};
      ids.resize(static_cast<size_t>(shape[0]));
      for (const DType out_dtype : {DType::kF32, dtype}) {
        const DeviceTensor out(device, Poison(out_dtype, shape), 8);
        device.ops().Embed(DeviceTensor(device, Indices(ids)).view(),
                           DeviceTensor(device, table).view(), kFirstRow, out.view());
        ExpectSame(out.Read(), reference::Embed(Indices(ids), table, kFirstRow, out_dtype));
      }
    });
  });
}

TEST(GatherRows, CopiesRowsInAnyOrder) {
  OnEachDevice([](Device& device) {
    ForRandomShapes([&](std::mt19937_64& random, DType dtype, const Shape& shape) {
      const HostTensor x = RandomNormal(random, dtype, Shape{4, shape[1]});
      std::vector<int32_t> rows{3, 0, 0, 2, 1};
      rows.resize(static_cast<size_t>(shape[0]));
      const DeviceTensor out(device, Poison(dtype, shape), 8);
      device.ops().GatherRows(DeviceTensor(device, x, 8).view(),
                              DeviceTensor(device, Indices(rows)).view(), out.view());
      ExpectSame(out.Read(), reference::GatherRows(x, Indices(rows)));
    });
  });
}

TEST(FillRandom, EveryElementIsItsPlacesNumber) {
  OnEachDevice([](Device& device) {
    for (const DType dtype : kActivations) {
      for (const int64_t columns : kSizes) {
        for (const int64_t padding : {0, 3}) {
          const RandomFill fill = {.key = 0xfeedfacecafebeefu,
                                   .stored_columns = columns + 9,
                                   .first_row = 70000000,
                                   .first_column = 5,
                                   .width = 0.07f};
          const Shape shape{6, columns};
          const DeviceTensor out(device, Poison(dtype, shape), padding);
          device.ops().FillRandom(fill, out.view());
          ExpectSame(out.Read(),
                     reference::FillRandom(fill.key, fill.stored_columns, fill.first_row,
                                           fill.first_column, fill.width, dtype, shape));
          device.ops().FillRandom({.stored_columns = columns, .center = 1}, out.view());
          ExpectSame(out.Read(), Filled(dtype, shape, 1));
        }
      }
    }
  });
}

// More rows than a grid has blocks.
TEST(FillRandom, FillsTallMatrices) {
  OnEachDevice([](Device& device) {
    const RandomFill fill = {.key = 3, .stored_columns = 1, .width = 1};
    const Shape shape{70000, 1};
    const DeviceTensor out(device, Poison(DType::kF32, shape));
    device.ops().FillRandom(fill, out.view());
    ExpectSame(out.Read(), reference::FillRandom(3, 1, 0, 0, 1, DType::kF32, shape));
  });
}

}  // namespace
}  // namespace cohort
