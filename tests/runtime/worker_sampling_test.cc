// What a worker does with the parameters of an admission, at every degree.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "tests/runtime/checkpoint_writer.h"
#include "tests/runtime/worker_ranks.h"

namespace cohort {
namespace {

constexpr TinyShape kShape = {.hidden = 40, .heads = 5, .kv_heads = 1, .vocabulary = 150};
const std::vector<int32_t> kPrompt = {5, 1, 17, 33, 8, 2, 40, 5, 99};

std::unique_ptr<WorkerRanks> MakeRanks(int tp) {
  WorkerOptions options;
  options.dummy_weights = true;
  options.token_ids = kShape.vocabulary;
  options.dtype = DType::kF32;
  options.parallelism.tp = tp;
  options.kv_blocks = 32;
  options.block_size = 4;
  options.max_batch_tokens = 64;
  options.max_running = 3;
  options.max_model_len = 64;
  auto ranks = WorkerRanks::Create(TinyConfig(kShape), options);
  CHECK_OK(ranks.status());
  return *std::move(ranks);
}

std::vector<SamplingParameters> ManyParameters() {
  return {
      {.repetition_penalty = 1.5f},
      {.presence_penalty = 2, .frequency_penalty = 0.5f},
      {.temperature = 1.5f, .seed = 3},
      {.temperature = 1.5f, .min_p = 0.9f, .seed = 3},
      {.temperature = 20, .top_p = 0.99f, .seed = 4},  // flat
      {.temperature = 20, .top_k = 140, .seed = 4},
      {.temperature = 0.8f, .top_p = 0.8f, .top_k = 20, .seed = 5, .repetition_penalty = 1.1f},
      {.temperature = 2, .seed = 6, .logit_bias = {{3, 4}, {149, 5}}, .bad_words = {{3, 149}, {4}}},
      {.temperature = 9, .seed = 7, .frequency_penalty = 1, .allowed_token_ids = {2, 60, 61, 148}},
  };
}

StepPlan Plan(uint64_t step, const AdmitSequence& admit, const SequenceRows& rows) {
  StepPlan plan;
  plan.epoch = 1;
  plan.step = step;
  plan.admits = {admit};
  plan.rows = {rows};
  return plan;
}

std::vector<TokenSource> Literals(const std::vector<int32_t>& ids) {
  std::vector<TokenSource> tokens;
  for (const int32_t id : ids) {
    tokens.push_back({.id = id});
  }
  return tokens;
}

TEST(WorkerSampling, EveryParameterGivesTheSameAtEveryDegree) {
  const auto alone = MakeRanks(1);
  std::set<std::vector<int32_t>> different;
  for (const int tp : {2, 3, 5}) {
    const auto ranks = MakeRanks(tp);
    for (const SamplingParameters& sampling : ManyParameters()) {
      const std::vector<int32_t> expected = alone->Generate(kPrompt, 12, 64, sampling);
      EXPECT_EQ(ranks->Generate(kPrompt, 12, 4, sampling), expected) << "tp " << tp;
      different.insert(expected);
    }
  }
  EXPECT_EQ(different.size(), ManyParameters().size());
}

TEST(WorkerSampling, ChosenIdsObeyTheirParameters) {
  const auto ranks = MakeRanks(2);
  const std::vector<int32_t> greedy = ranks->Generate(kPrompt, 20, 64, {});
  for (const int32_t id : ranks->Generate(kPrompt, 20, 64, {.bad_words = {{greedy[0]}}})) {
    EXPECT_NE(id, greedy[0]);
  }
  for (const int32_t id :
       ranks->Generate(kPrompt, 20, 64, {.temperature = 50, .allowed_token_ids = {7, 149}})) {
    EXPECT_TRUE(id == 7 || id == 149) << id;
  }
  const std::vector<int32_t> once =
      ranks->Generate(kPrompt, 20, 64, {.logit_bias = {{6, 100}}, .bad_words = {{6, 6}}});
  for (size_t i = 0; i < once.size(); ++i) {
    EXPECT_EQ(once[i] == 6, i % 2 == 0) << i;
  }
}

TEST(WorkerSampling, HeldBackIdsComeOnlyAfterTheLeastLength) {
  const auto ranks = MakeRanks(3);
  const auto results = ranks->Results(
      kPrompt, 6, 64,
      {.min_tokens = 4, .held_back_ids = {6}, .sampling = {.logit_bias = {{6, 100}}}});
  ASSERT_EQ(results.size(), 6u);
  for (size_t i = 0; i < results.size(); ++i) {
    EXPECT_EQ(results[i].tokens[0] == 6, i >= 4) << i;
  }
}

TEST(WorkerSampling, NoIdLeftIsToldApartFromNoNumber) {
  for (const SamplingParameters& sampling :
       {SamplingParameters{.allowed_token_ids = {6}, .bad_words = {{6}}},
        SamplingParameters{.temperature = 1, .allowed_token_ids = {100000}}}) {
    const auto results = MakeRanks(2)->Results(kPrompt, 1, 64, {.sampling = sampling});
    ASSERT_EQ(results.size(), 1u);
    EXPECT_EQ(results[0].tokens, std::vector<int32_t>{kNothingAllowed});
  }
}

TEST(WorkerSampling, LogprobsAreOfTheRawLogits) {
  const SamplingParameters plain{.logprobs = 3};
  const SamplingParameters edited{.temperature = 3,
                                  .seed = 8,
                                  .repetition_penalty = 1.7f,
                                  .frequency_penalty = 1,
                                  .logit_bias = {{5, 2}},
                                  .logprobs = 20};
  for (const SamplingParameters& sampling : {plain, edited}) {
    const auto alone = MakeRanks(1)->Results(kPrompt, 5, 64, {.sampling = sampling});
    ASSERT_EQ(alone.size(), 5u);
    std::vector<int32_t> ids = kPrompt;
    for (const SequenceResult& result : alone) {
      ids.push_back(result.tokens[0]);
    }
    // A score asks for the log-probability of the same ids.
    const std::vector<float> scores = MakeRanks(1)->Score(ids, 64);
    const auto cut = MakeRanks(3)->Results(kPrompt, 5, 64, {.sampling = sampling});
    for (size_t i = 0; i < alone.size(); ++i) {
      const float logprob = alone[i].token_logprobs.at(0);
      // The sums round differently: 150 terms, each within a unit, under a logarithm.
      EXPECT_NEAR(logprob, scores[kPrompt.size() - 1 + i], 1e-5);
      EXPECT_NEAR(logprob, cut.at(i).token_logprobs.at(0), 1e-5);
      ASSERT_EQ(alone[i].token_top.size(), static_cast<size_t>(sampling.logprobs));
      for (size_t k = 0; k < alone[i].token_top.size(); ++k) {
        EXPECT_EQ(alone[i].token_top[k].id, cut[i].token_top[k].id);
        EXPECT_TRUE(k == 0 || alone[i].token_top[k].logprob <= alone[i].token_top[k - 1].logprob);
      }
    }
    if (sampling == plain) {
      EXPECT_EQ(alone[0].token_top[0].id, alone[0].tokens[0]);
    }
  }
}

TEST(WorkerSampling, ChosenByMassAndFromWholeRowsHaveTheirLogprobsToo) {
  for (SamplingParameters sampling : {SamplingParameters{.temperature = 20, .seed = 4},
                                      SamplingParameters{.temperature = 20, .top_k = 140},
                                      SamplingParameters{.temperature = 20, .top_p = 0.99f}}) {
    sampling.repetition_penalty = 1.2f;
    sampling.logprobs = 20;
    for (const int tp : {1, 3}) {
      for (const SequenceResult& result :
           MakeRanks(tp)->Results(kPrompt, 8, 64, {.sampling = sampling})) {
        EXPECT_LT(result.token_logprobs.at(0), 0);
        for (const TokenLogprob& top : result.token_top) {
          if (top.id == result.tokens[0]) {
            EXPECT_EQ(top.logprob, result.token_logprobs[0]);
          }
        }
      }
    }
  }
}

TEST(WorkerSampling, ScoresComeWithTheMostProbableIds) {
  std::vector<SequenceResult> results;
  for (const int tp : {1, 3}) {
    const StepPlan plan = Plan(1, {.slot = 1, .sampling = {}},
                               {.slot = 1,
                                .tokens = Literals({3, 4, 5, 6, 7}),
                                .appended_blocks = {4, 5},
                                .score_top = 2,
                                .score_targets = {4, -1, 6, 7, -1}});
    const auto result = MakeRanks(tp)->Run(plan);
    ASSERT_TRUE(result.ok()) << result.status();
    results.push_back(result->sequences.at(0));
    const std::vector<TokenLogprob>& top = results.back().score_top;
    ASSERT_EQ(top.size(), 10u);
    EXPECT_EQ(top[2], (TokenLogprob{.id = -1}));
    EXPECT_EQ(top[9], (TokenLogprob{.id = -1}));
    EXPECT_GE(top[0].logprob, results.back().logprobs[0]);
    EXPECT_GE(top[0].logprob, top[1].logprob);
  }
  for (size_t i = 0; i < 10; ++i) {
    EXPECT_EQ(results[0].score_top[i].id, results[1].score_top[i].id);
  }
}

// Slot 0 computes the prompt; slot 1 begins after two of its blocks.
TEST(WorkerSampling, APrefixHitGivesWhatAWholePrefillGives) {
  for (const int tp : {1, 3}) {
    for (const SamplingParameters& sampling : ManyParameters()) {
      const auto ranks = MakeRanks(tp);
      const StepPlan plan = Plan(
          1, {.slot = 0, .prompt_tokens = kPrompt.size(), .sampling = sampling},
          {.slot = 0, .tokens = Literals(kPrompt), .appended_blocks = {9, 3, 20}, .sample = true});
      const auto whole = ranks->Run(plan);
      ASSERT_TRUE(whole.ok()) << whole.status();
      AdmitSequence hit{
          .slot = 1, .first_position = 8, .prompt_tokens = kPrompt.size(), .sampling = sampling};
      if (sampling.NeedsHistory()) {
        hit.history.assign(kPrompt.begin(), kPrompt.begin() + 8);
      }
      const StepPlan next = Plan(2, hit,
                                 {.slot = 1,
                                  .first_position = 8,
                                  .tokens = Literals({kPrompt[8]}),
                                  .appended_blocks = {9, 3, 21},
                                  .sample = true});
      const auto after = ranks->Run(next);
      ASSERT_TRUE(after.ok()) << after.status();
      EXPECT_EQ(after->sequences.at(0).tokens, whole->sequences.at(0).tokens) << "tp " << tp;
    }
  }
}

TEST(WorkerSampling, RefusesAdmissionsThatContradictThemselves) {
  const std::pair<StringView, AdmitSequence> cases[] = {
      {"position 6", {.slot = 1, .first_position = 6, .sampling = {}}},
      {"position 64", {.slot = 1, .first_position = 64, .sampling = {}}},
      {"1 ids of history where 0", {.slot = 1, .history = {4}, .sampling = {}}},
      {"0 ids of history where 4",
       {.slot = 1, .first_position = 4, .sampling = {.repetition_penalty = 2}}},
      {"sampling.logprobs is 21", {.slot = 1, .sampling = {.logprobs = 21}}},
  };
  for (const auto& [part, admit] : cases) {
    StepPlan plan = Plan(1, admit, {});
    plan.rows.clear();
    const absl::Status status = MakeRanks(1)->Run(plan).status();
    EXPECT_TRUE(absl::IsInternal(status)) << part << ": " << status;
    EXPECT_NE(status.message().find(part), StringView::npos) << status << " lacks " << part;
  }
}

}  // namespace
}  // namespace cohort
