#include "launcher/flag_values.h"

#include <array>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "runtime/config_keys.h"

namespace cohort {
namespace {

absl::Status Illegal(StringView text, StringView legal) {
  return absl::InvalidArgumentError(absl::StrCat("'", text, "' is not ", legal));
}

struct ByteUnit {
  const char* name;
  double bytes;
};
constexpr std::array<ByteUnit, 10> kByteUnits = {{{"", 1},
                                                  {"b", 1},
                                                  {"kb", 1e3},
                                                  {"mb", 1e6},
                                                  {"gb", 1e9},
                                                  {"tb", 1e12},
                                                  {"kib", 1024.0},
                                                  {"mib", 1024.0 * 1024},
                                                  {"gib", 1024.0 * 1024 * 1024},
                                                  {"tib", 1024.0 * 1024 * 1024 * 1024}}};

bool ParseTokenId(StringView text, uint32_t& id) {
  const StringView digits = absl::StripAsciiWhitespace(text);
  return !digits.empty() && absl::ascii_isdigit(digits[0]) && absl::SimpleAtoi(digits, &id);
}

}  // namespace

std::string HostPort::ToString() const {
  const bool is_ipv6 = host.find(':') != std::string::npos;
  return is_ipv6 ? absl::StrCat("[", host, "]:", port) : absl::StrCat(host, ":", port);
}

absl::StatusOr<absl::Duration> ParseDuration(StringView text, absl::Duration minimum) {
  absl::Duration duration;
  if (!absl::ParseDuration(text, &duration) || duration < minimum ||
      duration == absl::InfiniteDuration()) {
    return Illegal(text, absl::StrCat("a duration of at least ", absl::FormatDuration(minimum),
                                      " such as 500ms, 30s or 2m"));
  }
  return duration;
}

absl::StatusOr<int64_t> ParseByteSize(StringView text) {
  constexpr char kLegal[] =
      "a size of at least 1 byte: a number of bytes, or one with KiB, MiB, GiB, TiB, KB, MB, GB or "
      "TB";
  size_t digits = 0;
  while (digits < text.size() && (absl::ascii_isdigit(text[digits]) || text[digits] == '.')) {
    ++digits;
  }
  double number = 0;
  if (!absl::SimpleAtod(text.substr(0, digits), &number)) return Illegal(text, kLegal);
  const std::string unit = absl::AsciiStrToLower(absl::StripAsciiWhitespace(text.substr(digits)));
  for (const ByteUnit& known : kByteUnits) {
    if (unit != known.name) continue;
    const double bytes = std::floor(number * known.bytes);
    if (bytes < 1 || bytes > 9e18) return Illegal(text, kLegal);
    return static_cast<int64_t>(bytes);
  }
  return Illegal(text, kLegal);
}

absl::StatusOr<HostPort> ParseHostPort(StringView text) {
  constexpr char kLegal[] = "an address HOST:PORT with a port from 0 to 65535";
  const size_t colon = text.rfind(':');
  if (colon == StringView::npos) return Illegal(text, kLegal);
  StringView host = text.substr(0, colon);
  const StringView port_text = text.substr(colon + 1);
  int port = 0;
  if (port_text.empty() || !absl::ascii_isdigit(port_text[0]) ||
      !absl::SimpleAtoi(port_text, &port) || port > 65535) {
    return Illegal(text, kLegal);
  }
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != StringView::npos) {
    return Illegal(text, "an address HOST:PORT; put an IPv6 host in brackets");
  }
  if (host.empty() || host.find_first_of("[]/ ") != StringView::npos) return Illegal(text, kLegal);
  return HostPort{std::string(host), port};
}

absl::StatusOr<std::vector<uint32_t>> ParseTokenIds(StringView text) {
  std::vector<uint32_t> ids;
  for (const StringView part : absl::StrSplit(text, ',')) {
    uint32_t id = 0;
    if (!ParseTokenId(part, id)) {
      return Illegal(part, "a token id (an integer from 0 to 4294967295); give ids as 1,2,3");
    }
    ids.push_back(id);
  }
  return ids;
}

absl::StatusOr<std::vector<std::pair<uint32_t, double>>> ParseLogitBias(StringView text) {
  std::vector<std::pair<uint32_t, double>> biases;
  for (const StringView part : absl::StrSplit(text, ',')) {
    const std::pair<StringView, StringView> halves = absl::StrSplit(part, absl::MaxSplits(':', 1));
    uint32_t id = 0;
    double bias = 0;
    if (!ParseTokenId(halves.first, id) || !absl::SimpleAtod(halves.second, &bias)) {
      return Illegal(part, "a token id and a number; give biases as 1:0.5,2:-100");
    }
    for (const auto& [other, ignored] : biases) {
      if (other == id) return Illegal(text, absl::StrCat("a bias per id: id ", id, " has two"));
    }
    biases.emplace_back(id, bias);
  }
  return biases;
}

