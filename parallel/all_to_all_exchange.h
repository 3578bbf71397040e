// Rows go to the ranks that hold one of their experts. See expert_exchange.h.
#ifndef COHORT_PARALLEL_ALL_TO_ALL_EXCHANGE_H_
#define COHORT_PARALLEL_ALL_TO_ALL_EXCHANGE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "parallel/expert_exchange.h"
#include "parallel/expert_rows.h"

namespace cohort {

class AllToAllExchange : public ExpertExchange {
 public:
  static absl::StatusOr<std::unique_ptr<ExpertExchange>> Create(
      const ExpertExchangeOptions& options, const ShardPlan& plan, Device& device);
  static int64_t Bytes(const ExpertExchangeOptions& options, const ShardPlan& plan);

  ExpertRows Dispatch(TensorView x, const Routing& routing, TensorView out, Communicator& data,
                      absl::Span<const int64_t> rows_of_groups) override;
  void Combine(const ExpertRows& rows, TensorView out, Communicator& data) override;
  int64_t max_rows() const override {
    return static_cast<int64_t>(experts_of_rank_.size()) * max_tokens_;
  }

 private:
  // A collective's two sides, with room for max_tokens_ rows from and to every rank.
  struct Sides {
    Tensor sent, received;                // [ranks * max tokens, columns]
    Tensor sent_counts, received_counts;  // [ranks] int32
    ExchangeView send() const { return {sent.view(), sent_counts.view()}; }
    ExchangeView receive() const { return {received.view(), received_counts.view()}; }
  };

  AllToAllExchange() = default;
  static absl::StatusOr<Sides> MakeSides(int64_t ranks, int64_t tokens, int64_t columns,
                                         DType dtype, Device& device);
  // Writes down which rows each rank of the data group gets.
  void Address(const Routing& routing);
  int64_t FirstRow(size_t rank) const { return static_cast<int64_t>(rank) * max_tokens_; }

  ExpertRowShape shape_;
  int64_t max_tokens_ = 0;
  std::vector<Range> experts_of_rank_;              // by rank of the data group
  std::vector<std::vector<int32_t>> rows_of_rank_;  // in the exchange under way
  Sides dispatch_;                                  // int32 words of packed rows
  Sides combine_;                                   // fp32 sums
  ExpertRowBuffer rows_;
};

}  // namespace cohort

#endif  // COHORT_PARALLEL_ALL_TO_ALL_EXCHANGE_H_
