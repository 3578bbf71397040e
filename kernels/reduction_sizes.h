// The choice between the ways of a reduction by the size of its message. Plain code, for the CUDA
// backend too.
#ifndef COHORT_KERNELS_REDUCTION_SIZES_H_
#define COHORT_KERNELS_REDUCTION_SIZES_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace cohort {

// Of a message of so many bytes, by peer memory in one exchange or in two, or by NCCL; an
// infinite time: it does not go so.
struct ReductionTimes {
  int64_t bytes = 0;
  float one_shot = 0;
  float two_shot = 0;
  float nccl = 0;
};

// Messages of up to `one_shot` bytes go in one exchange, larger ones of up to `two_shot` in two.
struct ReductionBorders {
  int64_t one_shot = 0;
  int64_t two_shot = 0;
  bool operator==(const ReductionBorders&) const = default;
};

// The borders that make the sum over all `times`, ascending by bytes, least: one size that was
// measured badly does not move them far.
inline ReductionBorders ChooseBorders(const std::vector<ReductionTimes>& times) {
  ReductionBorders best;
  float least = std::numeric_limits<float>::infinity();
  for (std::size_t two = 0; two <= times.size(); ++two) {
    for (std::size_t one = 0; one <= two; ++one) {
      float sum = 0;
      for (std::size_t i = 0; i < times.size(); ++i) {
        sum += i < one ? times[i].one_shot : i < two ? times[i].two_shot : times[i].nccl;
      }
      if (sum < least) {
        least = sum;
        best = {.one_shot = one == 0 ? 0 : times[one - 1].bytes,
                .two_shot = two == one ? 0 : times[two - 1].bytes};
      }
    }
  }
  return best;
}

}  // namespace cohort

#endif  // COHORT_KERNELS_REDUCTION_SIZES_H_