absl::StatusOr<YarnOverride> ParseRopeScaling(StringView text) {
  constexpr char kLegal[] =
      "yarn:FACTOR or yarn:FACTOR:ORIGINAL, a factor of at least 1 and the number of positions "
      "that "
      "the model was trained on, such as yarn:4.0:32768";
  const std::vector<StringView> parts = absl::StrSplit(text, ':');
  YarnOverride yarn;
  const bool is_legal =
      (parts.size() == 2 || parts.size() == 3) && parts[0] == "yarn" &&
      absl::SimpleAtod(parts[1], &yarn.factor) && std::isfinite(yarn.factor) && yarn.factor >= 1 &&
      (parts.size() == 2 ||
       (absl::SimpleAtoi(parts[2], &yarn.original_positions) && yarn.original_positions > 0));
  return is_legal ? absl::StatusOr<YarnOverride>(yarn) : Illegal(text, kLegal);
}

absl::StatusOr<DualChunkConfig> ParseDualChunks(StringView text) {
  constexpr char kLegal[] =
      "CHUNK:LOCAL or CHUNK:LOCAL:ORIGINAL, numbers of positions of at least 1 with LOCAL below "
      "CHUNK, such as 8192:1024:32768";
  DualChunkConfig chunks;
  int64_t* const targets[] = {&chunks.chunk_size, &chunks.local_size, &chunks.original_positions};
  const std::vector<StringView> parts = absl::StrSplit(text, ':');
  bool is_legal = parts.size() == 2 || parts.size() == 3;
  for (size_t i = 0; is_legal && i < parts.size(); ++i) {
    is_legal =
        absl::SimpleAtoi(parts[i], targets[i]) && *targets[i] >= 1 && *targets[i] <= kMaxPositions;
  }
  is_legal = is_legal && chunks.local_size < chunks.chunk_size;
  return is_legal ? absl::StatusOr<DualChunkConfig>(chunks) : Illegal(text, kLegal);
}

absl::StatusOr<GpuMemoryLimit> ParseGpuMemory(StringView text) {
  double fraction = 0;
  if (absl::SimpleAtod(text, &fraction) && fraction > 0 && fraction <= 1) {
    return GpuMemoryLimit{.fraction = fraction, .bytes = 0};
  }
  const absl::StatusOr<int64_t> bytes = ParseByteSize(text);
  if (bytes.ok()) return GpuMemoryLimit{.fraction = 0, .bytes = *bytes};
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is neither a fraction such as 0.9 nor a size such as 140GB"));
}

absl::StatusOr<SimulatedRank> ParseSimulatedRank(StringView text) {
  constexpr int kMaxSize = 4096;
  const std::pair<StringView, StringView> parts = absl::StrSplit(text, absl::MaxSplits('/', 1));
  SimulatedRank simulated;
  if (absl::SimpleAtoi(parts.first, &simulated.rank) &&
      absl::SimpleAtoi(parts.second, &simulated.size) && simulated.rank >= 0 &&
      simulated.rank < simulated.size && simulated.size >= 2 && simulated.size <= kMaxSize) {
    return simulated;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "'", text, "' is no rank of a group: 0/8 is the first of 8, of at most ", kMaxSize));
}

absl::StatusOr<ReductionSizes> ParseReductionSizes(StringView text) {
  if (text == "measured") return ReductionSizes();
  ReductionSizes sizes{.are_measured = false, .one_shot = 0, .two_shot = 0};
  if (text == "usual") return sizes;
  const std::pair<StringView, StringView> parts = absl::StrSplit(text, absl::MaxSplits(':', 1));
  const absl::StatusOr<int64_t> one_shot = ParseByteSize(parts.first);
  const absl::StatusOr<int64_t> two_shot = ParseByteSize(parts.second);
  if (!one_shot.ok() || !two_shot.ok()) {
    return Illegal(text, "measured, usual or two sizes of messages, as 256KiB:1MiB");
  }
  sizes.one_shot = *one_shot;
  sizes.two_shot = *two_shot;
  return sizes;
}

absl::StatusOr<int64_t> ParseInteger(StringView text, int64_t minimum, int64_t maximum) {
  int64_t value = 0;
  if (!absl::SimpleAtoi(text, &value) || value < minimum || value > maximum) {
    return Illegal(text, absl::StrCat("an integer from ", minimum, " to ", maximum));
  }
  return value;
}

absl::StatusOr<uint64_t> ParseUnsigned(StringView text) {
  uint64_t value = 0;
  if (!absl::SimpleAtoi(text, &value)) {
    return Illegal(text, "an integer from 0 to 18446744073709551615");
  }
  return value;
}

absl::StatusOr<double> ParseReal(StringView text) {
  double value = 0;
  if (!absl::SimpleAtod(text, &value)) return Illegal(text, "a number");
  return value;
}

}  // namespace cohort
