#include "runtime/tokenizer_file.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_split.h"
#include "runtime/utf8.h"

namespace cohort {
namespace {

// Keys point into the parsed file.
using Vocabulary = absl::flat_hash_map<StringView, int32_t>;

// Byte-level text spells each byte as one printable character: the 188 bytes that print in Latin-1
// as themselves, the others, in order, as U+0100 and up. Index: code point; -1: stands for no byte.
class ByteAlphabet {
 public:
  ByteAlphabet() {
    byte_of_.fill(-1);
    size_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool prints =
          (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
      byte_of_[prints ? static_cast<size_t>(byte) : next++] = static_cast<int16_t>(byte);
    }
  }

  // Appends the bytes that `text` spells; false when it is not byte-level text.
  bool Spell(StringView text, std::string& bytes) const {
    for (size_t at = 0; at < text.size();) {
      const Utf8Unit unit = FirstUtf8Unit(text.substr(at));
      if (unit.code_point >= byte_of_.size() || byte_of_[unit.code_point] < 0) return false;
      bytes += static_cast<char>(byte_of_[unit.code_point]);
      at += unit.length;
    }
    return true;
  }

 private:
  std::array<int16_t, 256 + 68> byte_of_;
};

absl::StatusOr<const Json*> Model(const Json& root) {
  const Json* model = root.Find("model");
  if (model == nullptr || !model->is_object()) {
    return absl::InvalidArgumentError("model is not an object");
  }
  absl::StatusOr<std::string> type = RequiredString(*model, "type");
  if (!type.ok()) return Annotate(type.status(), "model");
  if (*type != "BPE") {
    return absl::InvalidArgumentError(absl::StrCat("model of type '", *type, "' is not supported"));
  }
  return model;
}

absl::Status CheckModelOptions(const Json& model) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    ASSIGN_OR_RETURN(const std::string affix, StringMember(model, key, ""));
    if (!affix.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("model.", key, " '", affix, "' is not supported"));
    }
  }
  ASSIGN_OR_RETURN(const bool byte_fallback, BoolMember(model, "byte_fallback", false));
  if (byte_fallback) return absl::InvalidArgumentError("model.byte_fallback is not supported");
  if (const Json* dropout = model.Find("dropout"); dropout != nullptr) {
    const absl::StatusOr<double> probability = dropout->AsReal();
    if (!probability.ok()) return Annotate(probability.status(), "model.dropout");
    if (*probability != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("model.dropout ", *probability, " is not supported"));
    }
  }
  return absl::OkStatus();
}

// Gives `text` the id, provided that ids stay below token_bytes.size() and nothing has it yet.
// `taken` holds the owner of each id; null views are free.
absl::Status Claim(int64_t id, StringView text, StringView where, std::vector<StringView>& taken) {
  if (id < 0 || id >= static_cast<int64_t>(taken.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": ", JsonQuote(text), " has the id ", id, "; the ids of ",
                     taken.size(), " tokens are 0 to ", taken.size() - 1, " without gaps"));
  }
  StringView& owner = taken[static_cast<size_t>(id)];
  if (owner.data() != nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": ", JsonQuote(text), " has the id ", id, " of ", JsonQuote(owner)));
  }
  owner = text;
  return absl::OkStatus();
}

absl::StatusOr<Vocabulary> ReadVocabulary(const Json& model, const std::vector<AddedToken>& added,
                                          std::vector<StringView>& texts) {
  const Json* vocab = model.Find("vocab");
  if (vocab == nullptr || !vocab->is_object() || vocab->members().empty()) {
    return absl::InvalidArgumentError("model.vocab is not an object with tokens");
  }
  Vocabulary ids;
  ids.reserve(vocab->members().size());
  for (const auto& [text, value] : vocab->members()) {
    const absl::StatusOr<int64_t> id = value.AsInteger();
    if (!id.ok()) {
      return Annotate(id.status(), absl::StrCat("model.vocab[", JsonQuote(text), "]"));
    }
    if (text.empty()) return absl::InvalidArgumentError("model.vocab has an empty token");
    // Claim() refuses what does not fit into 32 bits.
    ids.emplace(text, static_cast<int32_t>(std::clamp<int64_t>(*id, -1, INT32_MAX)));
  }
  const auto is_new = [&ids](const AddedToken& token) { return !ids.contains(token.content); };
  texts.resize(ids.size() + static_cast<size_t>(std::count_if(added.begin(), added.end(), is_new)));
  for (const auto& [text, value] : vocab->members()) {
    RETURN_IF_ERROR(Claim(*value.AsInteger(), text, "model.vocab", texts));
  }
  return ids;
}

