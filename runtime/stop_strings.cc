#include "runtime/stop_strings.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace cohort {

StopStringMatcher::StopStringMatcher(std::vector<std::string> strings, bool include)
    : include_(include) {
  for (std::string& text : strings) {
    CHECK(!text.empty()) << "an empty stop string";
    patterns_.push_back(MakePattern(std::move(text)));
  }
}

StopStringMatcher::Pattern StopStringMatcher::MakePattern(std::string text) {
  Pattern pattern{.text = std::move(text), .borders = {0, 0}};
  for (size_t length = 1; length < pattern.text.size(); ++length) {
    size_t border = pattern.borders[length];
    while (border > 0 && pattern.text[border] != pattern.text[length]) {
      border = pattern.borders[border];
    }
    pattern.borders.push_back(pattern.text[border] == pattern.text[length] ? border + 1 : 0);
  }
  return pattern;
}

bool StopStringMatcher::Advance(char byte, Pattern& pattern) {
  while (pattern.matched > 0 && pattern.text[pattern.matched] != byte) {
    pattern.matched = pattern.borders[pattern.matched];
  }
  if (pattern.text[pattern.matched] == byte) ++pattern.matched;
  return pattern.matched == pattern.text.size();
}

std::optional<size_t> StopStringMatcher::Advance(char byte) {
  std::optional<size_t> longest;
  for (size_t i = 0; i < patterns_.size(); ++i) {
    if (!Advance(byte, patterns_[i])) continue;
    if (!longest.has_value() || patterns_[i].text.size() > patterns_[*longest].text.size()) {
      longest = i;
    }
  }
  return longest;
}

std::string StopStringMatcher::Append(StringView text) {
  if (match_.has_value()) return "";
  for (const char byte : text) {
    held_.push_back(byte);
    match_ = Advance(byte);
    if (!match_.has_value()) continue;
    if (!include_) held_.resize(held_.size() - patterns_[*match_].text.size());
    return Flush();
  }
  size_t open = 0;
  for (const Pattern& pattern : patterns_) open = std::max(open, pattern.matched);
  std::string certain = held_.substr(0, held_.size() - open);
  held_.erase(0, certain.size());
  return certain;
}

std::string StopStringMatcher::Flush() { return std::exchange(held_, std::string()); }

}  // namespace cohort
