// The components of a tokenizer.json around its model.
#include <limits>

#include "runtime/tokenizer_file.h"

namespace cohort {
namespace {

absl::Status Unsupported(StringView component, StringView type) {
  return absl::InvalidArgumentError(
      absl::StrCat(component, " of type '", type, "' is not supported"));
}

absl::StatusOr<std::string> TypeOf(const Json* component, StringView name) {
  if (component == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(name, " is missing"));
  }
  if (!component->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": expected an object, found ", component->kind_name()));
  }
  absl::StatusOr<std::string> type = RequiredString(*component, "type");
  return type.ok() ? type : Annotate(type.status(), name);
}

// The list `key` of a Sequence.
absl::StatusOr<const Json*> Members(const Json& sequence, StringView name, StringView key) {
  const Json* members = sequence.Find(key);
  if (members == nullptr || !members->is_array()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": ", key, " is not a list"));
  }
  return members;
}

absl::StatusOr<SplitRule> ReadSplit(const Json& split) {
  ASSIGN_OR_RETURN(const std::string behavior, RequiredString(split, "behavior"));
  if (behavior != "Isolated") {
    return absl::InvalidArgumentError(
        absl::StrCat("pre_tokenizer Split with behavior '", behavior, "' is not supported"));
  }
  ASSIGN_OR_RETURN(const bool invert, BoolMember(split, "invert", false));
  if (invert) {
    return absl::InvalidArgumentError("pre_tokenizer Split with invert is not supported");
  }
  const Json* pattern = split.Find("pattern");
  if (pattern == nullptr || !pattern->is_object() || pattern->members().size() != 1) {
    return absl::InvalidArgumentError(
        "pre_tokenizer Split: pattern is not {\"Regex\": ...} or {\"String\": ...}");
  }
  SplitRule rule;
  rule.is_regex = pattern->members()[0].first == "Regex";
  ASSIGN_OR_RETURN(rule.pattern, RequiredString(*pattern, rule.is_regex ? "Regex" : "String"));
  if (rule.pattern.empty()) {
    return absl::InvalidArgumentError("pre_tokenizer Split: pattern is empty");
  }
  return rule;
}

absl::Status ReadByteLevel(const Json& component, PreTokenizerRules& rules) {
  ASSIGN_OR_RETURN(rules.adds_prefix_space, BoolMember(component, "add_prefix_space", true));
  ASSIGN_OR_RETURN(rules.splits_words, BoolMember(component, "use_regex", true));
  return absl::OkStatus();
}

absl::StatusOr<AddedToken> ReadAddedToken(const Json& item) {
  if (!item.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat("expected an object, found ", item.kind_name()));
  }
  AddedToken token;
  ASSIGN_OR_RETURN(token.content, RequiredString(item, "content"));
  if (token.content.empty()) return absl::InvalidArgumentError("content is empty");
  const Json* id = item.Find("id");
  if (id == nullptr) return absl::InvalidArgumentError("id is missing");
  const absl::StatusOr<int64_t> value = id->AsInteger();
  if (!value.ok()) return Annotate(value.status(), "id");
  if (*value < 0 || *value > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat("id ", *value, " is out of range"));
  }
  token.id = static_cast<int32_t>(*value);
  ASSIGN_OR_RETURN(token.special, BoolMember(item, "special", false));
  ASSIGN_OR_RETURN(token.normalized, BoolMember(item, "normalized", !token.special));
  ASSIGN_OR_RETURN(token.strips_left, BoolMember(item, "lstrip", false));
  ASSIGN_OR_RETURN(token.strips_right, BoolMember(item, "rstrip", false));
  ASSIGN_OR_RETURN(token.single_word, BoolMember(item, "single_word", false));
  return token;
}

}  // namespace

absl::StatusOr<bool> BoolMember(const Json& object, StringView key, bool otherwise) {
  const Json* member = object.Find(key);
  if (member == nullptr) return otherwise;
  absl::StatusOr<bool> value = member->AsBool();
  return value.ok() ? value : Annotate(value.status(), key);
}

absl::StatusOr<std::string> StringMember(const Json& object, StringView key, StringView otherwise) {
  const Json* member = object.Find(key);
  if (member == nullptr) return std::string(otherwise);
  absl::StatusOr<std::string> value = member->AsString();
  return value.ok() ? value : Annotate(value.status(), key);
}

