#include "parallel/rank_order_sum.h"

#include <algorithm>

#include "kernels/bfloat16.h"
#include "kernels/check.h"

namespace cohort {
namespace {

// Each block is read from every source before it is written, which is what allows `out` to be one.
template <class T>
void Sum(absl::Span<const void* const> sources, int64_t count, T* out) {
  constexpr int64_t kBlock = 512;
  float sum[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t length = std::min(kBlock, count - begin);
    const T* first = static_cast<const T*>(sources[0]) + begin;
    for (int64_t i = 0; i < length; ++i) {
      sum[i] = ToFloat(first[i]);
    }
    for (const void* source : sources.subspan(1)) {
      const T* addend = static_cast<const T*>(source) + begin;
      for (int64_t i = 0; i < length; ++i) {
        sum[i] += ToFloat(addend[i]);
      }
    }
    for (int64_t i = 0; i < length; ++i) {
      out[begin + i] = FromFloat<T>(sum[i]);
    }
  }
}

}  // namespace

void SumInRankOrder(absl::Span<const void* const> sources, DType dtype, int64_t count, void* out) {
  CHECK(dtype == DType::kF32 || dtype == DType::kBF16) << NameOf(dtype) << " is not summed";
  if (dtype == DType::kF32) {
    Sum(sources, count, static_cast<float*>(out));
  } else {
    Sum(sources, count, static_cast<BFloat16*>(out));
  }
}

}  // namespace cohort
