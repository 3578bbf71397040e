// The regular expressions of a tokenizer.json, matched by PCRE2 with the meaning they have in
// Oniguruma, for which those files are written.
#ifndef COHORT_RUNTIME_TOKENIZER_REGEX_H_
#define COHORT_RUNTIME_TOKENIZER_REGEX_H_

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "kernels/status.h"

namespace cohort {

// What a thread needs to match with any pattern. Not shared between threads.
class RegexScratch {
 public:
  RegexScratch();

 private:
  friend class SplitPattern;
  struct Free {
    void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
    void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
    void operator()(pcre2_jit_stack* stack) const { pcre2_jit_stack_free(stack); }
  };
  std::unique_ptr<pcre2_match_data, Free> data_;
  std::unique_ptr<pcre2_match_context, Free> context_;
  std::unique_ptr<pcre2_jit_stack, Free> stack_;  // made when the default 32 KiB do not suffice
};

// A compiled pattern. Immutable; any number of threads may use it, each with its own scratch.
class SplitPattern {
 public:
  // INVALID_ARGUMENT for what does not compile or means something else in PCRE2.
  static absl::StatusOr<SplitPattern> Regex(StringView pattern);
  static absl::StatusOr<SplitPattern> Literal(StringView text);

  // Calls `piece` with every match and every gap between matches of `text` (which must be UTF-8),
  // in order, none empty. Stops at the first error.
  absl::Status Split(StringView text, RegexScratch& scratch,
                     absl::FunctionRef<absl::Status(StringView)> piece) const;

 private:
  struct Free {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  };
  static absl::StatusOr<SplitPattern> Compile(StringView pattern, uint32_t options);
  explicit SplitPattern(pcre2_code* code);
  // The first match at or after `from`; false when there is none.
  absl::StatusOr<bool> Find(StringView text, size_t from, RegexScratch& scratch) const;
  int MatchWithin(StringView text, size_t from, RegexScratch& scratch) const;

  std::unique_ptr<pcre2_code, Free> code_;
  bool has_machine_code_ = false;
};

// The PCRE2 form of an Oniguruma pattern: \s, \S, \w and \W are spelled out, since PCRE2 counts
// U+180E as a space and knows fewer word characters. INVALID_ARGUMENT names a construct whose
// meaning differs and that has no such form.
absl::StatusOr<std::string> TranslatePattern(StringView pattern);

}  // namespace cohort

#endif  // COHORT_RUNTIME_TOKENIZER_REGEX_H_
