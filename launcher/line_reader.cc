#include "launcher/line_reader.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace cohort {
namespace {

constexpr char kQuotes[] = "\"\"\"";
constexpr char kPrompt[] = ">>> ";
constexpr char kContinued[] = "... ";

class PipeReader final : public LineReader {
 public:
  PipeReader(int fd, StopSignals& signals) : fd_(fd), signals_(signals) {}

  std::optional<std::string> Next(const std::string&) override {
    for (;;) {
      if (const size_t end = buffer_.find('\n'); end != std::string::npos) {
        std::string line = buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        if (!line.empty() && line.back() == '\r') line.pop_back();
        return line;
      }
      if (Fill()) continue;
      if (buffer_.empty()) return std::nullopt;
      return std::exchange(buffer_, std::string());
    }
  }

 private:
  // Reads more into the buffer; false when there will be no more.
  bool Fill() {
    while (signals_.WaitForInput(fd_)) {
      std::array<char, 4096> bytes;
      const ssize_t count = read(fd_, bytes.data(), bytes.size());
      if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (count <= 0) return false;
      buffer_.append(bytes.data(), static_cast<size_t>(count));
      return true;
    }
    return false;
  }

  const int fd_;
  StopSignals& signals_;
  std::string buffer_;  // read and not returned yet
};

// The rest of a message whose first line, without its quotes, is `text`.
std::optional<std::string> ReadQuoted(LineReader& reader, std::string text) {
  while (!absl::EndsWith(text, kQuotes)) {
    const std::optional<std::string> line = reader.Next(kContinued);
    if (!line.has_value()) return std::nullopt;
    absl::StrAppend(&text, text.empty() ? "" : "\n", *line);
  }
  return std::string(absl::StripSuffix(absl::StripSuffix(text, kQuotes), "\n"));
}

}  // namespace

std::unique_ptr<LineReader> MakePipeReader(int fd, StopSignals& signals) {
  return std::make_unique<PipeReader>(fd, signals);
}

std::optional<std::string> ReadMessage(LineReader& reader) {
  std::optional<std::string> line = reader.Next(kPrompt);
  if (!line.has_value()) return std::nullopt;
  if (absl::StartsWith(*line, kQuotes)) return ReadQuoted(reader, line->substr(3));
  std::string text = *std::move(line);
  while (absl::EndsWith(text, "\\")) {
    text.back() = '\n';
    line = reader.Next(kContinued);
    if (!line.has_value()) return std::nullopt;
    text += *line;
  }
  return text;
}

}  // namespace cohort
