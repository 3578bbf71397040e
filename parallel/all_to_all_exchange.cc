#include "parallel/all_to_all_exchange.h"

#include <algorithm>
#include <cstring>

#include "absl/memory/memory.h"
#include "kernels/check.h"
#include "parallel/row_stream.h"

namespace cohort {
namespace {

void Add(const float* addend, int64_t count, float* sum) {
  for (int64_t i = 0; i < count; ++i) {
    sum[i] += addend[i];
  }
}

}  // namespace

absl::StatusOr<AllToAllExchange::Sides> AllToAllExchange::MakeSides(int64_t ranks, int64_t tokens,
                                                                    int64_t columns, DType dtype,
                                                                    Device& device) {
  Sides sides;
  ASSIGN_OR_RETURN(sides.sent, device.Allocate({ranks * tokens, columns}, dtype));
  ASSIGN_OR_RETURN(sides.received, device.Allocate({ranks * tokens, columns}, dtype));
  ASSIGN_OR_RETURN(sides.sent_counts, device.Allocate({ranks}, DType::kI32));
  ASSIGN_OR_RETURN(sides.received_counts, device.Allocate({ranks}, DType::kI32));
  return sides;
}

absl::StatusOr<std::unique_ptr<ExpertExchange>> AllToAllExchange::Create(
    const ExpertExchangeOptions& options, const ShardPlan& plan, Device& device) {
  auto exchange = absl::WrapUnique(new AllToAllExchange());
  exchange->shape_ = ExpertRowShape::Of(options, plan);
  exchange->max_tokens_ = options.max_tokens;
  const Parallelism& parallelism = plan.parallelism();
  const int group_ranks = parallelism.world() / parallelism.ep;
  for (const int rank : DataGroup(parallelism, plan.rank())) {
    exchange->experts_of_rank_.push_back(
        plan.expert_parts()[static_cast<size_t>(rank / group_ranks)]);
    exchange->rows_of_rank_.emplace_back().reserve(static_cast<size_t>(options.max_tokens));
  }
  const int64_t ranks = parallelism.dp;
  const ExpertRowShape& shape = exchange->shape_;
  ASSIGN_OR_RETURN(exchange->dispatch_,
                   MakeSides(ranks, options.max_tokens, shape.words(), DType::kI32, device));
  ASSIGN_OR_RETURN(exchange->combine_,
                   MakeSides(ranks, options.max_tokens, shape.hidden, DType::kF32, device));
  ASSIGN_OR_RETURN(exchange->rows_, ExpertRowBuffer::Create(shape, exchange->max_rows(), device));
  return exchange;
}

int64_t AllToAllExchange::Bytes(const ExpertExchangeOptions& options, const ShardPlan& plan) {
  const ExpertRowShape shape = ExpertRowShape::Of(options, plan);
  const int64_t ranks = plan.parallelism().dp;
  const int64_t row = shape.words() * SizeOf(DType::kI32) + shape.hidden * SizeOf(DType::kF32);
  return ExpertRowBuffer::Bytes(shape, ranks * options.max_tokens) +
         2 * ranks * (options.max_tokens * row + 2 * SizeOf(DType::kI32));
}

void AllToAllExchange::Address(const Routing& routing) {
  for (std::vector<int32_t>& rows : rows_of_rank_) {
    rows.clear();
  }
  for (int64_t row = 0; row < routing.ids.rows(); ++row) {
    const int32_t* const ids = routing.ids.Row<int32_t>(row);
    for (size_t rank = 0; rank < experts_of_rank_.size(); ++rank) {
      const Range experts = experts_of_rank_[rank];
      if (std::any_of(ids, ids + shape_.experts_per_token,
                      [experts](int32_t id) { return id >= experts.begin && id < experts.end; })) {
        rows_of_rank_[rank].push_back(static_cast<int32_t>(row));
      }
    }
  }
}

ExpertRows AllToAllExchange::Dispatch(TensorView x, const Routing& routing, TensorView,
                                      Communicator& data, absl::Span<const int64_t>) {
  CHECK_LE(x.rows(), max_tokens_);
  Address(routing);
  const TensorView sent = dispatch_.sent.view();
  for (size_t rank = 0; rank < rows_of_rank_.size(); ++rank) {
    int64_t place = FirstRow(rank);
    for (const int32_t row : rows_of_rank_[rank]) {
      PackExpertRow(shape_, x, routing, row, sent.Row<int32_t>(place++));
    }
    dispatch_.sent_counts.view().As<int32_t>()[rank] =
        static_cast<int32_t>(rows_of_rank_[rank].size());
  }
  data.AllToAll(dispatch_.send(), dispatch_.receive());
  int64_t rows = 0;
  for (size_t rank = 0; data.status().ok() && rank < rows_of_rank_.size(); ++rank) {
    const int32_t count = dispatch_.received_counts.view().As<int32_t>()[rank];
    for (int32_t i = 0; i < count; ++i, ++rows) {
      UnpackExpertRow(shape_, dispatch_.received.view().Row<int32_t>(FirstRow(rank) + i),
                      rows_.x(max_rows()), rows_.routing(max_rows()), rows);
    }
  }
  return {.x = rows_.x(rows), .routing = rows_.routing(rows), .sums = rows_.sums(rows)};
}

void AllToAllExchange::Combine(const ExpertRows& rows, TensorView out, Communicator& data) {
  int64_t next = 0;
  for (size_t rank = 0; data.status().ok() && rank < rows_of_rank_.size(); ++rank) {
    const int32_t count = dispatch_.received_counts.view().As<int32_t>()[rank];
    combine_.sent_counts.view().As<int32_t>()[rank] = count;
    CopyRows(rows.sums.Rows(next, count), combine_.sent.view().Rows(FirstRow(rank), count));
    next += count;
  }
  data.AllToAll(combine_.send(), combine_.receive());
  if (!data.status().ok()) {
    return;
  }
  for (int64_t row = 0; row < out.rows(); ++row) {
    std::fill_n(out.Row<float>(row), shape_.hidden, 0.0f);
  }
  // In order of the ranks, whatever the timing.
  for (size_t rank = 0; rank < rows_of_rank_.size(); ++rank) {
    int64_t place = FirstRow(rank);
    for (const int32_t row : rows_of_rank_[rank]) {
      Add(combine_.received.view().Row<float>(place++), shape_.hidden, out.Row<float>(row));
    }
  }
}

}  // namespace cohort
