#include "launcher/join_token.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "runtime/json.h"

namespace cohort {
namespace {

constexpr size_t kMaxTokenBytes = 1024;

// Never shows the token.
absl::Status CheckToken(StringView token, StringView source) {
  const bool is_sendable =
      std::all_of(token.begin(), token.end(), [](char c) { return absl::ascii_isgraph(c); });
  if (!token.empty() && token.size() <= kMaxTokenBytes && is_sendable) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the join token in ", source, " has ", token.size(), " bytes; it must be 1 to ",
                   kMaxTokenBytes, " printable ASCII characters without spaces"));
}

}  // namespace

absl::StatusOr<std::string> ReadJoinToken(const JoinTokenOptions& options) {
  if (!options.value.empty() && !options.file.empty()) {
    return absl::InvalidArgumentError("give --join-token or --join-token-file, not both");
  }
  std::string token = options.value;
  std::string source = "--join-token";
  if (!options.file.empty()) {
    ASSIGN_OR_RETURN(const std::string text, ReadFile(options.file, /*max_bytes=*/64 << 10));
    token = std::string(absl::StripAsciiWhitespace(text));
    source = options.file;
  } else if (token.empty()) {
    const char* const variable = std::getenv(kJoinTokenVariable);
    if (variable == nullptr) return std::string();
    token = variable;
    source = kJoinTokenVariable;
  }
  RETURN_IF_ERROR(CheckToken(token, source));
  return token;
}

}  // namespace cohort
