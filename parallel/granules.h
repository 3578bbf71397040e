// A dimension as it is handed out to ranks: in granules, contiguous and ascending.
#ifndef COHORT_PARALLEL_GRANULES_H_
#define COHORT_PARALLEL_GRANULES_H_

#include <cstdint>
#include <vector>

#include "parallel/shard_plan.h"

namespace cohort {

struct Granules {
  // Of 64 columns, or of the largest smaller power of two that leaves every rank a granule; the
  // last granule may be partial.
  Granules(int64_t size_in, int64_t unit_bytes_in, int ranks);
  // Of one unit each, which may be fewer than the ranks.
  static Granules Units(int64_t size);

  int64_t bytes() const { return granularity * unit_bytes; }  // of a whole granule
  // What the last rank saves on the partial granule, which is surely its own when every rank has
  // one. (When not every rank has one, granules are single columns and none is partial.)
  int64_t saved_by_last_rank() const { return (count * granularity - size) * unit_bytes; }

  int64_t size;        // columns
  int64_t unit_bytes;  // of one column
  int64_t granularity;
  int64_t count = 0;
  int64_t minimum = 0;  // granules of each rank
};

// Lays a dimension over ranks that already read `bytes`, so that the slowest stays lowest when the
// last rank saves `saved_by_last_rank` of what is still to be counted. Adds to `bytes`.
std::vector<Range> Level(const Granules& granules, int64_t saved_by_last_rank,
                         std::vector<int64_t>& bytes);

// Lays a dimension over equal holders, the larger parts first.
std::vector<Range> CutEvenly(const Granules& granules, int holders);

}  // namespace cohort

#endif  // COHORT_PARALLEL_GRANULES_H_
