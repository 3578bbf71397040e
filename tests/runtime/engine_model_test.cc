// The engine over real ranks with a small model of random weights: what a request gets depends
// neither on the tensor-parallel degree nor on what it is batched or chunked with.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <tuple>

#include "absl/strings/str_replace.h"
#include "runtime/engine.h"
#include "tests/runtime/in_process_group.h"
#include "tests/runtime/recording_sink.h"

namespace cohort {
namespace {

// Six query heads over two KV heads and 80 FFN columns: nothing divides by 5.
constexpr char kTinyConfig[] = R"({
  "architectures": ["Qwen2ForCausalLM"],
  "model_type": "qwen2",
  "hidden_act": "silu",
  "hidden_size": 48,
  "num_hidden_layers": 2,
  "num_attention_heads": 6,
  "num_key_value_heads": 2,
  "intermediate_size": 80,
  "vocab_size": 101,
  "max_position_embeddings": 256,
  "rms_norm_eps": 1e-06,
  "rope_theta": 10000.0,
  "tie_word_embeddings": false,
  "use_sliding_window": false,
  "torch_dtype": "float32",
  "eos_token_id": 7
})";

// The same with five experts in the second layer.
std::string ExpertsConfig() {
  return absl::StrReplaceAll(kTinyConfig,
                             {{"Qwen2ForCausalLM", "Qwen2MoeForCausalLM"},
                              {R"("qwen2")", R"("qwen2_moe")"},
                              {R"("vocab_size")", R"("num_experts": 5, "num_experts_per_tok": 2,
                     "moe_intermediate_size": 12, "shared_expert_intermediate_size": 20,
                     "decoder_sparse_step": 2, "norm_topk_prob": true, "vocab_size")"}});
}

constexpr ExpertExchangeKind kReplicated = ExpertExchangeKind::kReplicated;

struct GroupShape {
  DType dtype = DType::kF32;
  int tp = 1;
  int dp = 1;
  int ep = 1;
  bool experts = false;
  int64_t max_batch_tokens = 64;
  int64_t max_running = 8;
  int64_t kv_blocks = 80;
  bool prefix_caching = true;
  bool records_steps = false;
  std::optional<ExpertExchangeKind> exchange = {};
  ModelOverrides overrides = {};
};

struct Outcome {
  std::vector<int32_t> tokens;
  std::vector<float> prompt_logprobs;
  FinishReason reason = FinishReason::kStop;
};

std::unique_ptr<InProcessGroup> MakeGroup(const GroupShape& shape) {
  auto config = ParseModelConfig(shape.experts ? ExpertsConfig() : kTinyConfig, "config.json",
                                 shape.overrides);
  EXPECT_TRUE(config.ok()) << config.status();
  WorkerOptions options;
  options.dummy_weights = true;
  options.token_ids = config->vocabulary;
  options.dtype = shape.dtype;
  options.parallelism = {.tp = shape.tp, .dp = shape.dp, .ep = shape.ep};
  options.kv_blocks = shape.kv_blocks;
  options.block_size = 4;
  options.max_batch_tokens = shape.max_batch_tokens;
  options.max_running = shape.max_running;
  options.max_model_len = 64;
  options.expert_exchange = shape.exchange;
  auto group = InProcessGroup::Create(*config, options, {.record_steps = shape.records_steps});
  EXPECT_TRUE(group.ok()) << group.status();
  return group.ok() ? *std::move(group) : nullptr;
}

// Greedy, sampled and scored ones of several lengths.
std::vector<Request> Requests() {
  std::vector<Request> requests;
  for (int32_t i = 0; i < 12; ++i) {
    Request request;
    for (int32_t position = 0; position < 1 + i * 3; ++position) {
      request.prompt.push_back((i * 31 + position * 17) % 101);
    }
    request.stopping.max_tokens = 4 + i;
    request.stopping.ignore_eos = i % 2 == 0;
    request.score = i % 6 == 5;
    if (i % 3 == 1) {
      request.sampling = {
          .temperature = 0.8f, .top_p = 0.95f, .top_k = 40, .seed = static_cast<uint64_t>(i)};
    }
    requests.push_back(request);
  }
  return requests;
}

// Prompts that begin alike, over one to five whole blocks; some with choices that need the history.
std::vector<Request> RequestsThatBeginAlike() {
  std::vector<Request> requests;
  for (int32_t i = 0; i < 10; ++i) {
    Request request;
    for (int32_t position = 0; position < 6 + i % 5 * 4; ++position) {
      request.prompt.push_back(position * 17 % 101);
    }
    request.prompt.back() = i;
    request.stopping.max_tokens = 14;
    request.stopping.ignore_eos = true;
    request.sampling.repetition_penalty = i % 2 == 0 ? 1 : 1.5f;
    if (i % 3 == 1) {
      request.sampling.temperature = 0.8f;
      request.sampling.seed = static_cast<uint64_t>(i);
    }
    requests.push_back(request);
  }
  return requests;
}

Outcome OutcomeOf(RecordingSink& sink) {
  const Finish finish = sink.WaitForFinish();
  EXPECT_TRUE(finish.status.ok()) << finish.status;
  return {sink.tokens(), finish.prompt_logprobs, finish.reason};
}

// All requests at once, or each after the one before.
std::vector<Outcome> RunAll(Engine& engine, const std::vector<Request>& requests, bool together) {
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (const Request& request : requests) {
    sinks.push_back(std::make_shared<RecordingSink>());
    const auto id = engine.Submit(request, sinks.back());
    EXPECT_TRUE(id.ok()) << id.status();
    if (!together) {
      sinks.back()->WaitForFinish();
    }
  }
  std::vector<Outcome> outcomes;
  for (const std::shared_ptr<RecordingSink>& sink : sinks) {
    outcomes.push_back(OutcomeOf(*sink));
  }
  return outcomes;
}

std::vector<Outcome> RunOn(const GroupShape& shape, bool together) {
  const std::unique_ptr<InProcessGroup> group = MakeGroup(shape);
  if (group == nullptr) {
    return {};
  }
  Engine engine(
      group->scheduler_options(), [](uint64_t, absl::Status status) { ADD_FAILURE() << status; },
      shape.dp);
  engine.GroupReady(group->Join(1, absl::Seconds(60)));
  const std::vector<Outcome> outcomes = RunAll(engine, Requests(), together);
  for (const SchedulerLoad& load : engine.load().groups) {
    EXPECT_GT(load.counts.prompt_tokens_computed, 0u) << "a group without work";
  }
  return outcomes;
}

// Equal tokens; log-probabilities equal up to `tolerance` of the largest.
void ExpectSame(const std::vector<Outcome>& expected, const std::vector<Outcome>& actual,
                double tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    SCOPED_TRACE(absl::StrCat("request ", i));
    EXPECT_EQ(actual[i].tokens, expected[i].tokens);
    EXPECT_EQ(actual[i].reason, expected[i].reason);
    ASSERT_EQ(actual[i].prompt_logprobs.size(), expected[i].prompt_logprobs.size());
    for (size_t j = 0; j < expected[i].prompt_logprobs.size(); ++j) {
      const float wanted = expected[i].prompt_logprobs[j];
      EXPECT_NEAR(actual[i].prompt_logprobs[j], wanted, tolerance * std::abs(wanted)) << j;
    }
  }
}

TEST(EngineModel, OutcomesAreThoseOfTheRequestsAlone) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    SCOPED_TRACE(NameOf(dtype));
    const std::vector<Outcome> alone = RunOn({.dtype = dtype, .max_running = 1},
                                             /*together=*/false);
    ASSERT_FALSE(alone.empty());
    EXPECT_EQ(alone[0].tokens.size(), 4u);
    EXPECT_EQ(alone[5].prompt_logprobs.size(), 15u);
    {
      SCOPED_TRACE("batched");
      ExpectSame(alone, RunOn({.dtype = dtype}, /*together=*/true), 0);
    }
    SCOPED_TRACE("chunks of at most 5 rows");
    ExpectSame(alone,
               RunOn({.dtype = dtype, .max_batch_tokens = 5, .max_running = 3}, /*together=*/true),
               0);
  }
}

