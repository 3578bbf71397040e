#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/kernels/devices.h"
#include "tests/kernels/reference_ops.h"

namespace cohort {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

reference::Routing Route(Device& device, const HostTensor& logits, int64_t k, bool normalize) {
  const DeviceTensor ids(device, Poison(DType::kI32, Shape{logits.rows(), k}), 2);
  const DeviceTensor weights(device, Poison(DType::kF32, Shape{logits.rows(), k}), 1);
  device.ops().RouteTopK(DeviceTensor(device, logits, 1).view(), normalize,
                         {ids.view(), weights.view()});
  return {ids.Read(), weights.Read()};
}

// The rounding of a difference of logits below 16 moves its exponential by 16 units, which errs by
// a few more; the sum of n of them by n, the quotients by one each.
std::vector<double> WeightBounds(const HostTensor& weights, int64_t experts, DType dtype) {
  std::vector<double> bounds;
  for (const double weight : weights.values) {
    bounds.push_back((static_cast<double>(2 * experts + 48) * kFloatUnit + Spacing(dtype)) *
                     weight);
  }
  return bounds;
}

TEST(RouteTopK, MatchesTheReference) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(1);
    for (const int64_t experts : {1, 10, 60, 64}) {
      for (const int64_t tokens : {0, 1, 7, 300}) {
        for (const DType dtype : {DType::kF32, DType::kBF16}) {
          const HostTensor logits = RandomNormal(random, dtype, Shape{tokens, experts}, 1.5);
          const int64_t k = std::min<int64_t>(experts, 1 + tokens % 9);
          for (const bool normalize : {false, true}) {
            const reference::Routing expected = reference::RouteTopK(logits, k, normalize);
            const reference::Routing actual = Route(device, logits, k, normalize);
            ExpectSame(actual.ids, expected.ids);
            ExpectWithin(actual.weights, expected.weights.values,
                         WeightBounds(expected.weights, experts, dtype));
          }
        }
      }
    }
  });
}

TEST(RouteTopK, TakesTheLowerIdAmongEquals) {
  OnEachDevice([](Device& device) {
    const HostTensor logits{DType::kF32, Shape{2, 5}, {1, 2, 1, 2, 1, 0, 0, 0, 0, 0}};
    const reference::Routing routing = Route(device, logits, 4, false);
    ExpectSame(routing.ids, {DType::kI32, Shape{2, 4}, {1, 3, 0, 2, 0, 1, 2, 3}});
  });
}

TEST(RouteTopK, TakesAscendingIdsAmongManyEquals) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(7);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      HostTensor logits = RandomNormal(random, dtype, Shape{40, 130});
      for (double& logit : logits.values) {
        logit = std::floor(logit);  // about six values, zeros of both signs
      }
      for (const int64_t k : {8, 33, 130}) {
        ExpectSame(Route(device, logits, k, false).ids, reference::RouteTopK(logits, k, false).ids);
      }
    }
  });
}

// A row that is broken says so in its result and does not touch its neighbours.
TEST(RouteTopK, RowsWithoutProbabilitiesGetWeightsOfNan) {
  OnEachDevice([](Device& device) {
    HostTensor logits{DType::kF32,
                      Shape{5, 3},
                      {kNan, 1, 2, 1, 2, kNan, kInfinity, 0, 0, -kInfinity, -kInfinity, -kInfinity,
                       -kInfinity, 0, -kInfinity}};
    const reference::Routing routing = Route(device, logits, 2, true);
    for (int64_t row = 0; row < 4; ++row) {
      EXPECT_EQ(routing.ids.At(row, 0), 0);
      EXPECT_EQ(routing.ids.At(row, 1), 1);
      EXPECT_TRUE(std::isnan(routing.weights.At(row, 0)) && std::isnan(routing.weights.At(row, 1)));
    }
    EXPECT_EQ(routing.ids.At(4, 0), 1);
    EXPECT_EQ(routing.weights.At(4, 0), 1);
    EXPECT_EQ(routing.weights.At(4, 1), 0);
  });
}

// Experts [first, first + count) of a layer with `all` of them, of which a row takes three.
struct Experts {
  int64_t first = 2;
  int64_t count = 5;
  int64_t all = 9;
  int64_t chosen = 3;
};

