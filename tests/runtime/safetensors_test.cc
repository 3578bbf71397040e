#include "runtime/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "tests/runtime/checkpoint_writer.h"

namespace cohort {
namespace {

absl::StatusOr<std::vector<StoredTensor>> Parse(const std::string& file) {
  return ParseSafetensorsHeader(file, file.size(), "a.safetensors");
}

std::string Fault(const std::string& file) {
  const absl::Status status = Parse(file).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_EQ(status.message().find("a.safetensors: "), 0u) << status;
  return std::string(status.message());
}

void ExpectFault(const std::string& file, StringView part) {
  const std::string fault = Fault(file);
  EXPECT_NE(fault.find(std::string(part)), std::string::npos) << fault << " lacks " << part;
}

// One F32 tensor "a" of two elements with this entry, over `bytes` bytes of data.
std::string OneEntry(StringView entry, size_t bytes = 8) {
  return SafetensorsFile(absl::StrCat("{\"a\":", entry, "}"), std::string(bytes, 'x'));
}

TEST(SafetensorsHeader, GivesTensorsInTheOrderOfTheirData) {
  const std::string header = R"({"b":{"dtype":"BF16","shape":[2,1],"data_offsets":[8,12]},)"
                             R"("__metadata__":{"format":"pt"},)"
                             R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}   )";
  const auto tensors = Parse(SafetensorsFile(header, std::string(12, 'x')));
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 2u);
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[0].begin, 8 + header.size());
  EXPECT_EQ((*tensors)[1].dtype, "BF16");
  EXPECT_EQ((*tensors)[1].shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ((*tensors)[1].end, 8 + header.size() + 12);
}

TEST(SafetensorsHeader, AcceptsScalarsEmptyTensorsAndEmptyFiles) {
  EXPECT_TRUE(Parse(SafetensorsFile("{}", "")).ok());
  EXPECT_TRUE(Parse(OneEntry(R"({"dtype":"F64","shape":[],"data_offsets":[0,8]})")).ok());
  EXPECT_TRUE(Parse(OneEntry(R"({"dtype":"I64","shape":[0,7],"data_offsets":[0,0]})", 0)).ok());
  EXPECT_TRUE(Parse(OneEntry(R"({"dtype":"F4","shape":[4],"data_offsets":[0,2]})", 2)).ok());
}

TEST(SafetensorsHeader, RefusesLengthsThatDoNotFit) {
  const std::string file = OneEntry(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})");
  ASSERT_TRUE(Parse(file).ok());
  for (size_t size = 0; size < file.size(); ++size) {
    Fault(file.substr(0, size));  // truncated anywhere
  }
  ExpectFault(file.substr(0, 0), "empty or truncated");
  ExpectFault(file.substr(0, file.size() - 1), "truncated");
  ExpectFault(file + "x", "trailing bytes");
  const auto with_length = [&](uint64_t length) {
    return std::string(reinterpret_cast<const char*>(&length), 8) + file.substr(8);
  };
  ExpectFault(with_length(100'000'001), "limit of 100000000");
  ExpectFault(with_length(~uint64_t{0}), "limit");
  ExpectFault(with_length(file.size() - 7), "longer than the file");
  ExpectFault(with_length(0), "does not begin with '{'");
}

TEST(SafetensorsHeader, RefusesTextThatIsNotAStrictObject) {
  for (const StringView header : {"[]", " {}", "{\"a\":1}", "{", "{}{}", "{\"a\":null}"}) {
    Fault(SafetensorsFile(header, ""));
  }
  ExpectFault(SafetensorsFile(R"({"__metadata__":{"a":1}})", ""), "__metadata__");
  ExpectFault(SafetensorsFile(R"({"__metadata__":[]})", ""), "__metadata__");
  const std::string entry = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  ExpectFault(SafetensorsFile(absl::StrCat("{", entry, ",", entry, "}"), std::string(8, 'x')),
              "duplicate key \"a\"");
}

TEST(SafetensorsHeader, RefusesEntriesThatContradictThemselves) {
  const StringView faults[][2] = {
      {R"({"dtype":"F31","shape":[2],"data_offsets":[0,8]})", "\"F31\""},
      {R"({"shape":[2],"data_offsets":[0,8]})", "dtype"},
      {R"({"dtype":"F32","data_offsets":[0,8]})", "shape"},
      {R"({"dtype":"F32","shape":[2]})", "data_offsets"},
      {R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})", "[3]"},
      {R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})", "-2"},
      {R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})", "2.0"},
      {R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})", "not a range"},
      {R"({"dtype":"F32","shape":[2],"data_offsets":[0,4,8]})", "not a range"},
      {R"({"dtype":"F6_E2M3","shape":[1],"data_offsets":[0,1]})", "F6_E2M3"},
      {R"({"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,8]})", "do not fit"},
      {R"({"dtype":"F32","shape":[2305843009213693954],"data_offsets":[0,8]})", "do not fit"},
  };
  for (const auto& [entry, part] : faults) {
    ExpectFault(OneEntry(entry), part);
    ExpectFault(OneEntry(entry), "tensor \"a\"");
  }
}

