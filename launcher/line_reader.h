// Lines of a descriptor (a terminal, a pipe, a file) as they come, until its end or a signal.
#ifndef COHORT_LAUNCHER_LINE_READER_H_
#define COHORT_LAUNCHER_LINE_READER_H_

#include <functional>
#include <optional>
#include <string>

#include "launcher/stop_signals.h"

namespace cohort {

class LineReader {
 public:
  // Both are borrowed.
  LineReader(int fd, StopSignals& signals) : fd_(fd), signals_(signals) {}

  // The next line without its break; nullopt at the end of the input, after an error of it, and
  // when a signal comes. Waits as long as it takes.
  std::optional<std::string> Next();

 private:
  // Reads more into the buffer; false when there will be no more.
  bool Fill();

  const int fd_;
  StopSignals& signals_;
  std::string buffer_;  // read and not returned yet
};

// A message of one line, or of several: a line that ends in a backslash goes on in the next, and
// lines between """ and """ belong together. `prompt` is called before each line with whether it
// continues a message. nullopt at the end.
std::optional<std::string> ReadMessage(LineReader& reader,
                                       const std::function<void(bool continues)>& prompt);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_LINE_READER_H_