struct Problem {
  Experts experts;
  HostTensor x;
  HostTensor gate_up;
  HostTensor down;
  reference::Routing routing;

  int64_t columns() const { return down.shape[2]; }
};

enum class Kind { kRandom, kSkewed, kElsewhere };

Problem MakeProblem(std::mt19937_64& random, DType dtype, int64_t tokens, int64_t hidden,
                    int64_t columns, Kind kind, const Experts& experts = {}) {
  Problem problem;
  problem.experts = experts;
  problem.x = RandomNormal(random, dtype, Shape{tokens, hidden});
  problem.gate_up = RandomNormal(random, dtype, Shape{experts.count, 2 * columns, hidden}, 0.3);
  problem.down = RandomNormal(random, dtype, Shape{experts.count, hidden, columns}, 0.3);
  HostTensor logits = RandomNormal(random, DType::kF32, Shape{tokens, experts.all});
  for (int64_t token = 0; token < tokens; ++token) {
    for (int64_t expert = 0; expert < experts.all; ++expert) {
      const bool is_here = expert >= experts.first && expert < experts.first + experts.count;
      if ((kind == Kind::kElsewhere && is_here) || (kind == Kind::kSkewed && expert == 3)) {
        logits.At(token, expert) += kind == Kind::kSkewed ? 20 : -20;
      }
    }
  }
  problem.routing = reference::RouteTopK(logits, experts.chosen, true);
  if (kind == Kind::kElsewhere) {  // of a row that another rank keeps
    std::fill_n(problem.routing.ids.values.begin(), problem.routing.ids.values.size() / 2, -1);
  }
  return problem;
}

HostTensor RoutedFfn(Device& device, const Problem& problem) {
  const int64_t pairs =
      problem.x.rows() * std::min(problem.experts.chosen, problem.gate_up.shape[0]);
  const DeviceTensor x(device, problem.x, 8);
  const DeviceTensor gate_up(device, problem.gate_up);
  const DeviceTensor down(device, problem.down);
  const DeviceTensor ids(device, problem.routing.ids, 1);
  const DeviceTensor weights(device, problem.routing.weights, 2);
  const DType act = problem.x.dtype;
  const DeviceTensor scratch(device, Poison(act, Shape{pairs, 2 * problem.columns()}));
  const DeviceTensor activated(device, Poison(act, Shape{pairs, problem.columns()}));
  const DeviceTensor out(device, Poison(DType::kF32, problem.x.shape), 3);
  device.ops().RoutedFfn(x.view(), {ids.view(), weights.view()},
                         {gate_up.view(), down.view(), problem.experts.first},
                         {scratch.view(), activated.view()}, out.view());
  return out.Read();
}

// What the small operations say of one expert and all rows: [tokens, hidden].
HostTensor OneExpert(Device& device, const Problem& problem, int64_t expert) {
  const DeviceTensor x(device, problem.x);
  const DeviceTensor gate_up(device, problem.gate_up);
  const DeviceTensor down(device, problem.down);
  const int64_t columns = problem.columns();
  const int64_t hidden = problem.x.columns();
  const DType act = problem.x.dtype;
  const auto matrix = [&](const DeviceTensor& all, int64_t rows, int64_t width) {
    return TensorView(all.view().Rows(expert, 1).data, act, Shape{rows, width});
  };
  const DeviceTensor projected(device, Poison(act, Shape{problem.x.rows(), 2 * columns}));
  const DeviceTensor activated(device, Poison(act, Shape{problem.x.rows(), columns}));
  const DeviceTensor out(device, Poison(DType::kF32, problem.x.shape));
  device.ops().MatMul(x.view(), {matrix(gate_up, 2 * columns, hidden)}, nullptr, projected.view());
  device.ops().SiluMultiply(projected.view(), activated.view());
  device.ops().MatMul(activated.view(), {matrix(down, hidden, columns)}, nullptr, out.view());
  return out.Read();
}