absl::Status ClaimAddedTokens(const std::vector<AddedToken>& added, const Vocabulary& vocabulary,
                              std::vector<StringView>& texts) {
  absl::flat_hash_set<StringView> seen;
  for (const AddedToken& token : added) {
    if (!seen.insert(token.content).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("added_tokens: ", JsonQuote(token.content), " appears twice"));
    }
    const auto known = vocabulary.find(token.content);
    if (known == vocabulary.end()) {
      RETURN_IF_ERROR(Claim(token.id, token.content, "added_tokens", texts));
    } else if (known->second != token.id) {
      return absl::InvalidArgumentError(absl::StrCat("added_tokens: ", JsonQuote(token.content),
                                                     " has the id ", token.id,
                                                     ", but model.vocab gives it ", known->second));
    }
  }
  return absl::OkStatus();
}

// The bytes of every token: an added token and unk_token stand for their text, the others spell.
absl::StatusOr<std::vector<std::string>> SpellTokens(const std::vector<StringView>& texts,
                                                     const std::vector<AddedToken>& added,
                                                     int32_t unknown_id) {
  std::vector<bool> is_verbatim(texts.size());
  for (const AddedToken& token : added) is_verbatim[static_cast<size_t>(token.id)] = true;
  if (unknown_id >= 0) is_verbatim[static_cast<size_t>(unknown_id)] = true;
  const ByteAlphabet alphabet;
  std::vector<std::string> bytes(texts.size());
  for (size_t id = 0; id < texts.size(); ++id) {
    if (is_verbatim[id]) {
      bytes[id] = std::string(texts[id]);
    } else if (!alphabet.Spell(texts[id], bytes[id])) {
      return absl::InvalidArgumentError(absl::StrCat("model.vocab: token ", id, ", ",
                                                     JsonQuote(texts[id]),
                                                     ", has a character that stands for no byte"));
    }
  }
  return bytes;
}

std::array<int32_t, 256> ByteIds(const Vocabulary& vocabulary) {
  std::array<int32_t, 256> ids;
  ids.fill(-1);
  const ByteAlphabet alphabet;
  std::string byte;
  for (const auto& [text, id] : vocabulary) {
    if (text.size() > 2) continue;  // the alphabet's characters have one or two bytes
    byte.clear();
    if (alphabet.Spell(text, byte) && byte.size() == 1)
      ids[static_cast<unsigned char>(byte[0])] = id;
  }
  return ids;
}

// The two sides of a merge: "a b" or ["a", "b"].
absl::StatusOr<std::pair<std::string, std::string>> ReadPair(const Json& item) {
  if (item.is_array() && item.elements().size() == 2) {
    ASSIGN_OR_RETURN(std::string left, item.elements()[0].AsString());
    ASSIGN_OR_RETURN(std::string right, item.elements()[1].AsString());
    return std::make_pair(std::move(left), std::move(right));
  }
  if (!item.is_string()) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected \"a b\" or [\"a\", \"b\"], found ", item.kind_name()));
  }
  ASSIGN_OR_RETURN(const std::string text, item.AsString());
  std::pair<std::string, std::string> sides;
  const size_t space = text.find(' ');
  if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(JsonQuote(text), " is not two tokens with a space between"));
  }
  return std::make_pair(text.substr(0, space), text.substr(space + 1));
}

