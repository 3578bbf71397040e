// The verbs of sampling give the same bits on every device as on the CPU.
#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>

#include "kernels/candidate_choice.h"
#include "kernels/probability_mass.h"
#include "tests/kernels/devices.h"
#include "tests/kernels/random_rows.h"

namespace cohort {
namespace {

std::vector<int32_t> Words(const HostTensor& tensor) {
  return std::vector<int32_t>(tensor.values.begin(), tensor.values.end());
}

std::unique_ptr<Device> Cpu() {
  absl::StatusOr<std::unique_ptr<Device>> device = Device::Create(DeviceOptions{});
  CHECK_OK(device.status());
  return *std::move(device);
}

// Rows of logits of a rank, most of them small and some of several blocks.
struct Rows {
  HostTensor logits;
  VocabularySlice slice;
};

Rows AnyRows(std::mt19937_64& random, int64_t rows) {
  const int64_t columns = 1 + static_cast<int64_t>(random() % (random() % 4 == 0   ? 9000
                                                               : random() % 2 == 0 ? 3
                                                                                   : 300));
  Rows any;
  any.logits = Filled(DType::kF32, Shape{rows, columns}, 0);
  for (int64_t row = 0; row < rows; ++row) {
    const std::vector<float> logits = AnyLogits(random, static_cast<size_t>(columns));
    std::copy(logits.begin(), logits.end(), any.logits.values.begin() + row * columns);
  }
  any.slice.first_id = static_cast<int64_t>(random() % 3 * 1000);
  any.slice.valid_ids = any.slice.first_id + columns;
  if (random() % 3 == 0) {
    any.slice.valid_ids -= static_cast<int64_t>(random() % static_cast<uint64_t>(columns + 1));
  }
  return any;
}

// One per row; its edits reach beyond the columns on both sides.
std::vector<OwnedEdits> AnyEdits(std::mt19937_64& random, const Rows& rows) {
  std::vector<OwnedEdits> edits(static_cast<size_t>(rows.logits.rows()));
  for (OwnedEdits& of_row : edits) {
    if (random() % 2 == 0) {
      const int64_t first = std::max<int64_t>(rows.slice.first_id - 4, 0);
      FillEdits(random, static_cast<int32_t>(first),
                static_cast<int32_t>(rows.logits.columns() + 8), &of_row);
    }
  }
  return edits;
}

std::vector<CandidateRequest> AnyRequests(std::mt19937_64& random, const Rows& rows,
                                          const std::vector<OwnedEdits>& edits) {
  std::vector<CandidateRequest> requests;
  for (const OwnedEdits& of_row : edits) {
    requests.push_back({.edits = of_row.view,
                        .candidates = OneOf(random, {0, 1, 1, 2, 20, 127, 128}),
                        .temperature = OneOf(random, {0.0f, 0.7f, 1.0f, 30.0f}),
                        .target = static_cast<int32_t>(rows.slice.first_id - 2) +
                                  static_cast<int32_t>(random() % static_cast<uint64_t>(
                                                                      rows.logits.columns() + 4))});
  }
  return requests;
}

// What lies behind the last candidate of a record means nothing.
HostTensor OnlyWhatIsTold(HostTensor records) {
  for (int64_t row = 0; row < records.rows(); ++row) {
    const int64_t end = CandidateRecord::Words(static_cast<int32_t>(records.At(row, 1)));
    for (int64_t word = end; word < records.columns(); ++word) {
      records.At(row, word) = 0;
    }
  }
  return records;
}

HostTensor LocalCandidates(Device& device, const Rows& rows,
                           const std::vector<CandidateRequest>& requests) {
  const DeviceTensor logits(device, rows.logits, static_cast<int64_t>(requests.size() % 4));
  int64_t words = 0;
  for (const CandidateRequest& request : requests) {
    words = std::max(words, CandidateRecord::Words(request.candidates));
  }
  const DeviceTensor out(device, Poison(DType::kI32, Shape{rows.logits.rows(), words}), 2);
  device.ops().LocalCandidates(logits.view(), requests, rows.slice, out.view());
  const HostTensor records = out.Read();
  ExpectSame(logits.Read(), rows.logits);
  return OnlyWhatIsTold(records);
}

TEST(SamplingTwins, LocalCandidates) {
  const std::unique_ptr<Device> cpu = Cpu();
  OnEachDevice([&](Device& device) {
    std::mt19937_64 random(21);
    for (int i = 0; i < 40; ++i) {
      SCOPED_TRACE(i);
      const Rows rows = AnyRows(random, i == 7 ? 35 : 1 + i % 4);
      const std::vector<OwnedEdits> edits = AnyEdits(random, rows);
      const std::vector<CandidateRequest> requests = AnyRequests(random, rows, edits);
      ASSERT_EQ(LocalCandidates(device, rows, requests).values,
                LocalCandidates(*cpu, rows, requests).values);
    }
  });
}

HostTensor EditLogits(Device& device, const Rows& rows, const std::vector<LogitEdits>& edits) {
  const DeviceTensor out(device, Poison(DType::kF32, rows.logits.shape), 1);
  device.ops().EditLogits(DeviceTensor(device, rows.logits, 2).view(), edits, rows.slice.first_id,
                          out.view());
  return out.Read();
}

TEST(SamplingTwins, EditLogits) {
  const std::unique_ptr<Device> cpu = Cpu();
  OnEachDevice([&](Device& device) {
    std::mt19937_64 random(22);
    for (int i = 0; i < 20; ++i) {
      SCOPED_TRACE(i);
      const Rows rows = AnyRows(random, 1 + i % 4);
      std::vector<LogitEdits> edits;
      const std::vector<OwnedEdits> owned = AnyEdits(random, rows);
      for (const OwnedEdits& of_row : owned) {
        edits.push_back(of_row.view);
      }
      ExpectSame(EditLogits(device, rows, edits), EditLogits(*cpu, rows, edits));
    }
  });
}

std::vector<int32_t> Masses(Device& device, const Rows& rows,
                            const std::vector<MassRequest>& requests, bool is_pick) {
  const DeviceTensor logits(device, rows.logits, 1);
  const DeviceTensor out(device,
                         Poison(DType::kI32, Shape{static_cast<int64_t>(requests.size()), 2}));
  if (is_pick) {
    device.ops().LocalPick(logits.view(), requests, rows.slice, out.view());
  } else {
    device.ops().LocalMasses(logits.view(), requests, rows.slice, out.view());
  }
  const HostTensor words = out.Read();
  ExpectSame(logits.Read(), rows.logits);
  return Words(words);
}

// Of the rows that hold something to choose.
std::vector<MassRequest> AnyMassRequests(std::mt19937_64& random, const Rows& rows,
                                         const std::vector<OwnedEdits>& edits, Device& cpu) {
  std::vector<CandidateRequest> first;
  for (const OwnedEdits& of_row : edits) {
    first.push_back({.edits = of_row.view, .candidates = 1});
  }
  const std::vector<int32_t> words = Words(LocalCandidates(cpu, rows, first));
  std::vector<MassRequest> requests;
  for (size_t row = 0; row < edits.size(); ++row) {
    const CandidateRecord record(&words[row * 8]);
    if (record.count() == 1) {
      const float largest = record.candidate(0).logit;
      requests.push_back({.row = static_cast<int32_t>(row),
                          .edits = edits[row].view,
                          .temperature = OneOf(random, {0.01f, 1.0f, 40.0f}),
                          .largest = largest + OneOf(random, {0.0f, 100.0f}),
                          .lowest = OneOf(random, {-HUGE_VALF, largest - 1})});
    }
  }
  return requests;
}

TEST(SamplingTwins, LocalMassesAndPicks) {
  const std::unique_ptr<Device> cpu = Cpu();
  OnEachDevice([&](Device& device) {
    std::mt19937_64 random(23);
    for (int i = 0; i < 30; ++i) {
      SCOPED_TRACE(i);
      Rows rows = AnyRows(random, i == 5 ? 34 : 1 + i % 3);
      std::replace_if(
          rows.logits.values.begin(), rows.logits.values.end(),
          [](double logit) { return std::isnan(logit); }, 1.0);
      const std::vector<OwnedEdits> edits = AnyEdits(random, rows);
      std::vector<MassRequest> requests = AnyMassRequests(random, rows, edits, *cpu);
      const std::vector<int32_t> masses = Masses(*cpu, rows, requests, false);
      ASSERT_EQ(Masses(device, rows, requests, false), masses);
      for (size_t k = 0; k < requests.size(); ++k) {
        const uint64_t mass = ReadWords(&masses[2 * k]);
        requests[k].wanted = mass == 0 ? MassRequest::kOtherRank
                                       : OneOf(random, {uint64_t{0}, mass - 1, random() % mass});
      }
      ASSERT_EQ(Masses(device, rows, requests, true), Masses(*cpu, rows, requests, true));
    }
  });
}

HostTensor SamplingWords(const std::vector<SamplingRow>& rows) {
  std::vector<int32_t> words(rows.size() * kSamplingWords);
  for (size_t i = 0; i < rows.size(); ++i) {
    WriteSamplingRow(rows[i], &words[i * kSamplingWords]);
  }
  HostTensor tensor = Indices(words);
  tensor.shape = Shape{static_cast<int64_t>(rows.size()), kSamplingWords};
  return tensor;
}

HostTensor RecordedCandidates(Device& device, const Rows& rows, const HostTensor& sampling,
                              int32_t candidates) {
  const DeviceTensor logits(device, rows.logits);
  const DeviceTensor out(
      device, Poison(DType::kI32, Shape{rows.logits.rows(), CandidateRecord::Words(candidates)}),
      3);
  device.ops().RecordedCandidates(logits.view(), DeviceTensor(device, sampling).view(), candidates,
                                  rows.slice, out.view());
  ExpectSame(logits.Read(), rows.logits);
  return OnlyWhatIsTold(out.Read());
}

TEST(SamplingTwins, RecordedCandidatesAreThoseOfTheRowsTemperature) {
  const std::unique_ptr<Device> cpu = Cpu();
  OnEachDevice([&](Device& device) {
    std::mt19937_64 random(24);
    for (int i = 0; i < 20; ++i) {
      SCOPED_TRACE(i);
      const Rows rows = AnyRows(random, i == 3 ? 40 : 1 + i % 4);
      const std::vector<SamplingRow> settings = AnySettings(random, rows.logits.rows());
      const int32_t candidates = OneOf(random, {1, 7, 128});
      std::vector<CandidateRequest> requests;
      for (const SamplingRow& row : settings) {
        requests.push_back({.candidates = candidates, .temperature = row.temperature});
      }
      ASSERT_EQ(RecordedCandidates(device, rows, SamplingWords(settings), candidates).values,
                LocalCandidates(*cpu, rows, requests).values);
    }
  });
}

// The columns `begin` to `end` of whole rows.
Rows Part(const Rows& whole, int64_t begin, int64_t end) {
  Rows part{.logits = Filled(DType::kF32, Shape{whole.logits.rows(), end - begin}, 0),
            .slice = {.first_id = begin, .valid_ids = whole.slice.valid_ids}};
  for (int64_t row = 0; row < whole.logits.rows(); ++row) {
    for (int64_t column = begin; column < end; ++column) {
      part.logits.At(row, column - begin) = whole.logits.At(row, column);
    }
  }
  return part;
}

// One to five ranks, some of them without columns.
std::vector<int64_t> AnyBorders(std::mt19937_64& random, int64_t columns) {
  std::vector<int64_t> borders{0, columns};
  for (uint64_t cuts = random() % 5; cuts > 0; --cuts) {
    borders.push_back(static_cast<int64_t>(random() % static_cast<uint64_t>(columns + 1)));
  }
  std::sort(borders.begin(), borders.end());
  return borders;
}

// The records of all ranks of a row that is cut at `borders`, [rows, ranks * words].
HostTensor GatheredRecords(Device& cpu, const Rows& rows, const std::vector<int64_t>& borders,
                           const HostTensor& sampling, int32_t candidates) {
  const int64_t ranks = static_cast<int64_t>(borders.size()) - 1;
  const int64_t words = CandidateRecord::Words(candidates);
  HostTensor gathered = Filled(DType::kI32, Shape{rows.logits.rows(), ranks * words}, 0);
  for (int64_t rank = 0; rank < ranks; ++rank) {
    const int64_t begin = borders[static_cast<size_t>(rank)];
    const Rows part = Part(rows, begin, borders[static_cast<size_t>(rank) + 1]);
    const HostTensor records = RecordedCandidates(cpu, part, sampling, candidates);
    for (int64_t row = 0; row < records.rows(); ++row) {
      for (int64_t word = 0; word < words; ++word) {
        gathered.At(row, rank * words + word) = records.At(row, word);
      }
    }
  }
  return gathered;
}

std::vector<int32_t> ChosenOnTheHost(const HostTensor& gathered, int64_t ranks,
                                     const std::vector<SamplingRow>& settings, int64_t valid_ids,
                                     int32_t candidates) {
  const std::vector<int32_t> words = Words(gathered);
  CandidateChooser chooser;
  std::vector<int32_t> tokens;
  for (size_t row = 0; row < settings.size(); ++row) {
    std::vector<CandidateRecord> records;
    const size_t step = words.size() / settings.size() / static_cast<size_t>(ranks);
    for (size_t rank = 0; rank < static_cast<size_t>(ranks); ++rank) {
      records.emplace_back(&words[(row * static_cast<size_t>(ranks) + rank) * step]);
    }
    const Choice choice = chooser.Choose(records, settings[row], valid_ids, candidates);
    tokens.push_back(choice.kind == Choice::Kind::kToken ? choice.token : kUndecided);
  }
  return tokens;
}

std::vector<int32_t> ChooseRecorded(Device& device, const HostTensor& gathered, int64_t ranks,
                                    const std::vector<SamplingRow>& settings, int64_t valid_ids) {
  const DeviceTensor tokens(device, Poison(DType::kI32, Shape{gathered.rows()}));
  device.ops().ChooseRecorded(DeviceTensor(device, gathered).view(), ranks,
                              DeviceTensor(device, SamplingWords(settings)).view(), valid_ids,
                              tokens.view());
  return Words(tokens.Read());
}

TEST(SamplingTwins, ChooseRecordedIsTheHostsChoice) {
  const std::unique_ptr<Device> cpu = Cpu();
  OnEachDevice([&](Device& device) {
    std::mt19937_64 random(25);
    int tokens = 0;
    int undecided = 0;
    int none = 0;
    for (int i = 0; i < 150; ++i) {
      SCOPED_TRACE(i);
      Rows rows = AnyRows(random, 1 + i % 5);
      rows.slice.valid_ids -= rows.slice.first_id;
      const std::vector<int64_t> borders = AnyBorders(random, rows.logits.columns());
      const int64_t ranks = static_cast<int64_t>(borders.size()) - 1;
      const std::vector<SamplingRow> settings = AnySettings(random, rows.logits.rows());
      const int32_t candidates = OneOf(random, {1, 20, 128, 128});
      const HostTensor gathered =
          GatheredRecords(*cpu, rows, borders, SamplingWords(settings), candidates);
      const std::vector<int32_t> expected =
          ChosenOnTheHost(gathered, ranks, settings, rows.slice.valid_ids, candidates);
      ASSERT_EQ(ChooseRecorded(device, gathered, ranks, settings, rows.slice.valid_ids), expected);
      for (const int32_t token : expected) {
        ++(token >= 0 ? tokens : token == kUndecided ? undecided : none);
      }
    }
    EXPECT_GT(tokens, 100);
    EXPECT_GT(undecided, 40);
    EXPECT_GT(none, 10);
  });
}

std::vector<int32_t> Sample(Device& device, const Rows& rows,
                            const std::vector<SamplingRow>& settings, int64_t valid_ids) {
  const DeviceTensor tokens(device, Poison(DType::kI32, Shape{rows.logits.rows()}));
  device.ops().Sample(DeviceTensor(device, rows.logits, 1).view(), settings, valid_ids,
                      tokens.view());
  return Words(tokens.Read());
}

// What follows where ChooseRecorded left rows undecided, on the ranks of a group in turn.
class RecordedByMass {
 public:
  RecordedByMass(Device& device, const Rows& rows, const std::vector<int64_t>& borders,
                 const HostTensor& gathered, const std::vector<SamplingRow>& settings,
                 const std::vector<int32_t>& tokens)
      : device_(device),
        borders_(borders),
        valid_ids_(rows.slice.valid_ids),
        gathered_(device, gathered),
        sampling_(device, SamplingWords(settings)),
        tokens_(device, Indices(tokens)) {
    for (size_t rank = 0; rank + 1 < borders.size(); ++rank) {
      parts_.emplace_back(device, Part(rows, borders[rank], borders[rank + 1]).logits, 1);
    }
  }

