// Rows on their way between ranks: activations, expert ids and weights of a row as one row of
// 32-bit words, so that one collective moves them.
#ifndef COHORT_PARALLEL_EXPERT_ROWS_H_
#define COHORT_PARALLEL_EXPERT_ROWS_H_

#include <cstdint>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "parallel/expert_exchange.h"
#include "parallel/shard_plan.h"

namespace cohort {

struct ExpertRowShape {
  int64_t hidden = 0;
  int64_t experts_per_token = 0;
  DType act = DType::kBF16;

  static ExpertRowShape Of(const ExpertExchangeOptions& options, const ShardPlan& plan);
  int64_t x_words() const { return (hidden * SizeOf(act) + 3) / 4; }
  int64_t words() const { return x_words() + 2 * experts_per_token; }
};

// Rows as the experts need them: x, ids and weights apart, in host memory.
class ExpertRowBuffer {
 public:
  static absl::StatusOr<ExpertRowBuffer> Create(const ExpertRowShape& shape, int64_t max_rows,
                                                Device& device);
  static int64_t Bytes(const ExpertRowShape& shape, int64_t max_rows);

  // The first `rows` rows.
  TensorView x(int64_t rows) const { return x_.view().Rows(0, rows); }
  Routing routing(int64_t rows) const {
    return {ids_.view().Rows(0, rows), weights_.view().Rows(0, rows)};
  }
  TensorView sums(int64_t rows) const { return sums_.view().Rows(0, rows); }

 private:
  Tensor x_, ids_, weights_, sums_;
};

// Row `row` of x and routing to `words`, [shape.words()], and back.
void PackExpertRow(const ExpertRowShape& shape, TensorView x, const Routing& routing, int64_t row,
                   int32_t* words);
void UnpackExpertRow(const ExpertRowShape& shape, const int32_t* words, TensorView x,
                     const Routing& routing, int64_t row);

}  // namespace cohort

#endif  // COHORT_PARALLEL_EXPERT_ROWS_H_
