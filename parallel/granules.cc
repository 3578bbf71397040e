#include "parallel/granules.h"

#include <algorithm>

#include "kernels/check.h"
#include "parallel/water_fill.h"

namespace cohort {
namespace {

constexpr int64_t kMaxGranularity = 64;

}  // namespace

Granules::Granules(int64_t size_in, int64_t unit_bytes_in, int ranks)
    : size(size_in), unit_bytes(unit_bytes_in), granularity(kMaxGranularity) {
  while (granularity > 1 && (size + granularity - 1) / granularity < ranks) {
    granularity /= 2;
  }
  count = (size + granularity - 1) / granularity;
  minimum = count >= ranks ? 1 : 0;
}

Granules Granules::Units(int64_t size) {
  Granules units(size, 1, 1);
  units.granularity = 1;
  units.count = size;
  units.minimum = 0;
  return units;
}

std::vector<Range> Level(const Granules& granules, int64_t saved_by_last_rank,
                         std::vector<int64_t>& bytes) {
  std::vector<int64_t> loads = bytes;
  loads.back() -= saved_by_last_rank;
  std::vector<Range> ranges;
  int64_t begin = 0;
  for (const int64_t count : WaterFill(loads, granules.bytes(), granules.count, granules.minimum)) {
    const int64_t end = std::min(granules.size, begin + count * granules.granularity);
    bytes[ranges.size()] += (end - begin) * granules.unit_bytes;
    ranges.push_back({begin, end});
    begin = end;
  }
  CHECK_EQ(begin, granules.size);
  return ranges;
}

std::vector<Range> CutEvenly(const Granules& granules, int holders) {
  std::vector<int64_t> loads(holders);
  return Level(granules, 0, loads);
}

}  // namespace cohort
