#include "parallel/replicated_exchange.h"

#include <numeric>

#include "absl/memory/memory.h"
#include "kernels/check.h"

namespace cohort {
namespace {

// Dense rows as one row.
TensorView Flat(TensorView rows) {
  return TensorView(rows.data, rows.dtype, {1, rows.shape.elements()});
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertExchange>> ReplicatedExchange::Create(
    const ExpertExchangeOptions& options, const ShardPlan& plan, Device& device) {
  auto exchange = absl::WrapUnique(new ReplicatedExchange(device));
  exchange->shape_ = ExpertRowShape::Of(options, plan);
  exchange->groups_ = plan.parallelism().dp;
  exchange->max_tokens_ = options.max_tokens;
  if (exchange->groups_ == 1) {
    return exchange;
  }
  const int64_t words = exchange->shape_.words();
  const int64_t rows = exchange->max_rows();
  ASSIGN_OR_RETURN(exchange->rows_, ExpertRowBuffer::Create(exchange->shape_, rows, device));
  ASSIGN_OR_RETURN(exchange->own_, device.Allocate({options.max_tokens, words}, DType::kI32));
  ASSIGN_OR_RETURN(exchange->gathered_, device.Allocate({rows, words}, DType::kI32));
  ASSIGN_OR_RETURN(exchange->numbers_, device.Allocate({rows}, DType::kI32));
  std::vector<int32_t> numbers(static_cast<size_t>(rows));
  std::iota(numbers.begin(), numbers.end(), 0);
  device.CopyFromHost(numbers.data(), exchange->numbers_.view());
  RETURN_IF_ERROR(device.Synchronize());  // before the numbers are gone
  return exchange;
}

int64_t ReplicatedExchange::Bytes(const ExpertExchangeOptions& options, const ShardPlan& plan) {
  const int64_t groups = plan.parallelism().dp;
  if (groups == 1) {
    return 0;
  }
  const ExpertRowShape shape = ExpertRowShape::Of(options, plan);
  const int64_t rows = groups * options.max_tokens;
  return ExpertRowBuffer::Bytes(shape, rows) +
         SizeOf(DType::kI32) * ((rows + options.max_tokens) * shape.words() + rows);
}

std::vector<Range> ReplicatedExchange::PartsOf(absl::Span<const int64_t> rows_of_groups) {
  std::vector<Range> parts;
  int64_t begin = 0;
  for (const int64_t rows : rows_of_groups) {
    parts.push_back({begin, begin + rows});
    begin += rows;
  }
  return parts;
}

bool ReplicatedExchange::HasFailed(const Communicator& data) const {
  return device_.kind() == "cpu" && !data.status().ok();
}

void ReplicatedExchange::CopyRows(TensorView from, TensorView to) const {
  device_.ops().GatherRows(from, Numbers({0, to.rows()}), to);
}

TensorView ReplicatedExchange::Numbers(Range range) const {
  return TensorView(numbers_.view().As<int32_t>() + range.begin, DType::kI32, {range.size()});
}

ReplicatedExchange::PackedColumns ReplicatedExchange::ColumnsOf(TensorView packed) const {
  const int64_t rows = packed.rows();
  const int64_t k = shape_.experts_per_token;
  int32_t* const words = packed.As<int32_t>();
  return {
      .x = TensorView(words, shape_.act, {rows, shape_.hidden},
                      shape_.words() * SizeOf(DType::kI32) / SizeOf(shape_.act)),
      .ids = TensorView(words + shape_.x_words(), DType::kI32, {rows, k}, shape_.words()),
      .weights = TensorView(words + shape_.x_words() + k, DType::kF32, {rows, k}, shape_.words())};
}

ExpertRows ReplicatedExchange::Dispatch(TensorView x, const Routing& routing, TensorView out,
                                        Communicator& data,
                                        absl::Span<const int64_t> rows_of_groups) {
  if (groups_ == 1) {
    return {.x = x, .routing = routing, .sums = out};
  }
  CHECK_EQ(static_cast<int64_t>(rows_of_groups.size()), groups_);
  std::vector<Range> parts = PartsOf(rows_of_groups);
  own_rows_ = parts[static_cast<size_t>(data.rank())];
  CHECK_EQ(own_rows_.size(), x.rows());
  int64_t rows = parts.back().end;
  CHECK_LE(rows, max_rows());
  const TensorView own = own_.view().Rows(0, x.rows());
  const PackedColumns sent = ColumnsOf(own);
  CopyRows(x, sent.x);
  CopyRows(routing.ids, sent.ids);
  CopyRows(routing.weights, sent.weights);
  for (Range& part : parts) {
    part = {part.begin * shape_.words(), part.end * shape_.words()};
  }
  const TensorView gathered = gathered_.view().Rows(0, rows);
  data.AllGather(Flat(own), parts, Flat(gathered));
  rows = HasFailed(data) ? 0 : rows;
  const ExpertRows all = {
      .x = rows_.x(rows), .routing = rows_.routing(rows), .sums = rows_.sums(rows)};
  const PackedColumns received = ColumnsOf(gathered.Rows(0, rows));
  CopyRows(received.x, all.x);
  CopyRows(received.ids, all.routing.ids);
  CopyRows(received.weights, all.routing.weights);
  return all;
}

void ReplicatedExchange::Combine(const ExpertRows& rows, TensorView out, Communicator& data) {
  if (groups_ == 1) {
    return;
  }
  data.AllReduceSum(rows.sums);
  if (!HasFailed(data)) {
    device_.ops().GatherRows(rows.sums, Numbers(own_rows_), out);
  }
}

}  // namespace cohort
