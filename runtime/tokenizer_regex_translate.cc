// From Oniguruma's syntax to PCRE2's.
#include "runtime/tokenizer_regex.h"

namespace cohort {
namespace {

// Members of a class, without the brackets.
constexpr char kSpaces[] =
    "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}"
    "\\x{205F}\\x{3000}";
constexpr char kWordCharacters[] =
    "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}";

class Translator {
 public:
  explicit Translator(StringView pattern) : pattern_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      absl::Status status;
      if (c == '\\') {
        status = Escape();
      } else if (in_class_) {
        status = InClass(c);
      } else {
        status = Outside(c);
      }
      RETURN_IF_ERROR(status);
    }
    return std::move(out_);
  }

 private:
  absl::Status Unsupported(StringView construct) const {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", pattern_, "\" has ", construct, " at byte ", at_, ", not supported"));
  }

  absl::Status Copy(size_t count) {
    absl::StrAppend(&out_, pattern_.substr(at_, count));
    at_ += count;
    return absl::OkStatus();
  }

  absl::Status Replace(StringView members, bool negated) {
    if (in_class_) {
      absl::StrAppend(&out_, members);
    } else {
      absl::StrAppend(&out_, negated ? "[^" : "[", members, "]");
    }
    at_ += 2;
    return absl::OkStatus();
  }

  // A backslash and what follows. A trailing one is left for the compiler to complain about.
  absl::Status Escape() {
    if (at_ + 1 == pattern_.size()) return Copy(1);
    const char c = pattern_[at_ + 1];
    if (in_class_ && c == 'S') {
      out_ += "\\P{White_Space}";
      at_ += 2;
      return absl::OkStatus();
    }
    if (c == 's' || c == 'S') return Replace(kSpaces, c == 'S');
    if (in_class_ && c == 'W') return Unsupported("\\W in a class");
    if (c == 'w' || c == 'W') return Replace(kWordCharacters, c == 'W');
    // Hexadecimal digits, word borders, quoting and the reset of a match's start differ.
    if (c == 'h' || c == 'H' || c == 'Q' || c == 'E' || c == 'K' || c == 'C' ||
        (!in_class_ && (c == 'b' || c == 'B'))) {
      return Unsupported(absl::StrCat("\\", StringView(&c, 1)));
    }
    return Copy(2);
  }

  absl::Status InClass(char c) {
    if (c == '[') return Unsupported("a nested class");
    if (pattern_.substr(at_, 2) == "&&") return Unsupported("an intersection of classes");
    if (c == ']') in_class_ = false;
    return Copy(1);
  }

  absl::Status Outside(char c) {
    if (c == '[') {
      in_class_ = true;
      // A ']' that comes first is a member for PCRE2 and an error or a warning elsewhere.
      const size_t opening = pattern_.substr(at_, 2) == "[^" ? 2 : 1;
      if (pattern_.substr(at_ + opening, 1) == "]") return Unsupported("an empty class");
      return Copy(opening);
    }
    if (pattern_.substr(at_, 2) == "(*") return Unsupported("a verb");
    if (pattern_.substr(at_, 2) == "(?") return Group();
    return Copy(1);
  }

  // (?: (?= (?! (?<= (?<! (?> and the option i mean the same in both; names and other options (m is
  // "dot matches all" in Oniguruma) are not seen in tokenizers.
  absl::Status Group() {
    const StringView rest = pattern_.substr(at_ + 2);
    for (const StringView kind : {"<=", "<!", ":", "=", "!", ">", "i:", "i)", "-i:", "-i)"}) {
      if (rest.substr(0, kind.size()) == kind) return Copy(2 + kind.size());
    }
    return Unsupported("a group of an unknown kind");
  }

  const StringView pattern_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

}  // namespace

absl::StatusOr<std::string> TranslatePattern(StringView pattern) {
  return Translator(pattern).Run();
}

}  // namespace cohort
