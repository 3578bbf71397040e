#include "tests/runtime/tokenizer_fixture.h"

#include <fstream>

#include "kernels/check.h"
#include "runtime/utf8.h"

namespace cohort {
namespace {

constexpr char kQwen2Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

nlohmann::json TinyModel() {
  nlohmann::json vocab;
  for (int byte = 0; byte < 256; ++byte) {
    vocab[ByteLevelText(std::string(1, static_cast<char>(byte)))] = byte;
  }
  nlohmann::json merges;
  int id = 256;
  for (const auto& [left, right] : std::vector<std::pair<std::string, std::string>>{{"h", "e"},
                                                                                    {"l", "l"},
                                                                                    {"he", "ll"},
                                                                                    {"hell", "o"},
                                                                                    {"a", "a"},
                                                                                    {"aa", "aa"},
                                                                                    {"a", "b"},
                                                                                    {" ", "w"}}) {
    merges.push_back(ByteLevelText(left) + " " + ByteLevelText(right));
    vocab[ByteLevelText(left + right)] = id++;
  }
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", ""},
          {"end_of_word_suffix", ""},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"vocab", vocab},
          {"merges", merges}};
}

}  // namespace

std::string ByteLevelText(StringView bytes) {
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    uint32_t code_point = byte;
    if (byte < 33) code_point = 0x100u + byte;
    if (byte >= 127 && byte <= 160) code_point = 0x100u + 33 + byte - 127;
    if (byte == 173) code_point = 0x100u + 67;
    AppendUtf8(code_point, text);
  }
  return text;
}

nlohmann::json AddedTokenJson(int id, const std::string& content, bool special) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

nlohmann::json TinyTokenizerJson() {
  const nlohmann::json byte_level = {{"type", "ByteLevel"},
                                     {"add_prefix_space", false},
                                     {"trim_offsets", false},
                                     {"use_regex", false}};
  const nlohmann::json split = {{"type", "Split"},
                                {"pattern", {{"Regex", kQwen2Pattern}}},
                                {"behavior", "Isolated"},
                                {"invert", false}};
  const nlohmann::json sequence = {{"type", "Sequence"}, {"pretokenizers", {split, byte_level}}};
  const nlohmann::json added = {AddedTokenJson(264, "<|endoftext|>", true),
                                AddedTokenJson(265, "<|im_start|>", true),
                                AddedTokenJson(266, "<|im_end|>", true)};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", {{"type", "NFC"}}},
          {"pre_tokenizer", sequence},
          {"post_processor", byte_level},
          {"decoder", byte_level},
          {"model", TinyModel()}};
}

std::unique_ptr<Tokenizer> MakeTokenizer(const nlohmann::json& file) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      Tokenizer::Parse(file.dump(), "tokenizer.json");
  CHECK(tokenizer.ok()) << tokenizer.status().ToString();
  return *std::move(tokenizer);
}

std::string TokenizerError(const nlohmann::json& file) {
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      Tokenizer::Parse(file.dump(), "tokenizer.json");
  if (tokenizer.ok()) return "";
  CHECK(absl::IsInvalidArgument(tokenizer.status())) << tokenizer.status().ToString();
  return std::string(tokenizer.status().message());
}

std::vector<int32_t> EncodeOrDie(const Tokenizer& tokenizer, StringView text, bool parse_special) {
  absl::StatusOr<std::vector<int32_t>> ids = tokenizer.Encode(text, parse_special);
  CHECK(ids.ok()) << ids.status().ToString();
  return *std::move(ids);
}

std::vector<nlohmann::json> ReadJsonLines(const std::string& path) {
  std::ifstream file(path);
  CHECK(file.good()) << path;
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

}  // namespace cohort
