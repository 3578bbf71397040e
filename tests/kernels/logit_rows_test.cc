#include "kernels/cpu/logit_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace cohort {
namespace {

using ::testing::ElementsAre;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(LogitRows, TheLargestIsFoundAtEveryLengthAndPlace) {
  RowScratch scratch;
  for (const size_t columns : {1u, 7u, 8u, 255u, 256u, 257u, 1000u}) {
    for (const size_t place : {size_t{0}, columns / 2, columns - 1}) {
      std::vector<float> logits(columns, -3);
      logits[place] = 4;
      LargestLogit found = FindLargest(logits, &scratch);
      EXPECT_EQ(found.logit, 4) << columns << ", " << place;
      EXPECT_TRUE(found.has_finite && !found.has_nan);
      logits[place] = kNan;
      EXPECT_TRUE(FindLargest(logits, &scratch).has_nan) << columns << ", " << place;
      std::fill(logits.begin(), logits.end(), -kInfinity);
      EXPECT_FALSE(FindLargest(logits, &scratch).has_finite);
      logits[place] = kInfinity;
      found = FindLargest(logits, &scratch);
      EXPECT_EQ(found.logit, kInfinity);
      EXPECT_FALSE(found.has_finite || found.has_nan);
    }
  }
}

// Against a sort of the whole row; few distinct logits make ties at every border.
TEST(LogitRows, TheLikeliestAreThoseOfASortedRow) {
  std::mt19937_64 random(6);
  RowScratch scratch;
  for (int i = 0; i < 300; ++i) {
    std::vector<float> logits(1 + random() % 3000);
    const uint64_t values = 1 + random() % 50;
    std::vector<Candidate> sorted;
    for (size_t id = 0; id < logits.size(); ++id) {
      const uint64_t value = random() % values;
      logits[id] = value == 0 ? -kInfinity : static_cast<float>(value);
      if (value > 0) {
        sorted.push_back({static_cast<int32_t>(id), logits[id], logits[id], 0});
      }
    }
    std::sort(sorted.begin(), sorted.end(), Likelier);
    const size_t count = 1 + random() % 200;
    sorted.resize(std::min(count, sorted.size()));
    FindLargest(logits, &scratch);
    KeepLikeliest(logits, count, &scratch);
    std::sort(scratch.kept.begin(), scratch.kept.end(), Likelier);
    ASSERT_EQ(scratch.kept.size(), sorted.size());
    for (size_t k = 0; k < sorted.size(); ++k) {
      ASSERT_EQ(scratch.kept[k].id, sorted[k].id) << "row " << i;
    }
  }
}

TEST(LogitRows, EditsActInOrderAndAreUndone) {
  const std::vector<float> before = {2, -2, 1, 0.1f, 5, 7};
  const std::vector<LogitEdit> ids = {
      {.id = 12, .is_repeated = true, .bias = 1, .penalty = 0.25f},
      {.id = 11, .is_repeated = true},
      {.id = 14, .bias = -kInfinity},
      {.id = 9, .bias = 100},   // another rank's
      {.id = 16, .bias = 100},  // not valid
  };
  const LogitEdits edits{.ids = ids, .repetition_penalty = 2};
  std::vector<float> logits = before;
  RowScratch scratch;
  {
    const EditedRow row(absl::MakeSpan(logits), edits, {.first_id = 10, .valid_ids = 15}, &scratch);
    EXPECT_THAT(row.logits(), ElementsAre(2, -4, 0.75f, 0.1f, -kInfinity));
    EXPECT_EQ(row.id(3), 13);
  }
  EXPECT_EQ(logits, before);
}

TEST(LogitRows, OnlyAllowedIdsAreLeft) {
  std::vector<float> logits = {2, -2, 1, 3};
  const std::vector<int32_t> allowed = {5, 11, 13, 14};
  const LogitEdit bias{.id = 13, .bias = 1};
  const LogitEdits edits{.ids = {&bias, 1}, .only_allowed = true, .allowed = allowed};
  RowScratch scratch;
  const EditedRow row(absl::MakeSpan(logits), edits, {.first_id = 10, .valid_ids = 99}, &scratch);
  EXPECT_THAT(row.logits(), ElementsAre(-2, 4));
  EXPECT_EQ(row.id(1), 13);
  std::vector<float> copied(4);
  const std::vector<float> untouched = {2, -2, 1, 3};
  CopyEdited(untouched, edits, 10, absl::MakeSpan(copied));
  EXPECT_THAT(copied, ElementsAre(-kInfinity, -2, -kInfinity, 4));
}

TEST(LogitRows, ARecordTellsCandidatesTargetAndSum) {
  std::vector<float> logits = {1, -kInfinity, 3, 3};
  const LogitEdit bias{.id = 20, .bias = 2.5f};
  const CandidateRequest request{
      .edits = {.ids = {&bias, 1}}, .candidates = 4, .temperature = 1, .target = 22};
  std::vector<int32_t> words(static_cast<size_t>(CandidateRecord::Words(4)), -7);
  RowScratch scratch;
  Summarise(absl::MakeSpan(logits), request, {.first_id = 20, .valid_ids = 24}, &scratch,
            words.data());
  const CandidateRecord record(words.data());
  EXPECT_TRUE(record.has_finite() && record.has_target() && !record.has_nan());
  EXPECT_EQ(record.target(), 3);
  ASSERT_EQ(record.count(), 3);  // the fourth has no probability
  EXPECT_EQ(record.candidate(0).id, 20);
  EXPECT_EQ(record.candidate(0).logit, 3.5f);
  EXPECT_EQ(record.candidate(0).raw, 1);
  EXPECT_EQ(record.candidate(1).id, 22);
  EXPECT_EQ(record.candidate(2).id, 23);
  const double sum = (1 + 2 * std::exp(-0.5)) * 0x1p44;
  EXPECT_NEAR(static_cast<double>(record.mass()), sum, 3 + 0x1p-36 * sum);
}

}  // namespace
}  // namespace cohort
