#include "runtime/step_buckets.h"

#include <gtest/gtest.h>

#include <vector>

namespace cohort {
namespace {

TEST(StepBuckets, EndAtTheLargestStep) {
  EXPECT_EQ(StepBuckets(1, false).sizes(), (std::vector<int64_t>{1}));
  EXPECT_EQ(StepBuckets(5, false).sizes(), (std::vector<int64_t>{1, 2, 4, 5}));
  EXPECT_EQ(StepBuckets(24, false).sizes(), (std::vector<int64_t>{1, 2, 4, 8, 16, 24}));
  EXPECT_EQ(StepBuckets(10000, false).max_rows(), 256);
  EXPECT_EQ(StepBuckets(3, true).sizes(), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(StepBuckets(10000, true).max_rows(), 256);
}

TEST(StepBuckets, TheSmallestThatHoldsTheRows) {
  const StepBuckets buckets(256, false);
  EXPECT_EQ(buckets.SizeFor(1), 1);
  EXPECT_EQ(buckets.SizeFor(3), 4);
  EXPECT_EQ(buckets.SizeFor(65), 96);
  EXPECT_EQ(buckets.SizeFor(193), 256);
  EXPECT_EQ(buckets.SizeFor(256), 256);
}

TEST(RecordedCandidatesFor, WhatRecordsTell) {
  constexpr int64_t kIds = 100;
  EXPECT_EQ(RecordedCandidatesFor({}, kIds, false), 1);
  EXPECT_EQ(RecordedCandidatesFor({.top_p = 0.5f, .top_k = 7}, kIds, false), 1);
  EXPECT_EQ(RecordedCandidatesFor({.temperature = 1, .top_p = 0.5f, .top_k = 7}, kIds, false), 7);
  EXPECT_EQ(RecordedCandidatesFor({.temperature = 1, .top_k = 128, .min_p = 0.1f}, 1000, false),
            128);
  EXPECT_EQ(RecordedCandidatesFor({.temperature = 1}, kIds, false), 1);
  EXPECT_EQ(RecordedCandidatesFor({.temperature = 1, .min_p = 0.1f}, kIds, false), 1);
  EXPECT_EQ(RecordedCandidatesFor({.temperature = 1, .top_k = 100}, kIds, false), 1);
}

TEST(RecordedCandidatesFor, AsManyAsThereAreWhereTheRestOfTheRowIsAtHand) {
  for (const SamplingParameters& sampling :
       {SamplingParameters{.temperature = 1, .top_p = 0.5f},
        SamplingParameters{.temperature = 1, .top_k = 129},
        SamplingParameters{.temperature = 1, .top_p = 0.5f, .top_k = 2000}}) {
    EXPECT_EQ(RecordedCandidatesFor(sampling, 1000, true), 128);
    EXPECT_EQ(RecordedCandidatesFor(sampling, 1000, false), 0);
    EXPECT_TRUE(MayNeedWholeRow(sampling, 1000));
  }
  EXPECT_FALSE(MayNeedWholeRow({.temperature = 1, .top_p = 0.5f, .top_k = 128}, 1000));
  EXPECT_FALSE(MayNeedWholeRow({.temperature = 1}, 1000));
  EXPECT_FALSE(MayNeedWholeRow({.top_p = 0.5f}, 1000));
}

TEST(RecordedCandidatesFor, WhatTheyDoNotTell) {
  constexpr int64_t kIds = 1000;
  for (const SamplingParameters& sampling :
       std::vector<SamplingParameters>{{.temperature = 1, .top_p = 0.5f},
                                       {.temperature = 1, .top_p = 0.5f, .top_k = 1000},
                                       {.temperature = 1, .top_k = 129},
                                       {.repetition_penalty = 1.5f},
                                       {.presence_penalty = 1},
                                       {.frequency_penalty = 1},
                                       {.logit_bias = {{.id = 1, .bias = 1}}},
                                       {.allowed_token_ids = {1}},
                                       {.bad_words = {{1}}},
                                       {.logprobs = 0}}) {
    EXPECT_EQ(RecordedCandidatesFor(sampling, kIds, false), 0);
  }
}

TEST(CandidateBucketFor, TheSmallestThatHoldsThem) {
  EXPECT_EQ(CandidateBucketFor(1), 1);
  EXPECT_EQ(CandidateBucketFor(2), 32);
  EXPECT_EQ(CandidateBucketFor(32), 32);
  EXPECT_EQ(CandidateBucketFor(33), 128);
}

}  // namespace
}  // namespace cohort
