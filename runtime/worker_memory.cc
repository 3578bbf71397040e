#include "runtime/worker_memory.h"

#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace cohort {

absl::StatusOr<int64_t> ParseAvailableMemory(StringView meminfo) {
  for (const StringView line : absl::StrSplit(meminfo, '\n')) {
    // "MemAvailable:   16316420 kB"
    const std::vector<StringView> words = absl::StrSplit(line, ' ', absl::SkipWhitespace());
    int64_t kibibytes = 0;
    if (words.size() == 3 && words[0] == "MemAvailable:" &&
        absl::SimpleAtoi(words[1], &kibibytes) && words[2] == "kB") {
      return kibibytes * 1024;
    }
  }
  return absl::NotFoundError("there is no MemAvailable line");
}

absl::Status CheckMemory(const WorkerMemory& needed, int64_t available_bytes) {
  if (needed.total() <= available_bytes) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("this rank needs ", needed.total(), " bytes of memory (weights ", needed.weights,
                   ", KV ", needed.kv, ", workspace ", needed.workspace, ") and ", available_bytes,
                   " are available here; use more ranks, a smaller dtype or less KV memory"));
}

absl::Status CheckHostMemory(const WorkerMemory& needed) {
  std::ifstream file("/proc/meminfo");  // a file of no stated size
  std::stringstream text;
  text << file.rdbuf();
  const absl::StatusOr<int64_t> available = ParseAvailableMemory(text.str());
  return available.ok() ? CheckMemory(needed, *available) : absl::OkStatus();
}

}  // namespace cohort
