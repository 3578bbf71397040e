// Products that a device computes by a library, and the choice of the library's algorithms by the
// clock.
#ifndef COHORT_KERNELS_PRODUCT_TUNING_H_
#define COHORT_KERNELS_PRODUCT_TUNING_H_

#include <cstdint>
#include <string>

#include "absl/types/span.h"
#include "kernels/device.h"

namespace cohort {

// A product that Ops::MatMul will be asked for: x [tokens, in] by w [out, in].
struct ProductShape {
  int64_t tokens = 0;
  int64_t in = 0;
  int64_t out = 0;
  DType dtype = DType::kBF16;
  DType out_dtype = DType::kBF16;
  bool has_bias = false;
};

struct ProductTuning {
  int64_t known = 0;     // products whose algorithm the file had
  int64_t measured = 0;  // products that were timed
  std::string note;      // one line about a file that could not be used or written, or empty
};

// Chooses the fastest of the library's algorithms for each product and its number of tokens (and
// those down to the next smaller one given), from `file` where it knows them, else by the clock;
// what was timed is then kept in `file`, unless that is empty. Afterwards the bits of a row depend
// on how many are in its batch. A device whose products come from no library does nothing.
absl::StatusOr<ProductTuning> TuneProducts(Device& device, absl::Span<const ProductShape> products,
                                           const std::string& file);

}  // namespace cohort

#endif  // COHORT_KERNELS_PRODUCT_TUNING_H_
