#include "parallel/replicated_exchange.h"

#include "absl/memory/memory.h"
#include "parallel/row_stream.h"

namespace cohort {
namespace {

// Dense rows as one row.
TensorView Flat(TensorView rows) {
  return TensorView(rows.data, rows.dtype, {1, rows.shape.elements()});
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertExchange>> ReplicatedExchange::Create(
    const ExpertExchangeOptions& options, const ShardPlan& plan, Device& device) {
  auto exchange = absl::WrapUnique(new ReplicatedExchange());
  exchange->shape_ = ExpertRowShape::Of(options, plan);
  exchange->groups_ = plan.parallelism().dp;
  exchange->max_tokens_ = options.max_tokens;
  if (exchange->groups_ > 1) {
    const int64_t words = exchange->shape_.words();
    const int64_t rows = exchange->max_rows();
    ASSIGN_OR_RETURN(exchange->rows_, ExpertRowBuffer::Create(exchange->shape_, rows, device));
    ASSIGN_OR_RETURN(exchange->own_, device.Allocate({options.max_tokens, words}, DType::kI32));
    ASSIGN_OR_RETURN(exchange->gathered_, device.Allocate({rows, words}, DType::kI32));
  }
  return exchange;
}

int64_t ReplicatedExchange::Bytes(const ExpertExchangeOptions& options, const ShardPlan& plan) {
  const int64_t groups = plan.parallelism().dp;
  if (groups == 1) {
    return 0;
  }
  const ExpertRowShape shape = ExpertRowShape::Of(options, plan);
  return ExpertRowBuffer::Bytes(shape, groups * options.max_tokens) +
         (groups + 1) * options.max_tokens * shape.words() * SizeOf(DType::kI32);
}

std::vector<Range> ReplicatedExchange::GatherParts(int64_t tokens, Communicator& data) const {
  std::vector<Range> places;
  for (int64_t group = 0; group < groups_; ++group) {
    places.push_back({group, group + 1});
  }
  int32_t own = static_cast<int32_t>(tokens);
  std::vector<int32_t> counts(static_cast<size_t>(groups_));
  data.AllGather(TensorView(&own, DType::kI32, {1, 1}), places,
                 TensorView(counts.data(), DType::kI32, {1, groups_}));
  std::vector<Range> parts;
  int64_t begin = 0;
  for (const int32_t count : counts) {
    parts.push_back({begin, begin + count});
    begin += count;
  }
  return parts;
}

ExpertRows ReplicatedExchange::Dispatch(TensorView x, const Routing& routing, TensorView out,
                                        Communicator& data) {
  if (groups_ == 1) {
    return {.x = x, .routing = routing, .sums = out};
  }
  std::vector<Range> parts = GatherParts(x.rows(), data);
  if (!data.status().ok()) {  // the counts mean nothing
    return {.x = rows_.x(0), .routing = rows_.routing(0), .sums = rows_.sums(0)};
  }
  own_rows_ = parts[static_cast<size_t>(data.rank())];
  int64_t rows = parts.back().end;
  const TensorView own = own_.view().Rows(0, x.rows());
  for (int64_t row = 0; row < x.rows(); ++row) {
    PackExpertRow(shape_, x, routing, row, own.Row<int32_t>(row));
  }
  for (Range& part : parts) {
    part = {part.begin * shape_.words(), part.end * shape_.words()};
  }
  const TensorView gathered = gathered_.view().Rows(0, rows);
  data.AllGather(Flat(own), parts, Flat(gathered));
  rows = data.status().ok() ? rows : 0;  // of a failed gather nothing is used
  const ExpertRows all = {
      .x = rows_.x(rows), .routing = rows_.routing(rows), .sums = rows_.sums(rows)};
  for (int64_t row = 0; row < rows; ++row) {
    UnpackExpertRow(shape_, gathered.Row<int32_t>(row), all.x, all.routing, row);
  }
  return all;
}

void ReplicatedExchange::Combine(const ExpertRows& rows, TensorView out, Communicator& data) {
  if (groups_ == 1) {
    return;
  }
  data.AllReduceSum(rows.sums);
  if (data.status().ok()) {
    CopyRows(rows.sums.Rows(own_rows_.begin, own_rows_.size()), out);
  }
}

}  // namespace cohort