// The weighted sums in fp32, experts ascending.
HostTensor Parts(Device& device, const Problem& problem) {
  HostTensor sum = Filled(DType::kF32, problem.x.shape, 0);
  for (int64_t expert = 0; expert < problem.experts.count; ++expert) {
    const HostTensor y = OneExpert(device, problem, expert);
    for (int64_t i = 0; i < problem.routing.ids.rows() * problem.routing.ids.columns(); ++i) {
      const int64_t row = i / problem.routing.ids.columns();
      for (int64_t k = 0;
           problem.routing.ids.At(i) == problem.experts.first + expert && k < y.columns(); ++k) {
        const float product =
            static_cast<float>(problem.routing.weights.At(i)) * static_cast<float>(y.At(row, k));
        sum.At(row, k) = static_cast<float>(sum.At(row, k)) + product;
      }
    }
  }
  return sum;
}

// How far two ways to compute the result may lie apart, from the magnitudes of what is summed: sums
// of n products err by n units, silu by a few (its slope is below 1.1), the errors pass on, and
// where a value is rounded to the dtype the two may fall on neighbours.
std::vector<double> ResultBounds(const Problem& problem) {
  const int64_t hidden = problem.x.columns();
  const int64_t columns = problem.columns();
  const double spacing = Spacing(problem.x.dtype);
  const auto weight = [&](const HostTensor& matrices, int64_t expert, int64_t row, int64_t width,
                          int64_t column) { return matrices.At(expert, row * width + column); };
  std::vector<double> bounds(problem.x.values.size());
  for (int64_t pair = 0; pair < problem.routing.ids.rows() * problem.routing.ids.columns();
       ++pair) {
    const int64_t row = pair / problem.routing.ids.columns();
    const int64_t expert =
        static_cast<int64_t>(problem.routing.ids.At(pair)) - problem.experts.first;
    if (expert < 0 || expert >= problem.experts.count) {
      continue;
    }
    std::vector<double> activated, errors;
    for (int64_t c = 0; c < columns; ++c) {
      double gate = 0, up = 0, gate_magnitude = 0, up_magnitude = 0;
      for (int64_t k = 0; k < hidden; ++k) {
        const double of_gate = problem.x.At(row, k) * weight(problem.gate_up, expert, c, hidden, k);
        const double of_up =
            problem.x.At(row, k) * weight(problem.gate_up, expert, columns + c, hidden, k);
        gate += of_gate;
        up += of_up;
        gate_magnitude += std::abs(of_gate);
        up_magnitude += std::abs(of_up);
      }
      const double silu = gate / (1 + std::exp(-gate));
      const double terms = static_cast<double>(hidden + 2) * kFloatUnit;
      const double gate_error =
          1.1 * (terms * gate_magnitude + spacing * std::abs(gate)) + spacing * std::abs(silu);
      const double up_error = terms * up_magnitude + spacing * std::abs(up);
      activated.push_back(std::abs(silu * up));
      errors.push_back(gate_error * (std::abs(up) + up_error) + std::abs(silu) * up_error +
                       (spacing + 8 * kFloatUnit) * activated.back());
    }
    for (int64_t k = 0; k < hidden; ++k) {
      double bound = 0;
      for (int64_t c = 0; c < columns; ++c) {
        const size_t i = static_cast<size_t>(c);
        bound += std::abs(weight(problem.down, expert, k, columns, c)) *
                 (errors[i] + static_cast<double>(columns + 6) * kFloatUnit * activated[i]);
      }
      bounds[static_cast<size_t>(row * hidden + k)] += problem.routing.weights.At(pair) * bound;
    }
  }
  return bounds;
}

// Whatever the tiles and pieces are: rows, columns and hidden sizes around them. A device whose
// products come from different kernels may sum in another order.
TEST(RoutedFfn, IsItsParts) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(2);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const Kind kind : {Kind::kRandom, Kind::kSkewed, Kind::kElsewhere}) {
        for (const int64_t tokens : {0, 1, 70}) {
          const Problem problem = MakeProblem(random, dtype, tokens, 75 + tokens % 4, 37, kind);
          const HostTensor parts = Parts(device, problem);
          if (device.kind() == "cpu") {
            ExpectSame(RoutedFfn(device, problem), parts);
          } else {
            ExpectWithin(RoutedFfn(device, problem), parts.values, ResultBounds(problem));
          }
        }
      }
    }
  });
}

