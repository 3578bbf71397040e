#include "kernels/candidate_choice.h"

#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "kernels/probability_mass.h"
#include "tests/kernels/devices.h"
#include "tests/kernels/random_rows.h"
#include "tests/kernels/reference_ops.h"

namespace cohort {
namespace {

// A row of logits, and the borders of the ranks' columns.
struct CutRow {
  std::vector<float> logits;
  std::vector<int64_t> borders;  // from 0 to logits.size()
  int64_t valid_ids = 0;
};

// What the ranks of a group do, one after another on one device.
class CutSampler {
 public:
  CutSampler(Device& device, const CutRow& row) : device_(device), row_(row) {
    for (size_t rank = 0; rank + 1 < row.borders.size(); ++rank) {
      HostTensor columns =
          Filled(DType::kF32, Shape{1, row.borders[rank + 1] - row.borders[rank]}, 0);
      std::copy(row.logits.begin() + row.borders[rank], row.logits.begin() + row.borders[rank + 1],
                columns.values.begin());
      slices_.emplace_back(device, columns, 3);
    }
  }

  struct Token {
    Choice::Kind kind;
    int32_t id;
    float raw;
  };
  Token Sample(const SamplingRow& sampling, const LogitEdits& edits) {
    const CandidateRequest request = RequestFor(sampling, edits, row_.valid_ids);
    const std::vector<std::vector<int32_t>> words = Records(request);
    std::vector<CandidateRecord> records;
    for (const std::vector<int32_t>& record : words) {
      records.emplace_back(record.data());
    }
    const Choice choice = chooser_.Choose(records, sampling, row_.valid_ids);
    switch (choice.kind) {
      case Choice::Kind::kToken:
        return {choice.kind, choice.token, choice.raw};
      case Choice::Kind::kByMass:
        return PickByMass(choice, sampling, edits);
      case Choice::Kind::kWhole:
        return {choice.kind, Whole(sampling, edits), 0};
    }
    return {};
  }

  // The row after its edits, put together again.
  int32_t Whole(const SamplingRow& sampling, const LogitEdits& edits) {
    HostTensor whole = Filled(DType::kF32, Shape{1, static_cast<int64_t>(row_.logits.size())}, 0);
    for (size_t rank = 0; rank < slices_.size(); ++rank) {
      const DeviceTensor out(device_, Poison(DType::kF32, slices_[rank].view().shape));
      device_.ops().EditLogits(slices_[rank].view(), {edits}, row_.borders[rank], out.view());
      const HostTensor part = out.Read();
      std::copy(part.values.begin(), part.values.end(), whole.values.begin() + row_.borders[rank]);
    }
    const DeviceTensor out(device_, Poison(DType::kI32, Shape{1}));
    device_.ops().Sample(DeviceTensor(device_, whole).view(), {sampling}, row_.valid_ids,
                         out.view());
    return static_cast<int32_t>(out.Read().At(0));
  }

 private:
  static std::vector<int32_t> Words(const DeviceTensor& tensor) {
    const HostTensor read = tensor.Read();
    return std::vector<int32_t>(read.values.begin(), read.values.end());
  }

  VocabularySlice Slice(size_t rank) const { return {row_.borders[rank], row_.valid_ids}; }

  std::vector<std::vector<int32_t>> Records(const CandidateRequest& request) {
    std::vector<std::vector<int32_t>> records;
    for (size_t rank = 0; rank < slices_.size(); ++rank) {
      const Shape shape{1, CandidateRecord::Words(request.candidates)};
      const DeviceTensor out(device_, Poison(DType::kI32, shape));
      device_.ops().LocalCandidates(slices_[rank].view(), {request}, Slice(rank), out.view());
      records.push_back(Words(out));
    }
    return records;
  }

  static uint64_t Joined(const std::vector<int32_t>& words) {
    return uint64_t{static_cast<uint32_t>(words[1])} << 32 | static_cast<uint32_t>(words[0]);
  }

  Token PickByMass(const Choice& choice, const SamplingRow& sampling, const LogitEdits& edits) {
    MassRequest request{.row = 0,
                        .edits = edits,
                        .temperature = sampling.temperature,
                        .largest = choice.largest,
                        .lowest = choice.lowest};
    std::vector<uint64_t> masses;
    for (size_t rank = 0; rank < slices_.size(); ++rank) {
      const DeviceTensor out(device_, Poison(DType::kI32, Shape{1, 2}));
      device_.ops().LocalMasses(slices_[rank].view(), {request}, Slice(rank), out.view());
      masses.push_back(Joined(Words(out)));
    }
    const uint64_t total = std::accumulate(masses.begin(), masses.end(), uint64_t{0});
    uint64_t wanted = PartOfMass(total, UniformOf(sampling));
    size_t owner = 0;
    while (masses[owner] <= wanted) {
      wanted -= masses[owner++];
    }
    request.wanted = wanted;
    const DeviceTensor out(device_, Poison(DType::kI32, Shape{1, 2}));
    device_.ops().LocalPick(slices_[owner].view(), {request}, Slice(owner), out.view());
    const std::vector<int32_t> words = Words(out);
    return {choice.kind, words[0], std::bit_cast<float>(words[1])};
  }

