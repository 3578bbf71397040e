// Structured logs: one line per event on standard error, `time=... level=... event=... key=value
// ...`, values quoted where needed. Never prompt text or generated text. Safe from any thread; one
// write per line.
#ifndef COHORT_LAUNCHER_LOG_H_
#define COHORT_LAUNCHER_LOG_H_

#include <initializer_list>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/status.h"

namespace cohort {

// A field's value: a string, a number or a boolean.
class LogValue {
 public:
  LogValue(StringView text) : text_(text) {}                 // NOLINT: fields read as {"rank", 3}
  LogValue(const std::string& text) : text_(text) {}         // NOLINT
  LogValue(const char* text) : text_(text) {}                // NOLINT
  LogValue(bool value) : text_(value ? "true" : "false") {}  // NOLINT
  template <class Number, class = std::enable_if_t<std::is_arithmetic_v<Number>>>
  LogValue(Number value) : text_(absl::StrCat(value)) {}  // NOLINT
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

using LogFields = std::initializer_list<std::pair<StringView, LogValue>>;

void LogInfo(StringView event, LogFields fields = {});
void LogWarning(StringView event, LogFields fields = {});
void LogError(StringView event, LogFields fields = {});

}  // namespace cohort

#endif  // COHORT_LAUNCHER_LOG_H_