void ExpectTheReference(const std::vector<Problem>& problems) {
  std::vector<HostTensor> expected;
  std::vector<std::vector<double>> bounds;
  for (const Problem& problem : problems) {
    expected.push_back(reference::RoutedFfn(problem.x, problem.routing, problem.gate_up,
                                            problem.down, problem.experts.first));
    bounds.push_back(ResultBounds(problem));
  }
  OnEachDevice([&](Device& device) {
    for (size_t i = 0; i < problems.size(); ++i) {
      SCOPED_TRACE(testing::Message()
                   << NameOf(problems[i].x.dtype) << ", " << problems[i].x.rows() << " rows of "
                   << problems[i].x.columns() << ", " << problems[i].columns() << " columns");
      ExpectWithin(RoutedFfn(device, problems[i]), expected[i].values, bounds[i]);
    }
  });
}

constexpr Kind kKinds[] = {Kind::kRandom, Kind::kSkewed, Kind::kElsewhere};

TEST(RoutedFfn, MatchesTheReference) {
  std::vector<Problem> problems;
  std::mt19937_64 random(3);
  for (const Kind kind : kKinds) {
    problems.push_back(MakeProblem(random, DType::kF32, 9, 40, 21, kind));
    problems.push_back(MakeProblem(random, DType::kBF16, 9, 43, 21, kind));
  }
  ExpectTheReference(problems);
}

// The sizes that tensor cores take, around their tiles, steps and stages.
TEST(RoutedFfn, MatchesTheReferenceInTiles) {
  std::vector<Problem> problems;
  std::mt19937_64 random(8);
  for (const int64_t tokens : {1, 9, 17, 64, 65, 200}) {
    problems.push_back(MakeProblem(random, DType::kBF16, tokens, 64, 40, Kind::kSkewed));
  }
  for (const int64_t tokens : {40, 100}) {
    problems.push_back(MakeProblem(random, DType::kBF16, tokens, 136, 16, Kind::kRandom));
    problems.push_back(MakeProblem(random, DType::kBF16, tokens, 72, 72, Kind::kElsewhere));
  }
  problems.push_back(MakeProblem(random, DType::kBF16, 5, 72, 136, Kind::kRandom));
  problems.push_back(MakeProblem(random, DType::kBF16, 65, 24, 136, Kind::kRandom));
  // More stages than a ring has, more features than a tile, one tile of an expert and two.
  problems.push_back(MakeProblem(random, DType::kBF16, 66, 328, 136, Kind::kSkewed));
  problems.push_back(MakeProblem(random, DType::kBF16, 250, 40, 24, Kind::kSkewed));
  problems.push_back(MakeProblem(random, DType::kBF16, 3, 1032, 24, Kind::kRandom));
  problems.push_back(MakeProblem(random, DType::kBF16, 4, 24, 520, Kind::kRandom));
  ExpectTheReference(problems);
}

TEST(RoutedFfn, MatchesTheReferenceWithManyExperts) {
  std::vector<Problem> problems;
  std::mt19937_64 random(9);
  const Experts experts{.first = 11, .count = 70, .all = 90, .chosen = 8};
  for (const int64_t tokens : {1, 30, 90}) {
    problems.push_back(MakeProblem(random, DType::kBF16, tokens, 64, 16, Kind::kRandom, experts));
  }
  // Fewer experts here than a row may choose: rows with places for each of them.
  problems.push_back(MakeProblem(random, DType::kBF16, 70, 64, 16, Kind::kRandom,
                                 {.first = 0, .count = 2, .all = 6, .chosen = 4}));
  ExpectTheReference(problems);
}

// Rows of `problem`, computed in chunks, are its rows.
void ExpectSameInChunks(Device& device, const Problem& all, const std::vector<int64_t>& chunks) {
  const HostTensor whole = RoutedFfn(device, all);
  const int64_t tokens = all.x.rows();
  Problem problem = all;
  for (const int64_t chunk : chunks) {
    for (int64_t begin = tokens % chunk; begin < tokens; begin += chunk) {
      const int64_t count = std::min(chunk, tokens - begin);
      problem.x = RowsOf(all.x, begin, count);
      problem.routing = {RowsOf(all.routing.ids, begin, count),
                         RowsOf(all.routing.weights, begin, count)};
      ExpectSame(RoutedFfn(device, problem), RowsOf(whole, begin, count));
    }
  }
}