  Device& device_;
  const CutRow& row_;
  std::vector<DeviceTensor> slices_;
  CandidateChooser chooser_;
};

CutRow AnyCut(std::mt19937_64& random) {
  const size_t ids = 1 + random() % (random() % 3 == 0 ? 5000 : 300);
  CutRow row{.logits = AnyLogits(random, ids), .borders = {0, static_cast<int64_t>(ids)}};
  for (uint64_t cuts = random() % 4; cuts > 0; --cuts) {
    row.borders.push_back(static_cast<int64_t>(random() % (ids + 1)));  // ranks may have nothing
  }
  std::sort(row.borders.begin(), row.borders.end());
  row.valid_ids = static_cast<int64_t>(random() % 4 == 0 ? random() % (ids + 1) : ids);
  return row;
}

// Pearson's statistic: its mean is the degrees of freedom, its deviation sqrt(2 degrees); six
// deviations are far beyond chance, and the seeds are fixed.
void ExpectFollows(const reference::Kept& kept, const std::vector<int32_t>& drawn) {
  double statistic = 0;
  double seen = 0;
  for (size_t i = 0; i < kept.ids.size(); ++i) {
    const double expected = kept.probabilities[i] * static_cast<double>(drawn.size());
    const double count = static_cast<double>(std::count(drawn.begin(), drawn.end(), kept.ids[i]));
    statistic += (count - expected) * (count - expected) / expected;
    seen += count;
  }
  EXPECT_EQ(seen, static_cast<double>(drawn.size()));
  const double degrees = static_cast<double>(kept.ids.size()) - 1;
  ASSERT_GE(degrees, 4);
  EXPECT_LT(statistic, degrees + 6 * std::sqrt(2 * degrees));
}

TEST(CandidateChoice, EveryParameterFollowsItsLawHoweverTheRowIsCut) {
  auto device = Device::Create(DeviceOptions{});
  ASSERT_TRUE(device.ok()) << device.status();
  std::mt19937_64 random(9);
  const std::vector<double> logits = RandomNormal(random, DType::kF32, Shape{1, 24}, 1.5).values;
  const SamplingRow laws[] = {{.temperature = 1},
                              {.temperature = 3},
                              {.temperature = 2, .top_k = 10},
                              {.temperature = 2, .top_p = 0.8f},
                              {.temperature = 2, .min_p = 0.05f},
                              {.temperature = 2, .top_p = 0.95f, .top_k = 20, .min_p = 0.02f}};
  for (const std::vector<int64_t>& borders :
       {std::vector<int64_t>{0, 24}, {0, 11, 24}, {0, 7, 15, 24}}) {
    const CutRow row{{logits.begin(), logits.end()}, borders, 24};
    CutSampler cut(**device, row);
    for (SamplingRow law : laws) {
      law.seed = 5;
      std::vector<int32_t> drawn;
      for (law.position = 0; law.position < 4000; ++law.position) {
        drawn.push_back(cut.Sample(law, {}).id);
      }
      ExpectFollows(reference::KeptIds(logits, law), drawn);
    }
  }
}

TEST(CandidateChoice, PeakedRowsNeedNothingButTheRecords) {
  auto device = Device::Create(DeviceOptions{});
  ASSERT_TRUE(device.ok()) << device.status();
  std::mt19937_64 random(4);
  const std::vector<double> normal = RandomNormal(random, DType::kF32, Shape{1, 3000}, 3).values;
  const CutRow row{{normal.begin(), normal.end()}, {0, 1000, 2001, 3000}, 3000};
  CutSampler cut(**device, row);
  for (const SamplingRow& sampling :
       {SamplingRow{}, SamplingRow{.temperature = 0.7f, .top_p = 0.8f, .top_k = 20},
        SamplingRow{.temperature = 0.7f, .top_p = 0.8f},
        SamplingRow{.temperature = 0.7f, .min_p = 0.05f}}) {
    EXPECT_EQ(cut.Sample(sampling, {}).kind, Choice::Kind::kToken);
  }
  EXPECT_EQ(cut.Sample({.temperature = 1}, {}).kind, Choice::Kind::kByMass);
  EXPECT_EQ(cut.Sample({.temperature = 9, .top_p = 0.99f}, {}).kind, Choice::Kind::kWhole);
}

TEST(CandidateChoice, ACutRowGivesTheTokenOfTheWholeRow) {
  auto device = Device::Create(DeviceOptions{});
  ASSERT_TRUE(device.ok()) << device.status();
  constexpr uint64_t kSeed = 20240607;
  std::mt19937_64 random(kSeed);
  int seen[3] = {};
  for (int i = 0; i < 700; ++i) {
    const CutRow row = AnyCut(random);
    OwnedEdits edits;
    if (random() % 2 == 0) {
      FillEdits(random, 0, static_cast<int32_t>(row.logits.size()), &edits);
    }
    CutSampler cut(**device, row);
    for (int sample = 0; sample < 4; ++sample) {
      const SamplingRow sampling = AnySampling(random);
      const CutSampler::Token token = cut.Sample(sampling, edits.view);
      ASSERT_EQ(token.id, cut.Whole(sampling, edits.view))
          << "seed " << kSeed << ", row " << i << ": temperature " << sampling.temperature
          << ", top_p " << sampling.top_p << ", top_k " << sampling.top_k << ", min_p "
          << sampling.min_p;
      ++seen[static_cast<int>(token.kind)];
      if (token.id >= 0 && token.kind != Choice::Kind::kWhole) {
        ASSERT_EQ(token.raw, row.logits[static_cast<size_t>(token.id)]);
      }
    }
  }
  for (const int count : seen) {
    EXPECT_GT(count, 50);
  }
}

}  // namespace
}  // namespace cohort
