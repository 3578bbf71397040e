// The model against the reference implementation: tests/golden/make_golden.py wrote the checkpoints
// and the answers.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_replace.h"
#include "runtime/json.h"
#include "tests/runtime/worker_ranks.h"

namespace cohort {
namespace {

constexpr int64_t kBlockSize = 4;  // prompts lie in several blocks
constexpr int64_t kWhole = 96;     // a chunk that every prompt fits

// Of the difference of a log-probability in fp32. The bound up to 32 tokens is the project's; a
// sum over positions, and the angle of a rotation, are wrong by at most so many roundings as there
// are positions, so that it grows in proportion.
double BoundAt(size_t position) {
  return 1e-4 * std::max(1.0, static_cast<double>(position + 1) / 32);
}

struct GoldenPrompt {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;       // of ids[1..]
  std::vector<float> last_logprobs;  // [vocabulary], after the last id
  std::vector<int32_t> greedy_ids;
  std::vector<float> greedy_margins;
};

struct Golden {
  std::vector<GoldenPrompt> prompts;
  double bf16_mean_error = 0;  // of `logprobs`, over all prompts
};

// COHORT_GOLDEN_DIR: where the files lie on a machine that has only this program.
std::string GoldenFolder(StringView name) {
  const char* moved = std::getenv("COHORT_GOLDEN_DIR");
  return absl::StrCat(moved != nullptr ? moved : COHORT_SOURCE_DIR "/tests/golden", "/", name);
}

template <class T>
std::vector<T> Numbers(const Json& object, StringView key) {
  std::vector<T> numbers;
  for (const Json& element : object.Find(key)->elements()) {
    numbers.push_back(static_cast<T>(*element.AsReal()));
  }
  return numbers;
}

Golden ReadGolden(StringView name) {
  const std::string path = GoldenFolder(name) + "/golden.json";
  const auto text = ReadFile(path, 1 << 20);
  CHECK_OK(text.status());
  const auto json = ParseJson(*text, path);
  CHECK_OK(json.status());
  Golden golden;
  golden.bf16_mean_error = *json->Find("bf16_mean_error")->AsReal();
  for (const Json& prompt : json->Find("prompts")->elements()) {
    golden.prompts.push_back({Numbers<int32_t>(prompt, "ids"), Numbers<float>(prompt, "logprobs"),
                              Numbers<float>(prompt, "last_logprobs"),
                              Numbers<int32_t>(*prompt.Find("greedy"), "ids"),
                              Numbers<float>(*prompt.Find("greedy"), "margins")});
  }
  return golden;
}

std::unique_ptr<WorkerRanks> MakeRanks(StringView name, const Parallelism& parallelism, DType dtype,
                                       std::optional<ExpertExchangeKind> exchange = {},
                                       const DeviceOptions& device = {}) {
  const auto config = LoadModelConfig(GoldenFolder(name));
  CHECK_OK(config.status());
  WorkerOptions options;
  options.model_dir = GoldenFolder(name);
  options.dtype = dtype;
  options.parallelism = parallelism;
  options.expert_exchange = exchange;
  options.max_model_len = std::min<int64_t>(96, config->max_positions);
  options.block_size = kBlockSize;
  options.kv_blocks = 96 / kBlockSize;
  options.max_batch_tokens = 96;
  options.max_running = 2;
  auto ranks = WorkerRanks::Create(*config, options, device);
  CHECK_OK(ranks.status());
  return *std::move(ranks);
}

// Of a dense model 1, 2, 3, 5, 8 ranks and the number of heads; with experts, those whole on all
// ranks, on groups of ranks and on single ones. Everything with COHORT_TEST_ALL.
std::vector<Parallelism> Layouts(StringView name) {
  const auto config = LoadModelConfig(GoldenFolder(name));
  CHECK_OK(config.status());
  const int heads = static_cast<int>(config->query_heads);
  const std::set<std::pair<int, int>> usual_dense = {{1, 1}, {2, 1}, {3, 1},
                                                     {5, 1}, {8, 1}, {heads, 1}};
  const std::set<std::pair<int, int>> usual_sparse = {{1, 1}, {2, 1}, {2, 2},
                                                      {3, 3}, {4, 2}, {4, 4}};
  const auto& usual = config->experts > 0 ? usual_sparse : usual_dense;
  std::vector<Parallelism> layouts;
  for (int tp = 1; tp <= heads; ++tp) {
    for (int ep = 1; ep <= (config->experts > 0 ? tp : 1); ++ep) {
      if (usual.count({tp, ep}) > 0 ||
          (tp % ep == 0 && std::getenv("COHORT_TEST_ALL") != nullptr)) {
        layouts.push_back({.tp = tp, .ep = ep});
      }
    }
  }
  return layouts;
}

std::string LayoutName(const Parallelism& layout) {
  return absl::StrCat("tp ", layout.tp, ", dp ", layout.dp, ", ep ", layout.ep);
}

double MeanError(const std::vector<float>& values, const std::vector<float>& expected) {
  double sum = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    sum += std::abs(static_cast<double>(values[i]) - expected[i]);
  }
  return sum / static_cast<double>(expected.size());
}

class Qwen2GoldenTest : public testing::TestWithParam<const char*> {};

void ExpectScores(const GoldenPrompt& prompt, WorkerRanks& ranks) {
  const std::vector<float> logprobs = ranks.Score(prompt.ids, kWhole);
  ASSERT_EQ(logprobs.size(), prompt.logprobs.size());
  for (size_t i = 0; i < logprobs.size(); ++i) {
    EXPECT_NEAR(logprobs[i], prompt.logprobs[i], BoundAt(i)) << "position " << i;
  }
}

void ExpectGreedy(const GoldenPrompt& prompt, WorkerRanks& ranks) {
  const std::vector<int32_t> ids =
      ranks.Generate(prompt.ids, static_cast<int64_t>(prompt.greedy_ids.size()), kWhole, {});
  ASSERT_EQ(ids.size(), prompt.greedy_ids.size());
  for (size_t i = 0; i < ids.size() && prompt.greedy_margins[i] > 1e-3; ++i) {
    ASSERT_EQ(ids[i], prompt.greedy_ids[i]) << "token " << i;
  }
}

TEST_P(Qwen2GoldenTest, ScoresInFp32AsTheReferenceAtEveryDegree) {
  const Golden golden = ReadGolden(GetParam());
  for (const Parallelism& layout : Layouts(GetParam())) {
    SCOPED_TRACE(LayoutName(layout));
    const auto ranks = MakeRanks(GetParam(), layout, DType::kF32);
    for (const GoldenPrompt& prompt : golden.prompts) {
      ExpectScores(prompt, *ranks);
    }
  }
}

TEST_P(Qwen2GoldenTest, ScoresEveryIdOfTheVocabularyAsTheReference) {
  const Golden golden = ReadGolden(GetParam());
  const auto ranks = MakeRanks(GetParam(), {.tp = 2}, DType::kF32);
  const GoldenPrompt& prompt = golden.prompts[1];
  for (size_t id = 0; id < prompt.last_logprobs.size(); ++id) {
    std::vector<int32_t> ids = prompt.ids;
    ids.push_back(static_cast<int32_t>(id));
    EXPECT_NEAR(ranks->Score(ids, kWhole).back(), prompt.last_logprobs[id],
                BoundAt(prompt.ids.size()))
        << "id " << id;
  }
}

TEST_P(Qwen2GoldenTest, ChoosesGreedilyWhatTheReferenceChoosesAtEveryDegree) {
  const Golden golden = ReadGolden(GetParam());
  for (const Parallelism& layout : Layouts(GetParam())) {
    SCOPED_TRACE(LayoutName(layout));
    const auto ranks = MakeRanks(GetParam(), layout, DType::kF32);
    for (const GoldenPrompt& prompt : golden.prompts) {
      ExpectGreedy(prompt, *ranks);
    }
  }
}

// Experts that two data-parallel groups share, one of which has no rows; with both exchanges. And
// groups of a dense model, which share nothing.
TEST_P(Qwen2GoldenTest, DataParallelGroupsGiveTheReferencesAnswers) {
  const Golden golden = ReadGolden(GetParam());
  const bool sparse = LoadModelConfig(GoldenFolder(GetParam()))->experts > 0;
  const std::vector<Parallelism> layouts =
      sparse ? std::vector<Parallelism>{{.tp = 1, .dp = 2, .ep = 2},
                                        {.tp = 2, .dp = 2, .ep = 4},
                                        {.tp = 2, .dp = 2, .ep = 2},
                                        {.tp = 2, .dp = 2, .ep = 1},
                                        {.tp = 1, .dp = 3, .ep = 3}}
             : std::vector<Parallelism>{{.tp = 2, .dp = 2}};
  for (const Parallelism& layout : layouts) {
    for (const auto exchange : {ExpertExchangeKind::kAllToAll, ExpertExchangeKind::kReplicated}) {
      SCOPED_TRACE(absl::StrCat(LayoutName(layout), ", exchange ", static_cast<int>(exchange)));
      const auto ranks = MakeRanks(GetParam(), layout, DType::kF32, exchange);
      for (const GoldenPrompt& prompt : golden.prompts) {
        ranks->UseGroup(prompt.ids.size() % 2 == 0 ? 0 : layout.dp - 1);
        ExpectScores(prompt, *ranks);
        ExpectGreedy(prompt, *ranks);
      }
    }
  }
}

TEST_P(Qwen2GoldenTest, ChunksOfThePromptGiveWhatTheWholePromptGives) {
  const Golden golden = ReadGolden(GetParam());
  const auto ranks = MakeRanks(GetParam(), {.tp = 3}, DType::kF32);
  const std::vector<int32_t>& ids = golden.prompts.back().ids;
  const std::vector<float> whole = ranks->Score(ids, kWhole);
  for (const int64_t chunk : {1, 3, 4, 31}) {
    // Results of a row do not depend on the rest of the batch: equal to the bit.
    EXPECT_EQ(ranks->Score(ids, chunk), whole) << "chunk " << chunk;
    EXPECT_EQ(ranks->Generate(ids, 4, chunk, {}), ranks->Generate(ids, 4, kWhole, {}));
  }
}

void ExpectSmallMeanError(const Golden& golden, WorkerRanks& ranks) {
  std::vector<float> logprobs, expected;
  for (const GoldenPrompt& prompt : golden.prompts) {
    const std::vector<float> scores = ranks.Score(prompt.ids, kWhole);
    logprobs.insert(logprobs.end(), scores.begin(), scores.end());
    expected.insert(expected.end(), prompt.logprobs.begin(), prompt.logprobs.end());
  }
  EXPECT_LE(MeanError(logprobs, expected), 2 * golden.bf16_mean_error);
}

TEST_P(Qwen2GoldenTest, ErrsInBf16NoMoreThanTwiceTheReferenceInBf16) {
  const Golden golden = ReadGolden(GetParam());
  for (const int tp : {1, 3}) {
    SCOPED_TRACE(absl::StrCat("tp ", tp));
    ExpectSmallMeanError(golden, *MakeRanks(GetParam(), {.tp = tp, .ep = tp}, DType::kBF16));
  }
}

TEST_P(Qwen2GoldenTest, CudaGivesTheReferencesAnswers) {
  if (const absl::Status status = DeviceAvailable("cuda"); !status.ok()) {
    GTEST_SKIP() << status.message();
  }
  DeviceOptions cuda;
  cuda.kind = "cuda";
  const Golden golden = ReadGolden(GetParam());
  const auto ranks = MakeRanks(GetParam(), {}, DType::kF32, {}, cuda);
  for (const GoldenPrompt& prompt : golden.prompts) {
    ExpectScores(prompt, *ranks);
    ExpectGreedy(prompt, *ranks);
  }
  ExpectSmallMeanError(golden, *MakeRanks(GetParam(), {}, DType::kBF16, {}, cuda));
}

std::string TestNameOf(const testing::TestParamInfo<const char*>& checkpoint) {
  return absl::StrReplaceAll(checkpoint.param, {{"-", ""}});
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, Qwen2GoldenTest,
                         testing::Values("five-heads-tied", "six-heads-sharded",
                                         "fourteen-heads-bf16", "large-key-bias",
                                         "ten-experts-step-two", "sixteen-experts-bf16", "yarn",
                                         "yarn-other-original", "dual-chunk"),
                         TestNameOf);

TEST(GoldenFiles, AreThoseThatTheScriptWrote) {
  const std::string command =
      absl::StrCat("cd '", GoldenFolder(""), "' && sha256sum --check --quiet --strict SHA256SUMS");
  EXPECT_EQ(std::system(command.c_str()), 0);
}

TEST(GoldenFiles, AreAllListedWithTheirHash) {
  const auto sums = ReadFile(GoldenFolder("SHA256SUMS"), 1 << 20);
  ASSERT_TRUE(sums.ok()) << sums.status();
  const std::filesystem::path folder = GoldenFolder("");
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    const std::string name = std::filesystem::relative(entry.path(), folder).string();
    if (entry.is_regular_file() && name.find('/') != std::string::npos) {
      EXPECT_NE(sums->find("  " + name + "\n"), std::string::npos) << name;
    }
  }
}

}  // namespace
}  // namespace cohort