// Ranks add partial sums in another order than one rank does. The rounding of each sum is at most
// its length times epsilon; a row passes two sums over the hidden size and two over the FFN columns
// per layer and one in the head.
TEST(EngineModel, OutcomesDoNotDependOnTheTensorParallelDegree) {
  const double rounding = (2 * 2 * (48 + 80) + 48) * std::numeric_limits<float>::epsilon();
  const std::vector<Outcome> one = RunOn({.tp = 1}, /*together=*/true);
  ASSERT_FALSE(one.empty());
  for (const int tp : {2, 3, 5, 6}) {
    SCOPED_TRACE(absl::StrCat("tp ", tp));
    const std::vector<Outcome> many = RunOn({.tp = tp}, /*together=*/true);
    ExpectSame(one, many, rounding);
    ExpectSame(many, RunOn({.tp = tp, .max_batch_tokens = 7, .max_running = 4}, true), 0);
  }
}

TEST(EngineModel, DataParallelGroupsGiveWhatOneGroupGives) {
  for (const int tp : {1, 2}) {
    SCOPED_TRACE(absl::StrCat("tp ", tp));
    const std::vector<Outcome> one = RunOn({.tp = tp}, /*together=*/true);
    ASSERT_FALSE(one.empty());
    ExpectSame(one, RunOn({.tp = tp, .dp = 2}, /*together=*/true), 0);
    ExpectSame(one, RunOn({.tp = tp, .dp = 3, .max_batch_tokens = 5, .max_running = 2}, true), 0);
  }
}

