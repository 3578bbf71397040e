#include "launcher/plan_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "runtime/model_config.h"

namespace cohort {
namespace {

using ::testing::HasSubstr;

PlanOptions Options(const std::string& model) {
  PlanOptions options;
  options.model = model;
  options.json = true;
  return options;
}

nlohmann::json Json(const PlanOptions& options, int exit_code = 0) {
  const absl::StatusOr<PlanOutput> output = PlanCommand(options);
  EXPECT_TRUE(output.ok()) << output.status();
  EXPECT_EQ(output->exit_code, exit_code);
  return nlohmann::json::parse(output->text);
}

std::string ConfigIn(const std::string& name) {
  const std::filesystem::path directory = std::filesystem::path(::testing::TempDir()) / name;
  std::filesystem::create_directories(directory);
  std::ofstream(directory / "config.json") << PublishedConfig("Qwen2-0.5B");
  return directory.string();
}

TEST(PlanCommand, TakesADirectoryAConfigAndAName) {
  const std::string directory = ConfigIn("plan-model");
  const nlohmann::json named = Json(Options("Qwen2-0.5B"));
  for (const std::string& model : {directory, directory + "/", directory + "/config.json"}) {
    const nlohmann::json json = Json(Options(model));
    EXPECT_EQ(json["model"], "plan-model") << model;
    EXPECT_EQ(json["ranks"], named["ranks"]) << model;
  }
  const absl::Status status = PlanCommand(Options("Qwen2-8B")).status();
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("'Qwen2-8B' is neither a checkpoint directory nor a config.json nor"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("Qwen2-57B-A14B"));
}

TEST(PlanCommand, EndsWithThreeWhereNothingFitsAndStillTellsWhy) {
  PlanOptions options = Options("Qwen2-72B");
  options.gpu = "L40S";
  const nlohmann::json json = Json(options, 3);
  EXPECT_FALSE(json["fits"].get<bool>());
  EXPECT_GT(json["missing_bytes"].get<int64_t>(), 90'000'000'000);
  EXPECT_EQ(json["changes"][0]["change"], "gpus");
}

TEST(PlanCommand, TheSeventyTwoBillionOnOneH200) {
  const nlohmann::json json = Json(Options("Qwen2-72B"));
  EXPECT_TRUE(json["fits"].get<bool>());
  EXPECT_EQ(json["checkpoint_bytes"], 145'412'407'296);
  EXPECT_EQ(json["gpu"]["memory_bytes"], int64_t{143771} << 20);
  EXPECT_EQ(json["host_bytes"], int64_t{152064} * 8192 * 2);
}

TEST(PlanCommand, GpusAreTheProductOfTheDegreesWhereNotGiven) {
  PlanOptions options = Options("Qwen2-7B");
  options.tp = 3;
  options.dp = 2;
  const nlohmann::json json = Json(options);
  EXPECT_EQ(json["gpus"], 6);
  EXPECT_EQ(json["ranks"].size(), 6u);
}

TEST(PlanCommand, MemoryMayBeGiven) {
  PlanOptions options = Options("Qwen2-7B");
  options.gpu_memory_bytes = 24'000'000'000;
  EXPECT_EQ(Json(options)["gpu"]["memory_bytes"], 24'000'000'000);
  options.dtype = "fp32";
  EXPECT_FALSE(Json(options, 3)["fits"].get<bool>());
}

TEST(PlanCommand, RefusesByTheNameOfTheFlag) {
  PlanOptions options = Options("Qwen2-7B");
  options.gpu = "TPU";
  EXPECT_THAT(std::string(PlanCommand(options).status().message()),
              HasSubstr("--gpu: 'TPU' is not one of A100"));
  options = Options("Qwen2-7B");
  options.svg = "/nowhere/plan.svg";
  EXPECT_THAT(std::string(PlanCommand(options).status().message()),
              HasSubstr("--svg /nowhere/plan.svg cannot be written"));
}

TEST(PlanCommand, DrawsThePicture) {
  PlanOptions options = Options("Qwen2-7B");
  options.svg = ::testing::TempDir() + "/plan.svg";
  Json(options);
  std::ifstream file(options.svg);
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_THAT(text.str(), HasSubstr("Qwen2-7B in bf16 on 1 x H200"));
}

}  // namespace
}  // namespace cohort