TEST(RoutedFfn, RowsDoNotDependOnTheBatch) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(4);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      ExpectSameInChunks(device, MakeProblem(random, dtype, 70, 66, 30, Kind::kSkewed), {3, 9, 66});
    }
    // Decode steps and prefill steps may sum in different orders on a GPU, each in its own.
    ExpectSameInChunks(device, MakeProblem(random, DType::kBF16, 60, 72, 40, Kind::kSkewed),
                       {3, 9, 50});
    ExpectSameInChunks(device, MakeProblem(random, DType::kBF16, 300, 72, 40, Kind::kSkewed),
                       {75, 100});
  });
}

// So many products that a GPU sums them in pieces of the columns, and in larger tiles.
TEST(RoutedFfn, RowsDoNotDependOnALargeBatch) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(11);
    const Experts experts{.first = 0, .count = 8, .all = 8, .chosen = 8};
    Problem problem = MakeProblem(random, DType::kBF16, 300, 3584, 8, Kind::kRandom, experts);
    const HostTensor whole = RoutedFfn(device, problem);
    constexpr int64_t kRows = 70;
    problem.x = RowsOf(problem.x, 0, kRows);
    problem.routing = {RowsOf(problem.routing.ids, 0, kRows),
                       RowsOf(problem.routing.weights, 0, kRows)};
    ExpectSame(RoutedFfn(device, problem), RowsOf(whole, 0, kRows));
  });
}

// A rank without experts, or without columns of them, adds nothing.
TEST(RoutedFfn, EmptyShardsGiveZeros) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(5);
    Problem problem = MakeProblem(random, DType::kBF16, 6, 30, 0, Kind::kRandom);
    ExpectSame(RoutedFfn(device, problem), Filled(DType::kF32, Shape{6, 30}, 0));
    problem.gate_up = Filled(DType::kBF16, Shape{0, 16, 30}, 0);
    problem.down = Filled(DType::kBF16, Shape{0, 30, 8}, 0);
    ExpectSame(RoutedFfn(device, problem), Filled(DType::kF32, Shape{6, 30}, 0));
  });
}

TEST(CountIds, AddsToWhatWasCountedAndWrapsAround) {
  OnEachDevice([](Device& device) {
    const DeviceTensor ids(device, {DType::kI32, Shape{3, 2}, {0, 2, 2, 3, -1, 2}}, 1);
    const DeviceTensor counts(device, Indices({5, 1, 2147483647}));
    device.ops().CountIds(ids.view(), counts.view());
    ExpectSame(counts.Read(), Indices({6, 1, -2147483646}));
  });
}

TEST(CountIds, CountsManyRows) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(10);
    std::uniform_int_distribution<int32_t> any(-2, 70);
    HostTensor ids = Filled(DType::kI32, Shape{300, 8}, 0);
    std::vector<int32_t> expected(64, 3);
    for (double& id : ids.values) {
      id = any(random);
      if (id >= 0 && id < 64) {
        ++expected[static_cast<size_t>(id)];
      }
    }
    const DeviceTensor counts(device, Indices(std::vector<int32_t>(64, 3)));
    device.ops().CountIds(DeviceTensor(device, ids).view(), counts.view());
    ExpectSame(counts.Read(), Indices(expected));
  });
}

TEST(AddGated, MatchesTheReference) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(6);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const int64_t tokens : {0, 1, 90}) {
        const Shape shape{tokens, 300};
        const HostTensor x = RandomNormal(random, DType::kF32, shape);
        const HostTensor gate = RandomNormal(random, dtype, Shape{tokens, 1}, 3);
        const HostTensor before = RandomNormal(random, DType::kF32, shape);
        const int64_t padding = tokens % 2 == 0 ? 4 : 3;  // rows of whole packs, and others
        const DeviceTensor out(device, before, padding);
        device.ops().AddGated(DeviceTensor(device, x, padding).view(),
                              DeviceTensor(device, gate, 4).view(), out.view());
        const HostTensor expected = reference::AddGated(x, gate, before);
        std::vector<double> bounds;
        for (size_t i = 0; i < x.values.size(); ++i) {
          // The sigmoid errs by a few units before it is rounded.
          bounds.push_back((Spacing(dtype) + 8 * kFloatUnit) * std::abs(x.values[i]) +
                           kFloatUnit * std::abs(expected.values[i]));
        }
        ExpectWithin(out.Read(), expected.values, bounds);
      }
    }
  });
}

}  // namespace
}  // namespace cohort
