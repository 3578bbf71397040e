#include "parallel/expert_rows.h"

#include <cstring>

namespace cohort {
namespace {

template <class T>
size_t BytesOf(int64_t count) {
  return static_cast<size_t>(count) * sizeof(T);
}

}  // namespace

ExpertRowShape ExpertRowShape::Of(const ExpertExchangeOptions& options, const ShardPlan& plan) {
  return {.hidden = plan.dims().hidden,
          .experts_per_token = plan.dims().experts_per_token,
          .act = options.act};
}

absl::StatusOr<ExpertRowBuffer> ExpertRowBuffer::Create(const ExpertRowShape& shape,
                                                        int64_t max_rows, Device& device) {
  ExpertRowBuffer buffer;
  const Shape chosen = {max_rows, shape.experts_per_token};
  ASSIGN_OR_RETURN(buffer.x_, device.Allocate({max_rows, shape.hidden}, shape.act));
  ASSIGN_OR_RETURN(buffer.ids_, device.Allocate(chosen, DType::kI32));
  ASSIGN_OR_RETURN(buffer.weights_, device.Allocate(chosen, DType::kF32));
  ASSIGN_OR_RETURN(buffer.sums_, device.Allocate({max_rows, shape.hidden}, DType::kF32));
  return buffer;
}

int64_t ExpertRowBuffer::Bytes(const ExpertRowShape& shape, int64_t max_rows) {
  return max_rows * (shape.hidden * (SizeOf(shape.act) + SizeOf(DType::kF32)) +
                     shape.experts_per_token * (SizeOf(DType::kI32) + SizeOf(DType::kF32)));
}

void PackExpertRow(const ExpertRowShape& shape, TensorView x, const Routing& routing, int64_t row,
                   int32_t* words) {
  const int64_t k = shape.experts_per_token;
  std::memcpy(words, x.Rows(row, 1).data, static_cast<size_t>(shape.hidden * SizeOf(shape.act)));
  std::memcpy(words + shape.x_words(), routing.ids.Row<int32_t>(row), BytesOf<int32_t>(k));
  std::memcpy(words + shape.x_words() + k, routing.weights.Row<float>(row), BytesOf<float>(k));
}

void UnpackExpertRow(const ExpertRowShape& shape, const int32_t* words, TensorView x,
                     const Routing& routing, int64_t row) {
  const int64_t k = shape.experts_per_token;
  std::memcpy(x.Rows(row, 1).data, words, static_cast<size_t>(shape.hidden * SizeOf(shape.act)));
  std::memcpy(routing.ids.Row<int32_t>(row), words + shape.x_words(), BytesOf<int32_t>(k));
  std::memcpy(routing.weights.Row<float>(row), words + shape.x_words() + k, BytesOf<float>(k));
}

}  // namespace cohort
