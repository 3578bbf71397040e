#include "runtime/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_join.h"
#include "tests/runtime/checkpoint_writer.h"

namespace cohort {
namespace {

// Writes `tensors` and checks them against the tiny config.
absl::StatusOr<CheckpointReport> Check(const std::vector<WrittenTensor>& tensors,
                                       const TinyShape& shape = {}) {
  const TemporaryDirectory directory;
  directory.Write("model.safetensors", SafetensorsFile(tensors));
  const auto checkpoint = Checkpoint::Open(directory.path());
  CHECK_OK(checkpoint.status());
  return CheckCheckpoint(**checkpoint, TinyConfig(shape));
}

std::vector<WrittenTensor> TinyTensors(StringView dtype = "F32", const TinyShape& shape = {}) {
  return TensorsOf(TinyConfig(shape), dtype);
}

WrittenTensor& Named(std::vector<WrittenTensor>& tensors, StringView name) {
  for (WrittenTensor& tensor : tensors) {
    if (tensor.name == name) {
      return tensor;
    }
  }
  CHECK(false) << name;
  return tensors[0];
}

TEST(DeclareTensors, CountsTwelvePerLayerAndTheEnds) {
  EXPECT_EQ(DeclareTensors(TinyConfig({.layers = 24, .is_tied = true})).size(), 290u);
  EXPECT_EQ(DeclareTensors(TinyConfig({.layers = 80})).size(), 963u);
}

TEST(DeclareTensors, NamesThoseOfASparseLayerAsTransformersDoes) {
  ModelConfig config = TinyConfig({.layers = 2});
  config.experts = 3;
  config.experts_per_token = 1;
  config.expert_columns = 7;
  config.shared_expert_columns = 9;
  config.sparse_step = 2;
  config.qkv_bias = false;
  std::vector<std::string> tensors;
  for (const DeclaredTensor& tensor : DeclareTensors(config)) {
    tensors.push_back(absl::StrCat(tensor.name, " ", absl::StrJoin(tensor.shape, "x")));
  }
  const std::string sparse = "model.layers.1.mlp.";
  EXPECT_THAT(tensors, testing::IsSupersetOf(
                           {std::string("model.layers.0.mlp.gate_proj.weight 10x24"),
                            sparse + "gate.weight 3x24", sparse + "experts.2.up_proj.weight 7x24",
                            sparse + "experts.0.down_proj.weight 24x7",
                            sparse + "shared_expert.gate_proj.weight 9x24",
                            sparse + "shared_expert_gate.weight 1x24"}));
  // Two ends and the head, six of attention and norms a layer, three dense, fourteen sparse.
  EXPECT_EQ(tensors.size(), 3u + 2 * 6 + 3 + 14);
}

TEST(CheckCheckpoint, ReportsWhetherEverythingIsFp32) {
  const auto fp32 = Check(TinyTensors());
  ASSERT_TRUE(fp32.ok()) << fp32.status();
  EXPECT_TRUE(fp32->all_fp32);
  EXPECT_TRUE(fp32->extra_tensors.empty());
  EXPECT_FALSE(Check(TinyTensors("BF16"))->all_fp32);
  EXPECT_FALSE(Check(TinyTensors("F16"))->all_fp32);
  std::vector<WrittenTensor> mixed = TinyTensors();
  std::vector<WrittenTensor> halves = TinyTensors("F16");
  Named(mixed, "model.norm.weight") = Named(halves, "model.norm.weight");
  EXPECT_FALSE(Check(mixed)->all_fp32);
}

TEST(CheckCheckpoint, NamesAMissingTensorAndItsShape) {
  std::vector<WrittenTensor> tensors = TinyTensors();
  Named(tensors, "model.layers.1.self_attn.k_proj.bias").name = "other";
  const absl::Status status = Check(tensors).status();
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_NE(status.message().find("model.layers.1.self_attn.k_proj.bias"), StringView::npos);
  EXPECT_NE(status.message().find("[8]"), StringView::npos);
}

TEST(CheckCheckpoint, NamesAMisshapenTensorAndBothShapes) {
  std::vector<WrittenTensor> tensors = TinyTensors();
  Named(tensors, "model.layers.0.mlp.down_proj.weight").shape = {10, 24};
  const absl::Status status = Check(tensors).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_NE(status.message().find("model.layers.0.mlp.down_proj.weight"), StringView::npos);
  EXPECT_NE(status.message().find("[10, 24]"), StringView::npos);
  EXPECT_NE(status.message().find("[24, 10]"), StringView::npos);
}

TEST(CheckCheckpoint, NamesATensorOfADTypeThatCannotBeComputedWith) {
  std::vector<WrittenTensor> tensors = TinyTensors();
  Named(tensors, "model.norm.weight").dtype = "I32";
  const absl::Status status = Check(tensors).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_NE(status.message().find("model.norm.weight"), StringView::npos);
  EXPECT_NE(status.message().find("I32"), StringView::npos);
}

TEST(CheckCheckpoint, ListsExtraTensorsButNotThoseKnownToBeUnused) {
  std::vector<WrittenTensor> tensors = TinyTensors("F32", {.is_tied = true});
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {0}, ""});
  tensors.push_back({"lm_head.weight", "F32", {0}, ""});
  tensors.push_back({"model.vision.weight", "I8", {1}, "x"});
  const auto tied = Check(tensors, {.is_tied = true});
  ASSERT_TRUE(tied.ok()) << tied.status();
  EXPECT_EQ(tied->extra_tensors, std::vector<std::string>{"model.vision.weight"});
  EXPECT_FALSE(Check(tensors).ok());  // the head of an untied model is not empty
}

}  // namespace
}  // namespace cohort
