#include "parallel/water_fill.h"

#include <algorithm>

#include "kernels/check.h"

namespace cohort {
namespace {

// What a holder takes while it stays at or below `level`, its minimum in any case.
int64_t UnitsAtLevel(int64_t load, int64_t unit_load, int64_t minimum, int64_t level) {
  return level <= load ? minimum : std::max(minimum, (level - load) / unit_load);
}

int64_t SumAtLevel(absl::Span<const int64_t> loads, int64_t unit_load, int64_t minimum,
                   int64_t level) {
  int64_t sum = 0;
  for (const int64_t load : loads) {
    sum += UnitsAtLevel(load, unit_load, minimum, level);
  }
  return sum;
}

// The lowest level at which the holders take `units` or more.
int64_t LowestLevel(absl::Span<const int64_t> loads, int64_t unit_load, int64_t units,
                    int64_t minimum) {
  const auto [least, most] = std::minmax_element(loads.begin(), loads.end());
  const int64_t share = units / static_cast<int64_t>(loads.size()) + 1;
  int64_t below = *least;
  int64_t enough = *most + share * unit_load;
  while (below < enough) {
    const int64_t middle = below + (enough - below) / 2;
    if (SumAtLevel(loads, unit_load, minimum, middle) >= units) {
      enough = middle;
    } else {
      below = middle + 1;
    }
  }
  return enough;
}

}  // namespace

std::vector<int64_t> WaterFill(absl::Span<const int64_t> loads, int64_t unit_load, int64_t units,
                               int64_t minimum) {
  CHECK(!loads.empty());
  CHECK_GT(unit_load, 0);
  CHECK_GE(units, minimum * static_cast<int64_t>(loads.size()));
  const int64_t level = LowestLevel(loads, unit_load, units, minimum);
  std::vector<int64_t> result(loads.size());
  int64_t surplus = -units;
  for (size_t i = 0; i < loads.size(); ++i) {
    result[i] = UnitsAtLevel(loads[i], unit_load, minimum, level);
    surplus += result[i];
  }
  // One level lower would not do, so the surplus is at most one unit of each holder that touches
  // the level exactly.
  for (size_t i = loads.size(); i-- > 0 && surplus > 0;) {
    if (result[i] > minimum && loads[i] + result[i] * unit_load == level) {
      --result[i];
      --surplus;
    }
  }
  CHECK_EQ(surplus, 0);
  return result;
}

}  // namespace cohort
