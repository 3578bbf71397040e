#include "runtime/checkpoint_digest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/runtime/checkpoint_writer.h"

namespace cohort {
namespace {

using testing::HasSubstr;

const auto kNever = [] { return false; };

WrittenTensor Bytes(const std::string& name, size_t bytes, char fill = 'x') {
  return {name, "U8", {static_cast<int64_t>(bytes)}, std::string(bytes, fill)};
}

std::vector<CheckpointPart> Digest(const std::vector<WrittenTensor>& tensors,
                                   StringView config = "{}") {
  const TemporaryDirectory directory;
  directory.Write("config.json", config);
  directory.Write("model.safetensors", SafetensorsFile(tensors));
  return DigestCheckpoint(directory.path(), /*with_weights=*/true, kNever).value();
}

TEST(CheckpointDigest, HashesAreThoseOfFnv) {
  EXPECT_EQ(HashBytes(""), 0xcbf29ce484222325u);
  EXPECT_EQ(HashBytes("a"), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(HashBytes("foobar"), 0x85944171f73967e8u);
}

TEST(CheckpointDigest, TheSameTensorsInOneFileOrInTwoAreTheSame) {
  const std::vector<CheckpointPart> whole = Digest({Bytes("a", 10), Bytes("b", 20)});
  ASSERT_EQ(whole.size(), 3u);
  EXPECT_EQ(whole[0].name, "config.json");
  EXPECT_EQ(whole[1].name, "tensor a");
  EXPECT_EQ(whole[1].form, "U8 [10]");
  const TemporaryDirectory directory;
  directory.Write("config.json", "{}");
  directory.Write("one.safetensors", SafetensorsFile({Bytes("b", 20)}));
  directory.Write("two.safetensors", SafetensorsFile({Bytes("a", 10)}));
  directory.Write("model.safetensors.index.json",
                  R"({"weight_map": {"a": "two.safetensors", "b": "one.safetensors"}})");
  const auto split = DigestCheckpoint(directory.path(), true, kNever);
  ASSERT_TRUE(split.ok()) << split.status();
  EXPECT_EQ(DescribeDifference(whole, *split), "");
}

TEST(CheckpointDigest, NamesThePartThatDiffers) {
  const std::vector<CheckpointPart> ours = Digest({Bytes("a", 10), Bytes("b", 20)});
  EXPECT_THAT(DescribeDifference(ours, Digest({Bytes("a", 10), Bytes("b", 20)}, "{ }")),
              HasSubstr("config.json is 2 bytes, hash "));
  EXPECT_THAT(DescribeDifference(ours, Digest({Bytes("a", 10), Bytes("b", 20, 'y')})),
              HasSubstr("tensor b is U8 [20], hash "));
  EXPECT_THAT(DescribeDifference(ours, Digest({Bytes("a", 11), Bytes("b", 20)})),
              HasSubstr("here and U8 [11], hash "));
  EXPECT_EQ(DescribeDifference(ours, Digest({Bytes("b", 20)})), "tensor a is missing there");
  EXPECT_EQ(DescribeDifference(ours, Digest({Bytes("a", 10)})), "tensor b is missing there");
  EXPECT_EQ(DescribeDifference(Digest({Bytes("a", 10)}), ours), "tensor b is only there");
}

TEST(CheckpointDigest, LooksAtTheEndOfLongTensorsAndBetween) {
  constexpr size_t kBytes = (size_t{16} << 20) + 8192;
  const std::vector<CheckpointPart> ours = Digest({Bytes("long", kBytes)});
  for (const size_t changed : {size_t{16} << 20, kBytes - 1}) {
    WrittenTensor tensor = Bytes("long", kBytes);
    tensor.bytes[changed] = 'y';
    EXPECT_THAT(DescribeDifference(ours, Digest({tensor})), HasSubstr("tensor long"))
        << "byte " << changed;
  }
}

TEST(CheckpointDigest, WithoutWeightsOnlyTheConfigCounts) {
  const TemporaryDirectory directory;
  directory.Write("config.json", "{}");
  const auto parts = DigestCheckpoint(directory.path(), /*with_weights=*/false, kNever);
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_EQ(parts->size(), 1u);
  EXPECT_EQ(DigestCheckpoint("Qwen2-0.5B", false, kNever)->size(), 1u);
}

TEST(CheckpointDigest, SaysWhatCannotBeRead) {
  const absl::Status missing = DigestCheckpoint("/nonexistent", true, kNever).status();
  EXPECT_TRUE(absl::IsNotFound(missing));
  EXPECT_THAT(std::string(missing.message()), HasSubstr("/nonexistent"));
  const TemporaryDirectory directory;
  directory.Write("config.json", "{}");
  directory.Write("model.safetensors", SafetensorsFile({Bytes("a", 10)}));
  EXPECT_TRUE(
      absl::IsCancelled(DigestCheckpoint(directory.path(), true, [] { return true; }).status()));
}

}  // namespace
}  // namespace cohort