absl::StatusOr<Merge> ReadMerge(const Json& item, const Vocabulary& vocabulary) {
  ASSIGN_OR_RETURN(const auto sides, ReadPair(item));
  const std::string whole = sides.first + sides.second;
  std::array<int32_t, 3> ids{};
  const std::array<StringView, 3> texts = {sides.first, sides.second, whole};
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto found = vocabulary.find(texts[i]);
    if (found == vocabulary.end()) {
      return absl::InvalidArgumentError(absl::StrCat(item.Dump(), " needs the token ",
                                                     JsonQuote(texts[i]),
                                                     ", which model.vocab does not have"));
    }
    ids[i] = found->second;
  }
  return Merge{ids[0], ids[1], ids[2]};
}

absl::StatusOr<std::vector<Merge>> ReadMerges(const Json& model, const Vocabulary& vocabulary) {
  const Json* items = model.Find("merges");
  if (items == nullptr || !items->is_array()) {
    return absl::InvalidArgumentError("model.merges is not a list");
  }
  std::vector<Merge> merges;
  merges.reserve(items->elements().size());
  for (const Json& item : items->elements()) {
    absl::StatusOr<Merge> merge = ReadMerge(item, vocabulary);
    if (!merge.ok()) {
      return Annotate(merge.status(), absl::StrCat("model.merges[", merges.size(), "]"));
    }
    merges.push_back(*merge);
  }
  return merges;
}

absl::StatusOr<int32_t> ReadUnknownId(const Json& model, const Vocabulary& vocabulary) {
  if (model.Find("unk_token") == nullptr) return -1;
  ASSIGN_OR_RETURN(const std::string text, RequiredString(model, "unk_token"));
  const auto found = vocabulary.find(text);
  if (found == vocabulary.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("model.unk_token ", JsonQuote(text), " is not in model.vocab"));
  }
  return found->second;
}

absl::Status ReadModel(const Json& root, TokenizerFile& file) {
  ASSIGN_OR_RETURN(const Json* model, Model(root));
  RETURN_IF_ERROR(CheckModelOptions(*model));
  std::vector<StringView> texts;  // by id
  ASSIGN_OR_RETURN(const Vocabulary vocabulary, ReadVocabulary(*model, file.added_tokens, texts));
  RETURN_IF_ERROR(ClaimAddedTokens(file.added_tokens, vocabulary, texts));
  ASSIGN_OR_RETURN(file.model.unknown_id, ReadUnknownId(*model, vocabulary));
  ASSIGN_OR_RETURN(file.token_bytes, SpellTokens(texts, file.added_tokens, file.model.unknown_id));
  file.model.byte_ids = ByteIds(vocabulary);
  ASSIGN_OR_RETURN(file.model.merges, ReadMerges(*model, vocabulary));
  ASSIGN_OR_RETURN(file.model.fuses_unknown, BoolMember(*model, "fuse_unk", false));
  ASSIGN_OR_RETURN(const bool ignores_merges, BoolMember(*model, "ignore_merges", false));
  if (ignores_merges) {
    const ByteAlphabet alphabet;
    for (const auto& [text, id] : vocabulary) {
      std::string bytes;
      if (alphabet.Spell(text, bytes)) file.model.whole_pieces.emplace(std::move(bytes), id);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerFile> ReadTokenizerFile(const Json& root) {
  if (!root.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat("expected an object, found ", root.kind_name()));
  }
  TokenizerFile file;
  ASSIGN_OR_RETURN(file.normalizes_nfc, ReadNormalizer(root.Find("normalizer")));
  ASSIGN_OR_RETURN(file.pre_tokenizer, ReadPreTokenizer(root.Find("pre_tokenizer")));
  RETURN_IF_ERROR(CheckPostProcessor(root.Find("post_processor")));
  RETURN_IF_ERROR(CheckDecoder(root.Find("decoder")));
  ASSIGN_OR_RETURN(file.added_tokens, ReadAddedTokens(root.Find("added_tokens")));
  RETURN_IF_ERROR(ReadModel(root, file));
  return file;
}

}  // namespace cohort
