#include "launcher/log.h"

#include <unistd.h>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace cohort {
namespace {

bool NeedsQuotes(StringView text) {
  if (text.empty()) return true;
  for (const char c : text) {
    if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c == 0x7f) return true;
  }
  return false;
}

void AppendQuoted(StringView text, std::string& line) {
  line.push_back('"');
  for (const char c : text) {
    if (c == '"' || c == '\\') line.push_back('\\');
    line.push_back(c == '\n' || c == '\r' ? ' ' : c);
  }
  line.push_back('"');
}

void Write(StringView level, StringView event, LogFields fields) {
  std::string line = absl::StrCat(
      "time=", absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone()),
      " level=", level, " event=", event);
  for (const auto& [key, value] : fields) {
    absl::StrAppend(&line, " ", key, "=");
    if (NeedsQuotes(value.text())) {
      AppendQuoted(value.text(), line);
    } else {
      absl::StrAppend(&line, value.text());
    }
  }
  line.push_back('\n');
  // A log line that cannot be written is lost; there is nowhere to say so.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace

void LogInfo(StringView event, LogFields fields) { Write("info", event, fields); }
void LogWarning(StringView event, LogFields fields) { Write("warning", event, fields); }
void LogError(StringView event, LogFields fields) { Write("error", event, fields); }

}  // namespace cohort
