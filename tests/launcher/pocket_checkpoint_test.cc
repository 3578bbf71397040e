#include "launcher/pocket_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "runtime/json.h"
#include "runtime/model_config.h"
#include "runtime/safetensors.h"
#include "runtime/tokenizer.h"
#include "runtime/weights.h"

namespace cohort {
namespace {

TEST(PocketCheckpoint, IsThatOfTheSourceTree) {
  for (const EmbeddedFile& file : PocketFiles()) {
    const absl::StatusOr<std::string> bytes =
        ReadFile(absl::StrCat(COHORT_SOURCE_DIR, "/deploy/pocket/", file.name), 1 << 24);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_TRUE(file.bytes == *bytes) << file.name;
  }
}

TEST(PocketCheckpoint, IsSmallAndLoadsFromWhereItIsUnpacked) {
  size_t bytes = 0;
  for (const EmbeddedFile& file : PocketFiles()) bytes += file.bytes.size();
  EXPECT_LE(bytes, 6'000'000u);

  const std::string base = ::testing::TempDir() + "/pocket_checkpoint";
  const absl::StatusOr<std::string> directory =
      UnpackIntoCache(PocketFiles(), std::vector<std::string>{base}, kPocketName);
  ASSERT_TRUE(directory.ok()) << directory.status();
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(*directory);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->query_heads, 14);
  const absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(*directory);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const absl::StatusOr<CheckpointReport> report = CheckCheckpoint(**checkpoint, *config);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(report->extra_tensors, ::testing::IsEmpty());
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(*directory);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->size(), config->vocabulary);
  std::filesystem::remove_all(base);
}

TEST(ResolveModel, LeavesOtherNamesAsTheyAre) {
  for (const char* name : {"", "/somewhere/pocket", "./pocket", "Qwen2-0.5B"}) {
    EXPECT_EQ(*ResolveModel(name), name);
  }
}

}  // namespace
}  // namespace cohort