// A row of a sparse layer passes a sum over the hidden size and one over the columns of its three
// FFNs; the rest is as above.
TEST(EngineModel, GroupsThatShareExpertsGiveWhatOneRankGives) {
  const double rounding = 2 * (2 * (48 + 80) + 48) * std::numeric_limits<float>::epsilon();
  const std::vector<Outcome> one = RunOn({.experts = true}, /*together=*/true);
  ASSERT_FALSE(one.empty());
  for (const auto& [tp, dp, ep] : {std::tuple(1, 2, 2), {2, 2, 4}, {2, 2, 2}, {1, 3, 1}}) {
    SCOPED_TRACE(absl::StrCat("tp ", tp, " dp ", dp, " ep ", ep));
    const std::vector<Outcome> shared =
        RunOn({.tp = tp, .dp = dp, .ep = ep, .experts = true}, /*together=*/true);
    ExpectSame(one, shared, rounding);
    ExpectSame(shared,
               RunOn({.tp = tp,
                      .dp = dp,
                      .ep = ep,
                      .experts = true,
                      .max_batch_tokens = 5,
                      .max_running = 3},
                     true),
               0);
  }
}

// Greedy and top-k requests decode in recorded steps, filled up to the next size where rows have no
// experts of their own; the others do not.
TEST(EngineModel, RecordedStepsChangeNoToken) {
  const ModelOverrides yarn = {.yarn = YarnOverride{.factor = 4, .original_positions = 24},
                               .yarn_auto = true};
  const ModelOverrides chunks = {
      .dual_chunk = DualChunkConfig{.chunk_size = 6, .local_size = 2, .original_positions = 12}};
  for (GroupShape shape :
       {GroupShape{}, GroupShape{.dtype = DType::kBF16, .tp = 3},
        GroupShape{.tp = 2, .max_batch_tokens = 5, .max_running = 3}, GroupShape{.tp = 2, .dp = 2},
        GroupShape{.tp = 2, .experts = true}, GroupShape{.dp = 2, .ep = 2, .experts = true},
        GroupShape{.tp = 2, .dp = 2, .ep = 4, .experts = true, .exchange = kReplicated},
        GroupShape{.kv_blocks = 22}, GroupShape{.tp = 2, .overrides = yarn},
        GroupShape{.overrides = chunks}}) {
    SCOPED_TRACE(absl::StrCat("tp ", shape.tp, " dp ", shape.dp));
    const std::vector<Outcome> expected = RunOn(shape, /*together=*/true);
    shape.records_steps = true;
    ExpectSame(expected, RunOn(shape, /*together=*/true), 0);
  }
}

