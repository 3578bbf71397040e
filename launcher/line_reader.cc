#include "launcher/line_reader.h"

#include <poll.h>
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

// The rest of a message whose first line, without its quotes, is `text`.
std::optional<std::string> ReadQuoted(LineReader& reader, std::string text,
                                      const std::function<void(bool continues)>& prompt) {
  while (!absl::EndsWith(text, kQuotes)) {
    prompt(true);
    const std::optional<std::string> line = reader.Next();
    if (!line.has_value()) return std::nullopt;
    absl::StrAppend(&text, text.empty() ? "" : "\n", *line);
  }
  return std::string(absl::StripSuffix(absl::StripSuffix(text, kQuotes), "\n"));
}

}  // namespace

bool LineReader::Fill() {
  for (;;) {
    std::array<pollfd, 2> waiting = {{{fd_, POLLIN, 0}, {signals_.fd(), POLLIN, 0}}};
    if (poll(waiting.data(), waiting.size(), -1) < 0) {
      if (errno == EINTR) continue;
      return false;
    }
    if (waiting[1].revents != 0 && signals_.Wait(absl::ZeroDuration())) return false;
    if (waiting[0].revents == 0) continue;
    std::array<char, 4096> bytes;
    const ssize_t count = read(fd_, bytes.data(), bytes.size());
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count <= 0) return false;
    buffer_.append(bytes.data(), static_cast<size_t>(count));
    return true;
  }
}

std::optional<std::string> LineReader::Next() {
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

std::optional<std::string> ReadMessage(LineReader& reader,
                                       const std::function<void(bool continues)>& prompt) {
  prompt(false);
  std::optional<std::string> line = reader.Next();
  if (!line.has_value()) return std::nullopt;
  if (absl::StartsWith(*line, kQuotes)) return ReadQuoted(reader, line->substr(3), prompt);
  std::string text = *std::move(line);
  while (absl::EndsWith(text, "\\")) {
    text.back() = '\n';
    prompt(true);
    line = reader.Next();
    if (!line.has_value()) return std::nullopt;
    text += *line;
  }
  return text;
}

}  // namespace cohort
