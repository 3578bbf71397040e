#include "runtime/chat_template.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "runtime/json.h"
#include "runtime/utf8.h"

namespace cohort {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{16} << 20;

// A published template: the FNV-1a hash of its text, normalised.
struct KnownTemplate {
  uint64_t hash;
  const char* name;
  bool any_role;
};
constexpr std::array<KnownTemplate, 3> kKnownTemplates = {{
    {0xbf92f6579c62ee48, "Qwen2", true},
    {0x210989d1dd4a9c4f, "Qwen2.5", false},
    {0xb9f56109559f71dd, "Qwen2.5", false},  // as first published: two braces in the tools' text
}};

uint64_t Hash(StringView text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char byte : text) {
    hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
  }
  return hash;
}

// A template without what differs between models that share it: the default system message.
struct NormalizedTemplate {
  std::string text;
  std::string default_system;
};

NormalizedTemplate Normalize(StringView source) {
  NormalizedTemplate normalized;
  // In a string literal of Jinja, a line break and its escape are the same.
  normalized.text = absl::StrReplaceAll(absl::StripAsciiWhitespace(source), {{"\\n", "\n"}});
  constexpr StringView kBegin = "'<|im_start|>system\n";
  constexpr StringView kEnd = "<|im_end|>\n'";
  const StringView text = normalized.text;
  for (size_t at = text.find(kBegin); at != StringView::npos; at = text.find(kBegin, at + 1)) {
    const size_t begin = at + kBegin.size();
    const size_t end = text.find('\'', begin);
    if (end == StringView::npos || end + 1 < begin + kEnd.size()) continue;
    const size_t length = end + 1 - kEnd.size() - begin;
    if (text.substr(begin + length, kEnd.size()) != kEnd || length == 0) continue;
    const std::string system(text.substr(begin, length));
    normalized.default_system = absl::StrReplaceAll(system, {{"\\\\", "\\"}});
    normalized.text = absl::StrReplaceAll(text, {{system, "SYSTEM"}});
    break;
  }
  return normalized;
}

absl::StatusOr<std::optional<std::string>> ReadOptionalFile(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path, kMaxFileBytes);
  if (absl::IsNotFound(text.status())) return std::optional<std::string>();
  RETURN_IF_ERROR(text.status());
  return std::optional<std::string>(*std::move(text));
}

absl::Status Misshapen(StringView what) {
  return absl::InvalidArgumentError(absl::StrCat(
      what, ": chat_template must be a text, or a list of objects with name and template"));
}

// The template of a tokenizer_config.json: a text, or the one called "default" of a list.
absl::StatusOr<std::optional<std::string>> FindTemplate(StringView json, StringView what) {
  ASSIGN_OR_RETURN(const Json object, ParseJson(json, what));
  const Json* value = object.Find("chat_template");
  if (value == nullptr) return std::optional<std::string>();
  if (value->is_string()) return std::optional<std::string>(*value->AsString());
  if (!value->is_array()) return Misshapen(what);
  for (const Json& element : value->elements()) {
    const Json* name = element.Find("name");
    const Json* text = element.Find("template");
    if (name == nullptr || text == nullptr || !name->is_string() || !text->is_string()) {
      return Misshapen(what);
    }
    if (*name->AsString() == "default") return std::optional<std::string>(*text->AsString());
  }
  return std::optional<std::string>();
}

void AppendTurn(StringView role, StringView content, std::string& text) {
  absl::StrAppend(&text, "<|im_start|>", role, "\n", content, "<|im_end|>\n");
}

}  // namespace

absl::StatusOr<ChatTemplate> RecognizeChatTemplate(StringView source) {
  NormalizedTemplate normalized = Normalize(source);
  const uint64_t hash = Hash(normalized.text);
  for (const KnownTemplate& known : kKnownTemplates) {
    if (known.hash != hash) continue;
    ChatTemplate chat_template{.name = known.name,
                               .default_system = std::move(normalized.default_system)};
    if (!known.any_role) chat_template.roles = {"system", "user", "assistant"};
    return chat_template;
  }
  StringView beginning = source.substr(0, 60);
  beginning = beginning.substr(0, Utf8Prefix(beginning));
  return absl::FailedPreconditionError(absl::StrCat(
      "the checkpoint's chat template (", source.size(), " bytes, beginning ", JsonQuote(beginning),
      ") is not that of Qwen2 or Qwen2.5, and no other is rendered: give the whole "
      "conversation as text, or token_ids"));
}

absl::StatusOr<ChatTemplate> LoadChatTemplate(const std::string& model_dir) {
  ASSIGN_OR_RETURN(std::optional<std::string> source,
                   ReadOptionalFile(model_dir + "/chat_template.jinja"));
  if (!source.has_value()) {
    const std::string path = model_dir + "/tokenizer_config.json";
    ASSIGN_OR_RETURN(const std::optional<std::string> json, ReadOptionalFile(path));
    if (!json.has_value()) return ChatTemplate();
    ASSIGN_OR_RETURN(source, FindTemplate(*json, path));
  }
  return source.has_value() ? RecognizeChatTemplate(*source) : ChatTemplate();
}

absl::Status CheckChatRole(const ChatTemplate& chat_template, StringView role) {
  const std::vector<std::string>& roles = chat_template.roles;
  if (roles.empty() && !role.empty()) return absl::OkStatus();
  if (std::find(roles.begin(), roles.end(), role) != roles.end()) return absl::OkStatus();
  if (roles.empty()) {
    return absl::InvalidArgumentError("empty; use \"system\", \"user\" or \"assistant\"");
  }
  return absl::InvalidArgumentError(
      absl::StrCat(JsonQuote(role), " is not a role of ", chat_template.name,
                   "'s chat template without tools: ", absl::StrJoin(roles, ", ")));
}

absl::StatusOr<std::string> RenderChat(const ChatTemplate& chat_template,
                                       absl::Span<const ChatMessage> messages,
                                       bool add_generation_prompt) {
  if (messages.empty()) {
    return absl::InvalidArgumentError("messages is empty; a chat needs at least one message");
  }
  std::string text;
  if (messages.front().role != "system") {
    AppendTurn("system", chat_template.default_system, text);
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    const absl::Status legal = CheckChatRole(chat_template, messages[i].role);
    if (!legal.ok()) return Annotate(legal, absl::StrCat("messages[", i, "].role"));
    AppendTurn(messages[i].role, messages[i].content, text);
  }
  if (add_generation_prompt) text += "<|im_start|>assistant\n";
  return text;
}

}  // namespace cohort
