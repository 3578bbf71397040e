// Where `cohort chat` gets what is said to it: lines of a pipe or a file, or lines typed and edited
// in a terminal. Both end at the end of the input and at a signal.
#ifndef COHORT_LAUNCHER_LINE_READER_H_
#define COHORT_LAUNCHER_LINE_READER_H_

#include <memory>
#include <optional>
#include <string>

#include "launcher/stop_signals.h"

namespace cohort {

class LineReader {
 public:
  virtual ~LineReader() = default;
  // The next line without its break; nullopt at the end of the input, after an error of it, and
  // when a signal comes. Waits as long as it takes. `prompt` is for a person.
  virtual std::optional<std::string> Next(const std::string& prompt) = 0;
};

// Lines of a descriptor; no prompts. Both are borrowed.
std::unique_ptr<LineReader> MakePipeReader(int fd, StopSignals& signals);

// Lines of the terminal at standard input and output, with a prompt, a history and the usual keys.
// One per process.
std::unique_ptr<LineReader> MakeTerminalReader(StopSignals& signals);

// A message of one line, or of several: a line that ends in a backslash goes on in the next, and
// lines between """ and """ belong together. nullopt at the end.
std::optional<std::string> ReadMessage(LineReader& reader);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_LINE_READER_H_