  HostTensor Masses() {
    return OfAllRanks([&](int64_t rank, const TensorView& logits, const TensorView& out) {
      device_.ops().RecordedMasses(logits, RowsOfStep(), SliceOf(rank), out);
    });
  }
  HostTensor Picks(const HostTensor& masses) {
    const DeviceTensor on_device(device_, masses);
    return OfAllRanks([&](int64_t rank, const TensorView& logits, const TensorView& out) {
      device_.ops().RecordedPicks(logits, RowsOfStep(), on_device.view(), rank, SliceOf(rank), out);
    });
  }
  std::vector<int32_t> Tokens(const HostTensor& picks) {
    device_.ops().TakePicks(DeviceTensor(device_, picks).view(), tokens_.view());
    return Words(tokens_.Read());
  }

 private:
  int64_t ranks() const { return static_cast<int64_t>(parts_.size()); }
  VocabularySlice SliceOf(int64_t rank) const {
    return {.first_id = borders_[static_cast<size_t>(rank)], .valid_ids = valid_ids_};
  }
  RecordedRows RowsOfStep() const {
    return {gathered_.view(), ranks(), sampling_.view(), tokens_.view()};
  }
  template <class Verb>
  HostTensor OfAllRanks(Verb verb) {
    const int64_t rows = tokens_.view().rows();
    HostTensor all = Filled(DType::kI32, Shape{rows, 2 * ranks()}, 0);
    for (int64_t rank = 0; rank < ranks(); ++rank) {
      const DeviceTensor out(device_, Poison(DType::kI32, Shape{rows, 2}), 1);
      verb(rank, parts_[static_cast<size_t>(rank)].view(), out.view());
      const HostTensor words = out.Read();
      for (int64_t row = 0; row < rows; ++row) {
        all.At(row, 2 * rank) = words.At(row, 0);
        all.At(row, 2 * rank + 1) = words.At(row, 1);
      }
    }
    return all;
  }

