// Stop strings found piece by piece are those found in the whole text. The first byte of the input
// says how it is cut and whether the match is kept; the rest is stop strings, a line each, an empty
// line, and the text.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"
#include "kernels/check.h"
#include "runtime/stop_strings.h"

namespace {

using cohort::StringView;

// What should come of it: the match that ends first, the longest of those that end there.
std::string Expected(const std::vector<std::string>& strings, bool include, StringView text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& string : strings) {
      const size_t size = string.size();
      if (size <= end && text.substr(end - size, size) == string) longest = std::max(longest, size);
    }
    if (longest > 0) return std::string(text.substr(0, include ? end : end - longest));
  }
  return std::string(text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const StringView input(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::pair<StringView, StringView> parts = absl::StrSplit(input, absl::MaxSplits("\n\n", 1));
  const std::vector<std::string> strings = absl::StrSplit(parts.first, '\n', absl::SkipEmpty());
  const bool include = data[0] >= 128;
  const size_t step = 1 + data[0] % 7;
  cohort::StopStringMatcher matcher(strings, include);
  std::string text;
  for (size_t begin = 0; begin < parts.second.size(); begin += step) {
    text += matcher.Append(parts.second.substr(begin, step));
  }
  text += matcher.Flush();
  CHECK(text == Expected(strings, include, parts.second)) << "in steps of " << step;
  return 0;
}
