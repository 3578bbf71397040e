#include "runtime/tokenizer_regex.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "runtime/utf8.h"

namespace cohort {
namespace {

// Backtracking steps a match may take beyond a few per byte: enough for any honest pattern, an
// error instead of a hang for a pathological one.
constexpr size_t kMatchLimitBase = 1'000'000;
constexpr size_t kMatchLimitPerByte = 16;
constexpr uint32_t kMatchLimitMost = 2'000'000'000;
constexpr size_t kJitStackFirstBytes = 32 * 1024;
constexpr size_t kJitStackMostBytes = 8 * 1024 * 1024;
constexpr uint32_t kInterpreterMostKibibytes = 64 * 1024;

std::string PcreMessage(int code) {
  PCRE2_UCHAR buffer[256];
  const int length = pcre2_get_error_message(code, buffer, sizeof(buffer));
  if (length < 0) return absl::StrCat("PCRE2 error ", code);
  return std::string(reinterpret_cast<const char*>(buffer), static_cast<size_t>(length));
}

PCRE2_SPTR Bytes(StringView text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

RegexScratch::RegexScratch()
    : data_(pcre2_match_data_create(1, nullptr)), context_(pcre2_match_context_create(nullptr)) {
  CHECK(data_ != nullptr && context_ != nullptr) << "out of memory";
  pcre2_set_heap_limit(context_.get(), kInterpreterMostKibibytes);
}

SplitPattern::SplitPattern(pcre2_code* code) : code_(code) {
  // Fails where machine code may not be made executable; the interpreter then does the work.
  has_machine_code_ = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
}

absl::StatusOr<SplitPattern> SplitPattern::Compile(StringView pattern, uint32_t options) {
  int error = 0;
  size_t offset = 0;
  pcre2_code* code =
      pcre2_compile(Bytes(pattern), pattern.size(), options | PCRE2_UTF, &error, &offset, nullptr);
  if (code == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", pattern, "\" does not compile: ", PcreMessage(error), " at byte ", offset));
  }
  return SplitPattern(code);
}

absl::StatusOr<SplitPattern> SplitPattern::Regex(StringView pattern) {
  ASSIGN_OR_RETURN(const std::string translated, TranslatePattern(pattern));
  // ^ and $ match at every line in Oniguruma.
  return Compile(translated, PCRE2_UCP | PCRE2_MULTILINE);
}

absl::StatusOr<SplitPattern> SplitPattern::Literal(StringView text) {
  return Compile(text, PCRE2_LITERAL);
}

int SplitPattern::MatchWithin(StringView text, size_t from, RegexScratch& scratch) const {
  pcre2_match_data* data = scratch.data_.get();
  pcre2_match_context* context = scratch.context_.get();
  if (has_machine_code_) {
    int count = pcre2_jit_match(code_.get(), Bytes(text), text.size(), from, 0, data, context);
    if (count != PCRE2_ERROR_JIT_STACKLIMIT) return count;
    if (scratch.stack_ == nullptr) {
      scratch.stack_.reset(
          pcre2_jit_stack_create(kJitStackFirstBytes, kJitStackMostBytes, nullptr));
      pcre2_jit_stack_assign(context, nullptr, scratch.stack_.get());
      count = pcre2_jit_match(code_.get(), Bytes(text), text.size(), from, 0, data, context);
      if (count != PCRE2_ERROR_JIT_STACKLIMIT) return count;
    }
  }
  return pcre2_match(code_.get(), Bytes(text), text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                     data, context);
}

absl::StatusOr<bool> SplitPattern::Find(StringView text, size_t from, RegexScratch& scratch) const {
  pcre2_set_match_limit(scratch.context_.get(),
                        static_cast<uint32_t>(std::min<size_t>(
                            kMatchLimitBase + kMatchLimitPerByte * text.size(), kMatchLimitMost)));
  const int count = MatchWithin(text, from, scratch);
  if (count == PCRE2_ERROR_NOMATCH) return false;
  if (count < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the tokenizer's regular expression gave up at byte ", from, " of a text of ",
                     text.size(), " bytes (", PcreMessage(count), "); shorten the text"));
  }
  return true;
}

absl::Status SplitPattern::Split(StringView text, RegexScratch& scratch,
                                 absl::FunctionRef<absl::Status(StringView)> piece) const {
  const PCRE2_SIZE* match = pcre2_get_ovector_pointer(scratch.data_.get());
  const auto emit = [&](size_t begin, size_t end) {
    return begin == end ? absl::OkStatus() : piece(text.substr(begin, end - begin));
  };
  size_t done = 0;  // everything before it has been given out
  size_t from = 0;
  while (from <= text.size()) {
    ASSIGN_OR_RETURN(const bool found, Find(text, from, scratch));
    if (!found) break;
    // \K in a lookaround may move a match's ends; Oniguruma's matches never go back.
    const size_t begin = std::max<size_t>(match[0], done);
    const size_t end = std::max<size_t>(match[1], begin);
    RETURN_IF_ERROR(emit(done, begin));
    RETURN_IF_ERROR(emit(begin, end));
    done = end;
    from = end;
    if (begin == end) {
      // An empty match cuts here; the next begins one character later at the earliest.
      if (end == text.size()) break;
      from = end + FirstUtf8Unit(text.substr(end)).length;
    }
  }
  return emit(done, text.size());
}

}  // namespace cohort
