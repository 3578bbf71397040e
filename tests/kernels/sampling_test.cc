#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "tests/kernels/devices.h"
#include "tests/kernels/reference_ops.h"

namespace cohort {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

HostTensor Logits(const std::vector<std::vector<double>>& rows) {
  HostTensor logits =
      Filled(DType::kF32,
             Shape{static_cast<int64_t>(rows.size()), static_cast<int64_t>(rows.at(0).size())}, 0);
  for (size_t row = 0; row < rows.size(); ++row) {
    for (size_t id = 0; id < rows[row].size(); ++id) {
      logits.At(static_cast<int64_t>(row), static_cast<int64_t>(id)) =
          RoundTo(rows[row][id], DType::kF32);
    }
  }
  return logits;
}

std::vector<int32_t> Sample(Device& device, const HostTensor& logits,
                            const std::vector<SamplingRow>& rows, int64_t valid_ids) {
  const DeviceTensor on_device(device, logits, 3);
  const DeviceTensor out(device, Poison(DType::kI32, Shape{logits.rows()}));
  device.ops().Sample(on_device.view(), rows, valid_ids, out.view());
  ExpectSame(on_device.Read(), logits);
  const HostTensor ids = out.Read();
  return std::vector<int32_t>(ids.values.begin(), ids.values.end());
}

// One row of logits, the same for all `positions` draws.
std::vector<int32_t> Draw(Device& device, const std::vector<double>& logits, SamplingRow row,
                          size_t positions) {
  std::vector<SamplingRow> rows(positions, row);
  for (size_t i = 0; i < positions; ++i) {
    rows[i].position = i;
  }
  return Sample(device, Logits(std::vector<std::vector<double>>(positions, logits)), rows,
                static_cast<int64_t>(logits.size()));
}

SamplingRow Row(float temperature, float top_p, int32_t top_k) {
  SamplingRow row;
  row.temperature = temperature;
  row.top_p = top_p;
  row.top_k = top_k;
  row.seed = 0x123456789abcdefull;
  row.sequence_index = 2;
  return row;
}

SamplingRow MinPRow(float temperature, float top_p, int32_t top_k, float min_p) {
  SamplingRow row = Row(temperature, top_p, top_k);
  row.min_p = min_p;
  return row;
}

TEST(Sample, GreedyTakesTheFirstOfTheLargest) {
  OnEachDevice([](Device& device) {
    const std::vector<SamplingRow> greedy(3, Row(0, 1, 0));
    const HostTensor logits = Logits({{1, 5, 5, 2}, {-3, -3, -3, -4}, {-kInfinity, -9, -10, -9}});
    EXPECT_EQ(Sample(device, logits, greedy, 4), (std::vector<int32_t>{1, 0, 1}));
  });
}

TEST(Sample, IdsThatAreNotValidAreNeverChosen) {
  OnEachDevice([](Device& device) {
    const std::vector<SamplingRow> rows{Row(0, 1, 0), Row(1, 1, 0), Row(1, 0.5f, 2)};
    const HostTensor logits = Logits({{1, 0, 9, 9}, {1, 0, kInfinity, 9}, {1, 0, 9, kNan}});
    for (const int32_t id : Sample(device, logits, rows, 2)) {
      EXPECT_TRUE(id == 0 || id == 1) << id;
    }
    EXPECT_EQ(Sample(device, logits, rows, 0), (std::vector<int32_t>{-1, -1, -1}));
  });
}

TEST(Sample, NaNOrNothingFiniteGivesNoToken) {
  OnEachDevice([](Device& device) {
    for (const SamplingRow& row : {Row(0, 1, 0), Row(1, 1, 0), Row(1, 0.9f, 2)}) {
      const HostTensor logits = Logits(
          {{1, 2, kNan}, {-kInfinity, -kInfinity, -kInfinity}, {kNan, kNan, kNan}, {1, 2, 3}});
      const std::vector<int32_t> ids = Sample(device, logits, std::vector<SamplingRow>(4, row), 3);
      EXPECT_EQ((std::vector<int32_t>(ids.begin(), ids.begin() + 3)),
                (std::vector<int32_t>{-1, -1, -1}));
      EXPECT_GE(ids[3], 0);
    }
  });
}

TEST(Sample, MatchesTheReference) {
  OnEachDevice([](Device& device) {
    for (const uint64_t seed : {1, 2, 3}) {
      SCOPED_TRACE(seed);
      std::mt19937_64 random(seed);
      for (const int64_t vocabulary : {1, 2, 17, 300, 3001}) {
        for (const SamplingRow& settings :
             {Row(0, 1, 0), Row(1, 1, 0), Row(0.7f, 1, 5), Row(1.5f, 0.9f, 0), Row(3, 0.8f, 20),
              Row(0.01f, 0.99f, 400), Row(5, 0.999f, 1), MinPRow(1.5f, 1, 0, 0.01f),
              MinPRow(2, 0.9f, 30, 0.1f)}) {
          const HostTensor logits = RandomNormal(random, DType::kF32, Shape{4, vocabulary}, 3);
          std::vector<SamplingRow> rows(4, settings);
          std::vector<int32_t> expected;
          for (size_t i = 0; i < rows.size(); ++i) {
            rows[i].seed = random();
            rows[i].sequence_index = static_cast<uint32_t>(i);
            rows[i].position = random();
            expected.push_back(
                reference::Sample(RowsOf(logits, static_cast<int64_t>(i), 1).values, rows[i]));
          }
          EXPECT_EQ(Sample(device, logits, rows, vocabulary), expected) << vocabulary;
        }
      }
    }
  });
}

TEST(Sample, TopKKeepsExactlyTheLargestAndBreaksTiesByLowerId) {
  OnEachDevice([](Device& device) {
    const std::vector<double> logits{0, 1, 1, 0, 1, 1, 0.5, 1};
    const std::vector<int32_t> ids = Draw(device, logits, Row(1, 1, 3), 300);
    EXPECT_EQ(std::set<int32_t>(ids.begin(), ids.end()), (std::set<int32_t>{1, 2, 4}));
    const std::vector<int32_t> one = Draw(device, logits, Row(1, 1, 1), 50);
    EXPECT_EQ(std::set<int32_t>(one.begin(), one.end()), (std::set<int32_t>{1}));
  });
}

// Probabilities 1/2, 1/4, 1/8, 1/16, 1/16, which are exact in binary.
TEST(Sample, TopPKeepsTheShortestPrefixThatReachesIt) {
  const std::vector<double> logits{std::log(1 / 16.0), std::log(0.5), std::log(1 / 16.0),
                                   std::log(0.125), std::log(0.25)};
  OnEachDevice([&](Device& device) {
    const auto kept = [&](float top_p) {
      const std::vector<int32_t> ids = Draw(device, logits, Row(1, top_p, 0), 400);
      return std::set<int32_t>(ids.begin(), ids.end());
    };
    EXPECT_EQ(kept(1e-6f), (std::set<int32_t>{1}));
    EXPECT_EQ(kept(0.49f), (std::set<int32_t>{1}));
    EXPECT_EQ(kept(0.51f), (std::set<int32_t>{1, 4}));
    EXPECT_EQ(kept(0.8f), (std::set<int32_t>{1, 3, 4}));
    EXPECT_EQ(kept(0.9f), (std::set<int32_t>{0, 1, 3, 4}));
    EXPECT_EQ(kept(1.0f), (std::set<int32_t>{0, 1, 2, 3, 4}));
  });
}

TEST(Sample, MinPDropsWhatIsRareBesideTheLikeliest) {
  const std::vector<double> logits{std::log(1 / 16.0), std::log(0.5), std::log(0.125),
                                   std::log(0.25)};
  OnEachDevice([&](Device& device) {
    const auto kept = [&](float min_p) {
      const std::vector<int32_t> ids = Draw(device, logits, MinPRow(1, 1, 0, min_p), 400);
      return std::set<int32_t>(ids.begin(), ids.end());
    };
    EXPECT_EQ(kept(0.1f), (std::set<int32_t>{0, 1, 2, 3}));
    EXPECT_EQ(kept(0.2f), (std::set<int32_t>{1, 2, 3}));
    EXPECT_EQ(kept(0.3f), (std::set<int32_t>{1, 3}));
    EXPECT_EQ(kept(1), (std::set<int32_t>{1}));
  });
}

// top-p counts within what top-k left: of 1/2, 1/4, 1/8 the first has 4/7 of the mass.
TEST(Sample, TopPWorksOnWhatTopKLeft) {
  const std::vector<double> logits{std::log(0.125), std::log(0.5), std::log(0.125), std::log(0.25)};
  OnEachDevice([&](Device& device) {
    const std::vector<int32_t> ids = Draw(device, logits, Row(1, 0.55f, 3), 200);
    EXPECT_EQ(std::set<int32_t>(ids.begin(), ids.end()), (std::set<int32_t>{1}));
  });
}

// Pearson's statistic over many positions: with k kept ids its mean is k - 1 and its deviation
// sqrt(2 (k - 1)); six deviations are far beyond chance, and the seed is fixed.
TEST(Sample, FollowsTheDistribution) {
  constexpr size_t kDraws = 4000;
  std::mt19937_64 random(9);
  const std::vector<double> logits = RandomNormal(random, DType::kF32, Shape{1, 24}, 1.5).values;
  OnEachDevice([&](Device& device) {
    for (const SamplingRow& row : {Row(1, 1, 0), Row(2, 1, 10), Row(2, 0.8f, 0),
                                   MinPRow(2, 1, 0, 0.05f), MinPRow(2, 0.95f, 20, 0.02f)}) {
      const reference::Kept kept = reference::KeptIds(logits, row);
      std::vector<double> counts(logits.size(), 0);
      for (const int32_t id : Draw(device, logits, row, kDraws)) {
        counts[static_cast<size_t>(id)] += 1;
      }
      double statistic = 0;
      double seen = 0;
      for (size_t i = 0; i < kept.ids.size(); ++i) {
        const double expected = kept.probabilities[i] * kDraws;
        const double count = counts[static_cast<size_t>(kept.ids[i])];
        statistic += (count - expected) * (count - expected) / expected;
        seen += count;
      }
      EXPECT_EQ(seen, kDraws);
      const double degrees = static_cast<double>(kept.ids.size()) - 1;
      ASSERT_GE(degrees, 4);
      EXPECT_LT(statistic, degrees + 6 * std::sqrt(2 * degrees));
    }
  });
}

TEST(Sample, DoesNotDependOnTheBatch) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(10);
    const HostTensor logits = RandomNormal(random, DType::kF32, Shape{6, 500}, 2);
    std::vector<SamplingRow> rows(6, Row(0.9f, 0.95f, 50));
    for (size_t i = 0; i < rows.size(); ++i) {
      rows[i].position = i;
    }
    const std::vector<int32_t> whole = Sample(device, logits, rows, 490);
    for (size_t i = 0; i < rows.size(); ++i) {
      const HostTensor row = RowsOf(logits, static_cast<int64_t>(i), 1);
      EXPECT_EQ(Sample(device, row, {rows[i]}, 490), (std::vector<int32_t>{whole[i]}));
    }
  });
}

// Wide rows walk through every step of the partial sorts.
TEST(Sample, TakesWholeVocabularies) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(11);
    const HostTensor logits = RandomNormal(random, DType::kF32, Shape{1, 20000}, 1);
    for (const SamplingRow& row : {Row(1, 0.99f, 0), Row(1, 1, 9999), Row(1, 0.5f, 20000)}) {
      EXPECT_EQ(Sample(device, logits, {row}, 20000),
                (std::vector<int32_t>{reference::Sample(logits.values, row)}));
    }
  });
}

TEST(Sample, NoRowsAreNoWork) {
  OnEachDevice([](Device& device) {
    EXPECT_TRUE(Sample(device, Filled(DType::kF32, Shape{0, 9}, 0), {}, 9).empty());
  });
}

}  // namespace
}  // namespace cohort
