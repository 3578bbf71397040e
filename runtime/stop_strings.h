// Finds stop strings in a text that comes in pieces, and holds back what may still become one.
#ifndef COHORT_RUNTIME_STOP_STRINGS_H_
#define COHORT_RUNTIME_STOP_STRINGS_H_

#include <optional>
#include <string>
#include <vector>

#include "kernels/status.h"

namespace cohort {

// One per sequence. The result does not depend on where the text is cut into pieces.
class StopStringMatcher {
 public:
  // Strings are not empty. `include`: the text up to a match holds the match itself.
  StopStringMatcher(std::vector<std::string> strings, bool include);

  // The text that became certain: none of it is, or will be, part of a stop string that is left
  // out. The match is the string that is completed first, the longest of those that end together;
  // once there is one, nothing more is returned.
  std::string Append(StringView text);

  // Index of the string that was found.
  std::optional<size_t> match() const { return match_; }

  // What was held back, at the end of the text.
  std::string Flush();

 private:
  // Knuth, Morris and Pratt's automaton of one string.
  struct Pattern {
    std::string text;
    std::vector<size_t> borders;  // of each prefix: its longest proper prefix that is a suffix too
    size_t matched = 0;           // bytes of `text` that the input ends with, never all of them
  };
  static Pattern MakePattern(std::string text);
  // Whether the input so far ends with the whole pattern.
  static bool Advance(char byte, Pattern& pattern);
  // Advances all patterns; the longest that is complete.
  std::optional<size_t> Advance(char byte);

  std::vector<Pattern> patterns_;
  const bool include_;
  std::string held_;
  std::optional<size_t> match_;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_STOP_STRINGS_H_