// One request after the other without a prefix cache, against all of them on two ranks that share
// prefixes and have too few blocks.
void ExpectPrefixesAndPreemptionsChangeNothing(const ModelOverrides& overrides) {
  std::vector<std::vector<Outcome>> outcomes;
  for (const GroupShape& shape :
       {GroupShape{.max_running = 1, .prefix_caching = false, .overrides = overrides},
        GroupShape{.tp = 2, .kv_blocks = 22, .overrides = overrides}}) {
    const std::unique_ptr<InProcessGroup> group = MakeGroup(shape);
    ASSERT_NE(group, nullptr);
    SchedulerOptions options = group->scheduler_options();
    options.prefix_caching = shape.prefix_caching;
    Engine engine(options, [](uint64_t, absl::Status status) { ADD_FAILURE() << status; });
    engine.GroupReady(group->Join(1, absl::Seconds(60)));
    outcomes.push_back(RunAll(engine, RequestsThatBeginAlike(), /*together=*/true));
    EXPECT_EQ(engine.load().prefix_hit_tokens > 0, shape.prefix_caching);
    EXPECT_EQ(engine.load().preemptions > 0, shape.prefix_caching) << "22 blocks of 4 are few";
    EXPECT_EQ(engine.load().kv_blocks_used, 0);
  }
  ExpectSame(outcomes[0], outcomes[1], 0);
}

TEST(EngineModel, PrefixesThatAreFoundAndBlocksThatRunOutChangeNoToken) {
  ExpectPrefixesAndPreemptionsChangeNothing({});
}

// Of the requests, which all begin alike, some fit 24 positions and some do not.
TEST(EngineModel, PrefixesWithAndWithoutYarnAreNotMixedUp) {
  ExpectPrefixesAndPreemptionsChangeNothing(
      {.yarn = YarnOverride{.factor = 4, .original_positions = 24}, .yarn_auto = true});
}

// Prompts on both sides of 12 positions, over up to nine chunks of 4.
TEST(EngineModel, PrefixesOfDualChunksAreSharedOnlyWhereTheyAreEqual) {
  ExpectPrefixesAndPreemptionsChangeNothing(
      {.dual_chunk = DualChunkConfig{.chunk_size = 6, .local_size = 2, .original_positions = 12}});
}

TEST(EngineModel, RanksServeTheNextEpochWithTheSameTokens) {
  const std::vector<Outcome> expected = RunOn({.tp = 2}, /*together=*/true);
  const std::unique_ptr<InProcessGroup> group = MakeGroup({.tp = 2});
  ASSERT_NE(group, nullptr);
  Engine engine(group->scheduler_options(), nullptr);
  engine.GroupReady(group->Join(1, absl::Seconds(60)));
  Request request;
  request.prompt = {1, 2, 3};
  request.stopping.max_tokens = 60;
  request.stopping.ignore_eos = true;
  const auto sink = std::make_shared<RecordingSink>();
  ASSERT_TRUE(engine.Submit(request, sink).ok());
  sink->WaitForTokens(3);
  engine.GroupLost(1, absl::UnavailableError("a drill"));
  const Finish finish = sink->WaitForFinish();
  EXPECT_TRUE(finish.reason == FinishReason::kError || finish.reason == FinishReason::kLength);
  engine.GroupReady(group->Join(2, absl::Seconds(60)));
  ExpectSame(expected, RunAll(engine, Requests(), /*together=*/true), 0);
}

}  // namespace
}  // namespace cohort
