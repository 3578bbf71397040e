#include "runtime/tokenizer.h"

#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_format.h"
#include "runtime/json.h"
#include "runtime/tokenizer_added.h"
#include "runtime/tokenizer_bpe.h"
#include "runtime/tokenizer_file.h"
#include "runtime/tokenizer_nfc.h"
#include "runtime/tokenizer_regex.h"
#include "runtime/utf8.h"

namespace cohort {
namespace {

constexpr int64_t kMostFileBytes = int64_t{256} << 20;

// How GPT-2 cuts text into words: what a ByteLevel pre-tokenizer with use_regex does.
constexpr char kWordPattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// What one call of Encode() works with.
struct Scratch {
  RegexScratch regex;
  BpeScratch bpe;
};

absl::StatusOr<std::vector<SplitPattern>> CompilePatterns(const std::vector<SplitRule>& rules) {
  std::vector<SplitPattern> patterns;
  for (const SplitRule& rule : rules) {
    absl::StatusOr<SplitPattern> pattern =
        rule.is_regex ? SplitPattern::Regex(rule.pattern) : SplitPattern::Literal(rule.pattern);
    if (!pattern.ok()) return Annotate(pattern.status(), "pre_tokenizer Split");
    patterns.push_back(*std::move(pattern));
  }
  return patterns;
}

AddedTokenMatcher MatcherOf(const TokenizerFile& file, bool normalized) {
  std::vector<AddedToken> tokens;
  for (const AddedToken& token : file.added_tokens) {
    if (token.normalized != normalized) continue;
    tokens.push_back(token);
    if (normalized && file.normalizes_nfc) tokens.back().content = NormalizeNfc(token.content);
  }
  return AddedTokenMatcher(std::move(tokens));
}

}  // namespace

class Tokenizer::State {
 public:
  static absl::StatusOr<std::unique_ptr<State>> Create(TokenizerFile file) {
    ASSIGN_OR_RETURN(std::vector<SplitPattern> splits, CompilePatterns(file.pre_tokenizer.splits));
    ASSIGN_OR_RETURN(SplitPattern words, SplitPattern::Regex(kWordPattern));
    ASSIGN_OR_RETURN(BpeEncoder bpe, BpeEncoder::Create(std::move(file.model)));
    return std::unique_ptr<State>(
        new State(std::move(file), std::move(splits), std::move(words), std::move(bpe)));
  }

  absl::Status Encode(StringView text, bool parse_added, std::vector<int32_t>& ids) const {
    Scratch scratch;
    const auto token = [&ids](int32_t id) { ids.push_back(id); };
    const auto pieces = [&](StringView segment) { return EncodePieces(segment, 0, scratch, ids); };
    const auto segment = [&](StringView raw) {
      const std::string normal = normalizes_nfc_ ? NormalizeNfc(raw) : std::string(raw);
      return parse_added ? normal_matcher_.Split(normal, token, pieces) : pieces(normal);
    };
    return parse_added ? raw_matcher_.Split(text, token, segment) : segment(text);
  }

  StringView bytes(int32_t id) const {
    return id >= 0 && id < size() ? StringView(token_bytes_[static_cast<size_t>(id)])
                                  : StringView();
  }
  bool is_special(int32_t id) const {
    return id >= 0 && id < size() && is_special_[static_cast<size_t>(id)];
  }
  int64_t size() const { return static_cast<int64_t>(token_bytes_.size()); }
  int32_t id_of_added(StringView text) const {
    const auto found = added_ids_.find(text);
    return found == added_ids_.end() ? -1 : found->second;
  }

 private:
  State(TokenizerFile file, std::vector<SplitPattern> splits, SplitPattern words, BpeEncoder bpe)
      : normalizes_nfc_(file.normalizes_nfc),
        rules_(std::move(file.pre_tokenizer)),
        raw_matcher_(MatcherOf(file, false)),
        normal_matcher_(MatcherOf(file, true)),
        splits_(std::move(splits)),
        words_(std::move(words)),
        bpe_(std::move(bpe)),
        token_bytes_(std::move(file.token_bytes)),
        is_special_(token_bytes_.size()) {
    for (const AddedToken& token : file.added_tokens) {
      added_ids_.emplace(token.content, token.id);
      is_special_[static_cast<size_t>(token.id)] = token.special;
    }
  }

  // Cuts a normalised text without added tokens by the rules from `stage` on, then merges.
  absl::Status EncodePieces(StringView text, size_t stage, Scratch& scratch,
                            std::vector<int32_t>& ids) const {
    if (text.empty()) return absl::OkStatus();
    if (stage == splits_.size()) return EncodeByteLevel(text, scratch, ids);
    return splits_[stage].Split(text, scratch.regex, [&](StringView piece) {
      return EncodePieces(piece, stage + 1, scratch, ids);
    });
  }

  absl::Status EncodeByteLevel(StringView piece, Scratch& scratch,
                               std::vector<int32_t>& ids) const {
    std::string prefixed;
    if (rules_.adds_prefix_space && piece[0] != ' ') {
      prefixed = absl::StrCat(" ", piece);
      piece = prefixed;
    }
    if (!rules_.splits_words) return bpe_.Encode(piece, scratch.bpe, ids);
    return words_.Split(piece, scratch.regex,
                        [&](StringView word) { return bpe_.Encode(word, scratch.bpe, ids); });
  }

  const bool normalizes_nfc_;
  const PreTokenizerRules rules_;
  const AddedTokenMatcher raw_matcher_;
  const AddedTokenMatcher normal_matcher_;
  const std::vector<SplitPattern> splits_;  // one per rules_.splits
  const SplitPattern words_;
  const BpeEncoder bpe_;
  const std::vector<std::string> token_bytes_;  // by id
  std::vector<bool> is_special_;                // by id
  absl::flat_hash_map<std::string, int32_t> added_ids_;
};

Tokenizer::Tokenizer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Parse(StringView json, StringView what) {
  ASSIGN_OR_RETURN(const Json root, ParseJson(json, what));
  absl::StatusOr<TokenizerFile> file = ReadTokenizerFile(root);
  if (!file.ok()) return Annotate(file.status(), what);
  absl::StatusOr<std::unique_ptr<State>> state = State::Create(*std::move(file));
  if (!state.ok()) return Annotate(state.status(), what);
  return std::unique_ptr<Tokenizer>(new Tokenizer(*std::move(state)));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& model_dir) {
  const std::string path = model_dir + "/tokenizer.json";
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMostFileBytes));
  return Parse(text, path);
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(StringView text, bool parse_special) const {
  if (const size_t valid = Utf8Prefix(text); valid != text.size()) {
    return absl::InvalidArgumentError(absl::StrFormat("text is not UTF-8: byte 0x%02X at offset %d",
                                                      static_cast<unsigned char>(text[valid]),
                                                      valid));
  }
  std::vector<int32_t> ids;
  RETURN_IF_ERROR(state_->Encode(text, parse_special, ids));
  return ids;
}

StringView Tokenizer::Bytes(int32_t id) const { return state_->bytes(id); }

bool Tokenizer::IsSpecial(int32_t id) const { return state_->is_special(id); }

std::string Tokenizer::Decode(absl::Span<const int32_t> ids, bool skip_special) const {
  IncrementalDecoder decoder(*this, skip_special);
  std::string text = decoder.Append(ids);
  text += decoder.Flush();
  return text;
}

int64_t Tokenizer::size() const { return state_->size(); }

int32_t Tokenizer::IdOfAddedToken(StringView text) const { return state_->id_of_added(text); }

}  // namespace cohort
