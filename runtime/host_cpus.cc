#include "runtime/host_cpus.h"

#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace cohort {
namespace {

bool AddRange(StringView range, cpu_set_t* cpus) {
  const std::pair<StringView, StringView> ends = absl::StrSplit(range, absl::MaxSplits('-', 1));
  int first = 0;
  int last = 0;
  if (!absl::SimpleAtoi(ends.first, &first) ||
      !absl::SimpleAtoi(ends.second.empty() ? ends.first : ends.second, &last) || first < 0 ||
      last < first || last >= CPU_SETSIZE) {
    return false;
  }
  for (int cpu = first; cpu <= last; ++cpu) {
    CPU_SET(static_cast<size_t>(cpu), cpus);
  }
  return true;
}

}  // namespace

std::optional<cpu_set_t> ParseCpuList(StringView text) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  for (const StringView range : absl::StrSplit(absl::StripAsciiWhitespace(text), ',')) {
    if (!AddRange(range, &cpus)) {
      return std::nullopt;
    }
  }
  return cpus;
}

std::optional<cpu_set_t> CpusOfNode(int node, const std::string& root) {
  std::ifstream file(absl::StrCat(root, "/node", node, "/cpulist"));
  std::string line;
  if (!std::getline(file, line)) {
    return std::nullopt;
  }
  std::optional<cpu_set_t> cpus = ParseCpuList(line);
  cpu_set_t mine;
  if (!cpus.has_value() || sched_getaffinity(0, sizeof(mine), &mine) != 0) {
    return std::nullopt;
  }
  CPU_AND(&*cpus, &*cpus, &mine);
  return CPU_COUNT(&*cpus) > 0 ? cpus : std::nullopt;
}

ScopedCpus::ScopedCpus(const std::optional<cpu_set_t>& cpus) {
  cpu_set_t before;
  if (cpus.has_value() && sched_getaffinity(0, sizeof(before), &before) == 0 &&
      sched_setaffinity(0, sizeof(*cpus), &*cpus) == 0) {
    before_ = before;
  }
}

ScopedCpus::~ScopedCpus() {
  if (before_.has_value()) {
    sched_setaffinity(0, sizeof(*before_), &*before_);
  }
}

}  // namespace cohort
