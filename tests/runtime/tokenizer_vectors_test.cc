// Texts and ids that other implementations made: of a small tokenizer kept here, and of the real
// one where COHORT_TOKENIZER_DATA names a folder with it.
#include <gtest/gtest.h>

#include <cstdlib>

#include "runtime/chat_template.h"
#include "tests/runtime/tokenizer_fixture.h"

namespace cohort {
namespace {

constexpr char kSmall[] = COHORT_SOURCE_DIR "/tests/runtime/tokenizer_data";

std::unique_ptr<Tokenizer> LoadOrDie(const std::string& folder) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(folder);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

// The folder of the real tokenizer; empty when there is none.
std::string DataFolder() {
  const char* folder = std::getenv("COHORT_TOKENIZER_DATA");
  return folder == nullptr ? "" : folder;
}

TEST(TokenizerVectors, SmallTokenizerAgreesWithTheReference) {
  const auto tokenizer = LoadOrDie(kSmall);
  for (const auto& vector : ReadJsonLines(std::string(kSmall) + "/vectors.jsonl")) {
    const std::string text = vector["text"];
    SCOPED_TRACE(vector["text"].dump(-1, ' ', true));
    const std::vector<int32_t> ids = vector["ids"];
    EXPECT_EQ(EncodeOrDie(*tokenizer, text), ids);
    if (!vector.contains("decoded")) continue;
    EXPECT_EQ(tokenizer->Decode(ids, false), vector["decoded"]);
    EXPECT_EQ(tokenizer->Decode(ids, true), vector["without_special"]);
  }
}

TEST(TokenizerVectors, RealTokenizerAgreesInBothDirections) {
  const std::string folder = DataFolder();
  if (folder.empty()) GTEST_SKIP() << "COHORT_TOKENIZER_DATA is not set";
  const auto tokenizer = LoadOrDie(folder);
  const auto vectors = ReadJsonLines(folder + "/vectors.jsonl");
  EXPECT_FALSE(vectors.empty());
  for (const auto& vector : vectors) {
    SCOPED_TRACE(vector["text"].dump(-1, ' ', true));
    const std::string text = vector["text"];
    const std::vector<int32_t> ids = vector["ids"];
    EXPECT_EQ(EncodeOrDie(*tokenizer, text), ids);
    EXPECT_EQ(tokenizer->Decode(ids, false), vector.value("decoded", text));
  }
}

TEST(TokenizerVectors, RealTokenizerAgreesOnChats) {
  const std::string folder = DataFolder();
  if (folder.empty()) GTEST_SKIP() << "COHORT_TOKENIZER_DATA is not set";
  const auto tokenizer = LoadOrDie(folder);
  const auto vectors = ReadJsonLines(folder + "/chat_vectors.jsonl");
  EXPECT_FALSE(vectors.empty());
  for (const auto& vector : vectors) {
    SCOPED_TRACE(vector["text"].dump(-1, ' ', true));
    std::vector<ChatMessage> messages;
    for (const auto& message : vector["messages"]) {
      messages.push_back({message["role"], message["content"]});
    }
    const auto text = RenderChat(ChatTemplate(), messages, vector["add_generation_prompt"]);
    ASSERT_TRUE(text.ok()) << text.status();
    EXPECT_EQ(*text, vector["text"]);
    const std::vector<int32_t> ids = vector["ids"];
    EXPECT_EQ(EncodeOrDie(*tokenizer, *text), ids);
  }
}

TEST(TokenizerVectors, RealTokenizerHasItsTokens) {
  const std::string folder = DataFolder();
  if (folder.empty()) GTEST_SKIP() << "COHORT_TOKENIZER_DATA is not set";
  const auto tokenizer = LoadOrDie(folder);
  EXPECT_EQ(tokenizer->size(), 151646);
  EXPECT_EQ(tokenizer->IdOfAddedToken("<|im_end|>"), 151645);
  EXPECT_TRUE(tokenizer->IsSpecial(151643));
  EXPECT_EQ(tokenizer->Bytes(151646), "");
  for (int32_t id = 0; id < 151643; ++id) {
    ASSERT_FALSE(tokenizer->Bytes(id).empty()) << id;
    ASSERT_FALSE(tokenizer->IsSpecial(id)) << id;
  }
}

}  // namespace
}  // namespace cohort
