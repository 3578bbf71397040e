#include "launcher/nccl_log.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace cohort {
namespace {

// "0[3]" is rank 0 on device 3.
bool ParseRank(StringView text, int* rank) {
  return absl::SimpleAtoi(text.substr(0, text.find('[')), rank);
}

// "NET/IB/0/GDRDMA" without the device.
std::string WithoutNumbers(StringView transport) {
  std::vector<StringView> kept;
  for (const StringView part : absl::StrSplit(absl::StripAsciiWhitespace(transport), '/')) {
    const bool is_number =
        !part.empty() && absl::ascii_isdigit(static_cast<unsigned char>(part[0]));
    if (!is_number && part != "Shared") kept.push_back(part);
  }
  return absl::StrJoin(kept, "/");
}

}  // namespace

NcclLog NcclLog::Capture() {
  NcclLog log;
  for (const char* name : {"NCCL_DEBUG", "NCCL_DEBUG_FILE", "NCCL_DEBUG_SUBSYS"}) {
    if (std::getenv(name) != nullptr) return log;
  }
  log.memory_ = FileDescriptor(memfd_create("cohort-nccl-log", MFD_CLOEXEC));
  if (!log.memory_.valid()) return log;
  setenv("NCCL_DEBUG", "INFO", 1);
  setenv("NCCL_DEBUG_SUBSYS", "INIT", 1);
  setenv("NCCL_DEBUG_FILE", absl::StrCat("/proc/self/fd/", log.memory_.get()).c_str(), 1);
  return log;
}

std::string NcclLog::Take() {
  std::string text;
  char piece[4096];
  ssize_t bytes = 0;
  while (memory_.valid() && (bytes = pread(memory_.get(), piece, sizeof(piece), taken_)) > 0) {
    text.append(piece, static_cast<size_t>(bytes));
    taken_ += bytes;
  }
  return text;
}

// Lines as "Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM" or "... 0[0] -> 8[0] [send] via NET/IB/0".
// A rank also logs what it receives over the network, and not what it receives otherwise.
std::vector<std::string> TransportsOf(StringView log, int rank, int size) {
  std::vector<std::string> transports(static_cast<size_t>(size));
  for (const StringView line : absl::StrSplit(log, '\n')) {
    const std::vector<StringView> sides = absl::StrSplit(line, absl::MaxSplits(" via ", 1));
    const std::vector<StringView> ends = absl::StrSplit(sides[0], absl::MaxSplits(" -> ", 1));
    const size_t colon = ends[0].rfind(" : ");
    int from = 0;
    int to = 0;
    if (sides.size() != 2 || ends.size() != 2 || colon == StringView::npos ||
        !ParseRank(ends[0].substr(colon + 3), &from) || !ParseRank(ends[1], &to) ||
        absl::StrContains(ends[1], "[receive]") || from != rank || to < 0 || to >= size) {
      continue;
    }
    std::string& known = transports[static_cast<size_t>(to)];
    const std::string said = WithoutNumbers(sides[1]);
    if (!absl::StrContains(known, said))
      absl::StrAppend(&known, known.empty() ? "" : " and ", said);
  }
  return transports;
}

}  // namespace cohort