TEST(SafetensorsHeader, RefusesHolesAndOverlaps) {
  const auto two = [](StringView first, StringView second) {
    return SafetensorsFile(
        absl::StrCat(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)", first,
                     R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)", second, "}}"),
        std::string(9, 'x'));
  };
  ExpectFault(two("[0,4]", "[5,9]"), "a hole");
  ExpectFault(two("[1,5]", "[5,9]"), "a hole");
  ExpectFault(two("[0,4]", "[3,7]"), "overlap");
  ExpectFault(two("[0,4]", "[0,4]"), "overlap");
  ExpectFault(two("[0,4]", "[4,8]"), "trailing bytes");
  ExpectFault(OneEntry(R"({"dtype":"F32","shape":[4],"data_offsets":[0,16]})"), "truncated");
}

std::string TwoBytes(StringView name, StringView bytes) {
  return SafetensorsFile({{std::string(name), "U8", {2}, std::string(bytes)}});
}

TEST(Checkpoint, ReadsASingleFileThroughALink) {
  const TemporaryDirectory blobs, directory;
  blobs.Write("blob", TwoBytes("a", "xy"));
  std::filesystem::create_symlink(blobs.Path("blob"), directory.Path("model.safetensors"));
  const auto checkpoint = Checkpoint::Open(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const StoredTensor* tensor = (*checkpoint)->Find("a");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(std::memcmp((*checkpoint)->data(*tensor), "xy", 2), 0);
  (*checkpoint)->WillRead(*tensor, 0, 2);
  (*checkpoint)->DropPages(*tensor);
  EXPECT_EQ(std::memcmp((*checkpoint)->data(*tensor), "xy", 2), 0);
  EXPECT_EQ((*checkpoint)->Find("b"), nullptr);
}

TEST(Checkpoint, TakesEveryTensorFromWhereTheIndexPutsIt) {
  const TemporaryDirectory directory;
  directory.Write("1.safetensors", SafetensorsFile({{"a", "U8", {1}, "1"}, {"b", "U8", {1}, "2"}}));
  directory.Write("2.safetensors", SafetensorsFile({{"a", "U8", {1}, "3"}, {"c", "U8", {1}, "4"}}));
  directory.Write("stray.safetensors", "not one");
  directory.Write("model.safetensors.index.json",
                  R"({"metadata": {"total_size": 3}, "weight_map":
                      {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}})");
  const auto checkpoint = Checkpoint::Open(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->tensors().size(), 3u);
  EXPECT_EQ(*(*checkpoint)->data(*(*checkpoint)->Find("a")), '3');
  EXPECT_EQ(*(*checkpoint)->data(*(*checkpoint)->Find("b")), '2');
  EXPECT_EQ(*(*checkpoint)->data(*(*checkpoint)->Find("c")), '4');
}

absl::Status StatusWithIndex(StringView index) {
  const TemporaryDirectory directory;
  directory.Write("1.safetensors", TwoBytes("a", "xy"));
  directory.Write("broken.safetensors", "not one");
  directory.Write("model.safetensors.index.json", index);
  const absl::Status status = Checkpoint::Open(directory.path()).status();
  EXPECT_NE(status.message().find("model.safetensors.index.json"), StringView::npos) << status;
  return status;
}

void ExpectIndexFault(StringView index, StringView part) {
  const absl::Status status = StatusWithIndex(index);
  EXPECT_NE(status.message().find(part), StringView::npos) << status << " lacks " << part;
}

TEST(Checkpoint, RefusesIndexesThatDoNotHold) {
  ExpectIndexFault("{", "not valid JSON");
  ExpectIndexFault("[]", "weight_map");
  ExpectIndexFault(R"({"weight_map": []})", "weight_map");
  ExpectIndexFault(R"({"weight_map": {}})", "weight_map");
  ExpectIndexFault(R"({"weight_map": {"a": 1}})", "\"a\"");
  ExpectIndexFault(R"({"weight_map": {"a": "1.safetensors", "a": "1.safetensors"}})", "duplicate");
  ExpectIndexFault(R"({"weight_map": {"a": "missing.safetensors"}})", "missing.safetensors");
  ExpectIndexFault(R"({"weight_map": {"a": "broken.safetensors"}})", "broken.safetensors");
  ExpectIndexFault(R"({"weight_map": {"a": "1.safetensors", "lost": "1.safetensors"}})",
                   "\"lost\" is not in \"1.safetensors\"");
}

TEST(Checkpoint, RefusesFileNamesThatLeaveTheDirectory) {
  for (const StringView name : {"../1.safetensors", "/etc/passwd", "sub/1.safetensors", "..", ".",
                                "", "a\\\\b", "1.safetensors\\u0000"}) {
    const absl::Status status =
        StatusWithIndex(absl::StrCat(R"({"weight_map": {"a": ")", name, R"("}})"));
    EXPECT_NE(status.message().find("not a plain file name"), StringView::npos) << status;
  }
}

TEST(Checkpoint, NamesWhatIsMissing) {
  const TemporaryDirectory directory;
  const absl::Status nothing = Checkpoint::Open(directory.path()).status();
  EXPECT_TRUE(absl::IsNotFound(nothing)) << nothing;
  EXPECT_NE(nothing.message().find("model.safetensors"), StringView::npos);
  directory.Write("model.safetensors", "");
  const absl::Status empty = Checkpoint::Open(directory.path()).status();
  EXPECT_TRUE(absl::IsInvalidArgument(empty)) << empty;
  std::filesystem::remove(directory.Path("model.safetensors"));
  std::filesystem::create_directory(directory.Path("model.safetensors"));
  EXPECT_FALSE(Checkpoint::Open(directory.path()).ok());
}

}  // namespace
}  // namespace cohort
