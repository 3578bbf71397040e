// The only file that knows the library behind the terminal's lines (libedit).
#include <histedit.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cwchar>

#include "kernels/check.h"
#include "launcher/line_reader.h"

namespace cohort {
namespace {

constexpr int kHistoryLines = 1000;
constexpr char kEndOfInput = 4;

class TerminalReader final : public LineReader {
 public:
  explicit TerminalReader(StopSignals& signals) : signals_(signals) {
    // The library takes the encoding of what is typed from here; models read UTF-8.
    std::setlocale(LC_CTYPE, "C.UTF-8");
    edit_ = el_init("cohort", stdin, stdout, stderr);
    history_ = history_init();
    CHECK(edit_ != nullptr && history_ != nullptr);
    HistEvent event;
    history(history_, &event, H_SETSIZE, kHistoryLines);
    history(history_, &event, H_SETUNIQUE, 1);
    el_set(edit_, EL_CLIENTDATA, this);
    el_set(edit_, EL_PROMPT, &TerminalReader::PromptOf);
    el_set(edit_, EL_GETCFN, &TerminalReader::ReadCharacter);
    el_set(edit_, EL_EDITOR, "emacs");
    el_set(edit_, EL_HIST, history, history_);
  }
  ~TerminalReader() override {
    el_end(edit_);
    history_end(history_);
  }

  std::optional<std::string> Next(const std::string& prompt) override {
    prompt_ = prompt;
    int count = 0;
    const char* typed = el_gets(edit_, &count);
    if (typed == nullptr || count <= 0) return std::nullopt;
    std::string line(typed, static_cast<size_t>(count));
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
    HistEvent event;
    if (!line.empty()) history(history_, &event, H_ENTER, line.c_str());
    return line;
  }

 private:
  static TerminalReader& Of(EditLine* edit) {
    void* self = nullptr;
    el_get(edit, EL_CLIENTDATA, &self);
    return *static_cast<TerminalReader*>(self);
  }
  static char* PromptOf(EditLine* edit) { return Of(edit).prompt_.data(); }

  // One character: 1, 0 at the end, -1 for an error. A signal ends the line as an error does.
  static int ReadCharacter(EditLine* edit, wchar_t* character) {
    TerminalReader& self = Of(edit);
    std::mbstate_t state = {};
    while (self.signals_.WaitForInput(STDIN_FILENO)) {
      char byte = 0;
      const ssize_t count = read(STDIN_FILENO, &byte, 1);
      if (count <= 0) return static_cast<int>(count);
      if (byte == 0) byte = kEndOfInput;  // Ctrl-D, typed while the terminal still read whole lines
      const size_t length = std::mbrtowc(character, &byte, 1, &state);
      if (length == static_cast<size_t>(-2)) continue;  // more bytes belong to it
      if (length == static_cast<size_t>(-1)) *character = L'\uFFFD';
      return 1;
    }
    return -1;
  }

  StopSignals& signals_;
  EditLine* edit_ = nullptr;
  History* history_ = nullptr;
  std::string prompt_;
};

}  // namespace

std::unique_ptr<LineReader> MakeTerminalReader(StopSignals& signals) {
  return std::make_unique<TerminalReader>(signals);
}

}  // namespace cohort