absl::StatusOr<std::string> RequiredString(const Json& object, StringView key) {
  if (object.Find(key) == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(key, " is missing"));
  }
  return StringMember(object, key, "");
}

absl::StatusOr<bool> ReadNormalizer(const Json* normalizer) {
  if (normalizer == nullptr) return false;
  ASSIGN_OR_RETURN(const std::string type, TypeOf(normalizer, "normalizer"));
  if (type == "NFC") return true;
  if (type != "Sequence") return Unsupported("normalizer", type);
  ASSIGN_OR_RETURN(const Json* members, Members(*normalizer, "normalizer", "normalizers"));
  for (const Json& member : members->elements()) {
    ASSIGN_OR_RETURN(const std::string member_type, TypeOf(&member, "normalizer"));
    if (member_type != "NFC") return Unsupported("normalizer", member_type);
  }
  return !members->elements().empty();
}

absl::StatusOr<PreTokenizerRules> ReadPreTokenizer(const Json* pre_tokenizer) {
  PreTokenizerRules rules;
  ASSIGN_OR_RETURN(const std::string type, TypeOf(pre_tokenizer, "pre_tokenizer"));
  if (type == "ByteLevel") {
    RETURN_IF_ERROR(ReadByteLevel(*pre_tokenizer, rules));
    return rules;
  }
  if (type != "Sequence") return Unsupported("pre_tokenizer", type);
  ASSIGN_OR_RETURN(const Json* members, Members(*pre_tokenizer, "pre_tokenizer", "pretokenizers"));
  bool has_byte_level = false;
  for (const Json& member : members->elements()) {
    ASSIGN_OR_RETURN(const std::string member_type, TypeOf(&member, "pre_tokenizer"));
    if (has_byte_level) {
      return absl::InvalidArgumentError(
          absl::StrCat("pre_tokenizer '", member_type, "' after 'ByteLevel' is not supported"));
    }
    if (member_type == "ByteLevel") {
      RETURN_IF_ERROR(ReadByteLevel(member, rules));
      has_byte_level = true;
    } else if (member_type == "Split") {
      ASSIGN_OR_RETURN(SplitRule rule, ReadSplit(member));
      rules.splits.push_back(std::move(rule));
    } else {
      return Unsupported("pre_tokenizer", member_type);
    }
  }
  if (!has_byte_level) {
    return absl::InvalidArgumentError("pre_tokenizer has no 'ByteLevel'; only byte-level is known");
  }
  return rules;
}

absl::Status CheckPostProcessor(const Json* post_processor) {
  if (post_processor == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string type, TypeOf(post_processor, "post_processor"));
  if (type == "ByteLevel") return absl::OkStatus();  // changes offsets only
  if (type != "Sequence") return Unsupported("post_processor", type);
  ASSIGN_OR_RETURN(const Json* members, Members(*post_processor, "post_processor", "processors"));
  for (const Json& member : members->elements()) RETURN_IF_ERROR(CheckPostProcessor(&member));
  return absl::OkStatus();
}

absl::Status CheckDecoder(const Json* decoder) {
  ASSIGN_OR_RETURN(const std::string type, TypeOf(decoder, "decoder"));
  if (type == "ByteLevel") return absl::OkStatus();
  if (type != "Sequence") return Unsupported("decoder", type);
  ASSIGN_OR_RETURN(const Json* members, Members(*decoder, "decoder", "decoders"));
  if (members->elements().size() != 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "decoder: a sequence of ", members->elements().size(), " decoders is not supported"));
  }
  return CheckDecoder(&members->elements()[0]);
}

absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(const Json* added_tokens) {
  std::vector<AddedToken> tokens;
  if (added_tokens == nullptr) return tokens;
  if (!added_tokens->is_array()) {
    return absl::InvalidArgumentError(
        absl::StrCat("added_tokens: expected an array, found ", added_tokens->kind_name()));
  }
  for (const Json& item : added_tokens->elements()) {
    absl::StatusOr<AddedToken> token = ReadAddedToken(item);
    if (!token.ok()) {
      return Annotate(token.status(), absl::StrCat("added_tokens[", tokens.size(), "]"));
    }
    tokens.push_back(*std::move(token));
  }
  return tokens;
}

}  // namespace cohort
