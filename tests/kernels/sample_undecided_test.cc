// Rows that records do not decide, chosen in the middle of a recorded step.
#include <limits>
#include <random>
#include <vector>

#include "tests/kernels/devices.h"
#include "tests/kernels/random_rows.h"

namespace cohort {
namespace {

constexpr int64_t kSampledColumns = 700;
constexpr int64_t kSampledIds = 650;

// Flat and peaked rows; one holds a NaN.
HostTensor FlatAndPeakedRows(int64_t rows) {
  std::mt19937_64 random(3);
  HostTensor logits = RandomNormal(random, DType::kF32, Shape{rows, kSampledColumns});
  for (int64_t id = 0; id < kSampledColumns; ++id) {
    logits.At(1, id) = RoundTo(logits.At(1, id) * 9, DType::kF32);
  }
  logits.At(rows - 1, 5) = std::numeric_limits<double>::quiet_NaN();
  return logits;
}

std::vector<SamplingRow> UndecidedSettings() {
  std::vector<SamplingRow> rows = {{.temperature = 1, .top_p = 0.9f},
                                   {.temperature = 0.7f, .top_p = 0.99f, .min_p = 0.001f},
                                   {.temperature = 2, .top_p = 0.5f},
                                   {.temperature = 1, .top_k = 300},
                                   {.temperature = 1.5f, .top_p = 0.999f, .top_k = 400},
                                   {},
                                   {.temperature = 1, .top_p = 0.9f}};
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].seed = 11 + i;
    rows[i].position = 100 + i;
  }
  return rows;
}

TEST(SampleUndecided, ChoosesAsSampleDoesAndLeavesOtherRowsAlone) {
  OnEachDevice([](Device& device) {
    const std::vector<SamplingRow> rows = UndecidedSettings();
    const int64_t count = static_cast<int64_t>(rows.size());
    const HostTensor logits = FlatAndPeakedRows(count);
    HostTensor words = Filled(DType::kI32, Shape{count, kSamplingWords}, 0);
    HostTensor given = Filled(DType::kI32, Shape{count}, kUndecided);
    for (int64_t i = 0; i < count; ++i) {
      int32_t of_row[kSamplingWords];
      WriteSamplingRow(rows[static_cast<size_t>(i)], of_row);
      for (int64_t word = 0; word < kSamplingWords; ++word) {
        words.At(i, word) = of_row[word];
      }
    }
    given.values[2] = 17;
    given.values[5] = kNoToken;
    const DeviceTensor on_device(device, logits, 3);
    const DeviceTensor sampling(device, words);
    const DeviceTensor tokens(device, given);
    const DeviceTensor sampled(device, Poison(DType::kI32, Shape{count}));
    device.ops().Sample(on_device.view(), rows, kSampledIds, sampled.view());
    device.ops().SampleUndecided(on_device.view(), sampling.view(), kSampledIds, tokens.view());
    HostTensor expected = sampled.Read();
    expected.values[2] = 17;
    expected.values[5] = kNoToken;
    ExpectSame(tokens.Read(), expected);
    EXPECT_EQ(expected.values.back(), kNoToken);
  });
}

}  // namespace
}  // namespace cohort