  Device& device_;
  const std::vector<int64_t>& borders_;
  int64_t valid_ids_;
  DeviceTensor gathered_;
  DeviceTensor sampling_;
  DeviceTensor tokens_;
  std::vector<DeviceTensor> parts_;
};

TEST(SamplingTwins, RowsByMassGetTheTokenOfTheWholeRow) {
  const std::unique_ptr<Device> cpu = Cpu();
  OnEachDevice([&](Device& device) {
    std::mt19937_64 random(28);
    int by_mass = 0;
    for (int i = 0; i < 60; ++i) {
      SCOPED_TRACE(i);
      Rows rows = AnyRows(random, i == 9 ? 33 : 1 + i % 4);
      rows.slice.valid_ids -= rows.slice.first_id;
      const std::vector<int64_t> borders = AnyBorders(random, rows.logits.columns());
      const int64_t ranks = static_cast<int64_t>(borders.size()) - 1;
      std::vector<SamplingRow> settings = AnySettings(random, rows.logits.rows());
      for (size_t row = 0; row < settings.size(); row += 2) {
        settings[row].top_k = 0;
        settings[row].top_p = 1;
      }
      const HostTensor gathered =
          GatheredRecords(*cpu, rows, borders, SamplingWords(settings), OneOf(random, {1, 128}));
      const std::vector<int32_t> chosen =
          ChooseRecorded(*cpu, gathered, ranks, settings, rows.slice.valid_ids);
      RecordedByMass step(device, rows, borders, gathered, settings, chosen);
      RecordedByMass expected(*cpu, rows, borders, gathered, settings, chosen);
      const HostTensor masses = step.Masses();
      ASSERT_EQ(masses.values, expected.Masses().values);
      const HostTensor picks = step.Picks(masses);
      ASSERT_EQ(picks.values, expected.Picks(masses).values);
      const std::vector<int32_t> tokens = step.Tokens(picks);
      const std::vector<int32_t> whole = Sample(*cpu, rows, settings, rows.slice.valid_ids);
      for (size_t row = 0; row < settings.size(); ++row) {
        const bool is_by_mass =
            chosen[row] == kUndecided && IsByMass(settings[row], rows.slice.valid_ids);
        ASSERT_EQ(tokens[row], is_by_mass ? whole[row] : chosen[row]) << row;
        by_mass += is_by_mass ? 1 : 0;
      }
    }
    EXPECT_GT(by_mass, 30);
  });
}

TEST(SamplingTwins, Sample) {
  const std::unique_ptr<Device> cpu = Cpu();
  OnEachDevice([&](Device& device) {
    std::mt19937_64 random(26);
    for (int i = 0; i < 60; ++i) {
      SCOPED_TRACE(i);
      const Rows rows = AnyRows(random, i == 5 ? 70 : 1 + i % 4);
      const std::vector<SamplingRow> settings = AnySettings(random, rows.logits.rows());
      const int64_t valid_ids = rows.slice.valid_ids - rows.slice.first_id;
      ASSERT_EQ(Sample(device, rows, settings, valid_ids), Sample(*cpu, rows, settings, valid_ids));
    }
  });
}

// A model's vocabulary: many blocks, whose columns no power of two divides.
TEST(SamplingTwins, WholeVocabularies) {
  const std::unique_ptr<Device> cpu = Cpu();
  std::mt19937_64 random(27);
  const Rows rows{.logits = RandomNormal(random, DType::kF32, Shape{1, 151936}, 2),
                  .slice = {.first_id = 0, .valid_ids = 151665}};
  const SamplingRow flat{.temperature = 1, .top_p = 0.9f, .seed = 4};
  const HostTensor sampling = SamplingWords({flat});
  const HostTensor records = RecordedCandidates(*cpu, rows, sampling, 128);
  const std::vector<int32_t> words = Words(records);
  MassRequest request{.largest = CandidateRecord(words.data()).candidate(0).logit};
  const std::vector<int32_t> mass = Masses(*cpu, rows, {request}, false);
  request.wanted = ReadWords(mass.data()) / 3 * 2;
  OnEachDevice([&](Device& device) {
    EXPECT_EQ(RecordedCandidates(device, rows, sampling, 128).values, records.values);
    EXPECT_EQ(Masses(device, rows, {request}, false), mass);
    EXPECT_EQ(Masses(device, rows, {request}, true), Masses(*cpu, rows, {request}, true));
    EXPECT_EQ(Sample(device, rows, {flat}, 151665), Sample(*cpu, rows, {flat}, 151665));
    const SamplingRow peaked{.temperature = 0.1f, .top_p = 0.9f, .seed = 4};
    const HostTensor peaked_records = RecordedCandidates(*cpu, rows, SamplingWords({peaked}), 128);
    const std::vector<int32_t> tokens = ChooseRecorded(device, peaked_records, 1, {peaked}, 151665);
    EXPECT_EQ(tokens, Sample(*cpu, rows, {peaked}, 151665));
  });
}

}  // namespace
}  // namespace cohort
