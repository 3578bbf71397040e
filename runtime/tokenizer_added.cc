#include "runtime/tokenizer_added.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "kernels/check.h"
#include "runtime/tokenizer_nfc.h"
#include "runtime/utf8.h"

namespace cohort {
namespace {

// Offset of the last character of a non-empty UTF-8 text.
size_t LastCharacter(StringView text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

size_t SpacesAtStart(StringView text) {
  size_t at = 0;
  while (at < text.size()) {
    const Utf8Unit unit = FirstUtf8Unit(text.substr(at));
    if (!IsWhiteSpace(unit.code_point)) break;
    at += unit.length;
  }
  return at;
}

// Length of `text` without the white space at its end.
size_t WithoutSpacesAtEnd(StringView text) {
  while (!text.empty()) {
    const size_t last = LastCharacter(text);
    if (!IsWhiteSpace(FirstUtf8Unit(text.substr(last)).code_point)) break;
    text = text.substr(0, last);
  }
  return text.size();
}

bool TouchesWord(StringView before, StringView after) {
  return (!before.empty() &&
          IsWordCharacter(FirstUtf8Unit(before.substr(LastCharacter(before))).code_point)) ||
         (!after.empty() && IsWordCharacter(FirstUtf8Unit(after).code_point));
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::stable_sort(tokens_.begin(), tokens_.end(), [](const AddedToken& a, const AddedToken& b) {
    return a.content.size() > b.content.size();
  });
  for (uint32_t i = 0; i < tokens_.size(); ++i) {
    CHECK(!tokens_[i].content.empty()) << "added token " << tokens_[i].id;
    by_first_byte_[static_cast<unsigned char>(tokens_[i].content[0])].push_back(i);
  }
}

const AddedToken* AddedTokenMatcher::LongestAt(StringView text) const {
  for (const uint32_t i : by_first_byte_[static_cast<unsigned char>(text[0])]) {
    if (absl::StartsWith(text, tokens_[i].content)) return &tokens_[i];
  }
  return nullptr;
}

absl::Status AddedTokenMatcher::Split(StringView text, absl::FunctionRef<void(int32_t)> token,
                                      absl::FunctionRef<absl::Status(StringView)> segment) const {
  size_t done = 0;  // everything before it has been given out
  for (size_t at = 0; at < text.size();) {
    const AddedToken* found = LongestAt(text.substr(at));
    if (found == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at;
    size_t end = at + found->content.size();
    at = end;
    if (found->single_word && TouchesWord(text.substr(0, begin), text.substr(end))) continue;
    if (found->strips_left) begin = done + WithoutSpacesAtEnd(text.substr(done, begin - done));
    if (found->strips_right) end += SpacesAtStart(text.substr(end));
    at = end;
    if (begin > done) RETURN_IF_ERROR(segment(text.substr(done, begin - done)));
    token(found->id);
    done = end;
  }
  return done < text.size() ? segment(text.substr(done)) : absl::OkStatus();
}

}  // namespace cohort
