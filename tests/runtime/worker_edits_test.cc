#include "runtime/worker_edits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

namespace cohort {

bool operator==(const LogitEdit& a, const LogitEdit& b) {
  return a.id == b.id && a.is_repeated == b.is_repeated && a.bias == b.bias &&
         a.penalty == b.penalty;
}
void PrintTo(const LogitEdit& edit, std::ostream* out) {
  *out << edit.id << (edit.is_repeated ? " repeated" : "") << " + " << edit.bias << " - "
       << edit.penalty;
}

namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr float kNever = -std::numeric_limits<float>::infinity();

// By ascending id, of the columns of ids [10, 20).
std::vector<LogitEdit> EditsOf(const SequenceView& sequence) {
  WorkerEdits maker({10, 20});
  std::vector<LogitEdit> first;
  std::vector<LogitEdit> edits;
  maker.Make(sequence, &first);
  maker.Make(sequence, &edits);
  EXPECT_EQ(first, edits) << "a call leaves something behind";
  std::sort(edits.begin(), edits.end(),
            [](const LogitEdit& a, const LogitEdit& b) { return a.id < b.id; });
  return edits;
}

const std::vector<int32_t> kIds = {11, 5, 12, 25, 11, 13, 13, 11, 13};
constexpr size_t kPrompt = 5;

TEST(WorkerEdits, RepetitionIsOfPromptAndCompletionOnOwnColumns) {
  const SamplingParameters sampling{.repetition_penalty = 1.5f};
  EXPECT_THAT(EditsOf({&sampling, kIds, kPrompt, {}}),
              ElementsAre(LogitEdit{11, true}, LogitEdit{12, true}, LogitEdit{13, true}));
}

TEST(WorkerEdits, PresenceAndFrequencyAreOfTheCompletion) {
  const SamplingParameters sampling{.presence_penalty = 0.5f, .frequency_penalty = 0.25f};
  EXPECT_THAT(EditsOf({&sampling, kIds, kPrompt, {}}),
              ElementsAre(LogitEdit{11, false, 0, 0.75f}, LogitEdit{13, false, 0, 1.25f}));
  EXPECT_THAT(EditsOf({&sampling, kIds, kIds.size() + 3, {}}), IsEmpty());
}

TEST(WorkerEdits, WhatIsForbiddenStaysSoWhateverItsBias) {
  const SamplingParameters sampling{.logit_bias = {{9, 1}, {12, 2}, {14, 3}}};
  const std::vector<int32_t> held_back = {14, 19, 20};
  EXPECT_THAT(EditsOf({&sampling, {}, 0, held_back}),
              ElementsAre(LogitEdit{12, false, 2}, LogitEdit{14, false, kNever},
                          LogitEdit{19, false, kNever}));
}

TEST(WorkerEdits, ABadWordForbidsItsLastIdAfterTheOthers) {
  const SamplingParameters sampling{
      .bad_words = {{15}, {11, 13, 16}, {11, 12, 17}, std::vector<int32_t>(12, 13)}};
  EXPECT_THAT(EditsOf({&sampling, kIds, kPrompt, {}}),
              ElementsAre(LogitEdit{15, false, kNever}, LogitEdit{16, false, kNever}));
}

TEST(WorkerEdits, NothingAskedForIsEmpty) {
  const SamplingParameters sampling;
  WorkerEdits maker({0, 5});
  std::vector<LogitEdit> edits;
  EXPECT_TRUE(maker.Make({&sampling, {}, 0, {}}, &edits).empty());
  const SamplingParameters allowed{.allowed_token_ids = {9}};
  EXPECT_FALSE(maker.Make({&allowed, {}, 0, {}}, &edits).empty());
}

}  // namespace
}  // namespace cohort
