// Every rank computes its experts' part of every row. See expert_exchange.h. Works on any device;
// the host reads only how many rows each group has.
#ifndef COHORT_PARALLEL_REPLICATED_EXCHANGE_H_
#define COHORT_PARALLEL_REPLICATED_EXCHANGE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "parallel/expert_exchange.h"
#include "parallel/expert_rows.h"

namespace cohort {

class ReplicatedExchange : public ExpertExchange {
 public:
  static absl::StatusOr<std::unique_ptr<ExpertExchange>> Create(
      const ExpertExchangeOptions& options, const ShardPlan& plan, Device& device);
  static int64_t Bytes(const ExpertExchangeOptions& options, const ShardPlan& plan);

  ExpertRows Dispatch(TensorView x, const Routing& routing, TensorView out, Communicator& data,
                      absl::Span<const int64_t> rows_of_groups) override;
  void Combine(const ExpertRows& rows, TensorView out, Communicator& data) override;
  int64_t max_rows() const override { return groups_ * max_tokens_; }

 private:
  explicit ReplicatedExchange(Device& device) : device_(device) {}
  // Of every group, from the first of its rows to the one after its last.
  static std::vector<Range> PartsOf(absl::Span<const int64_t> rows_of_groups);
  // What a failed collective left is not computed with, where the host can ask in the middle of a
  // step. A device that records cannot be asked; its operations take whatever ids there are.
  bool HasFailed(const Communicator& data) const;
  // The first rows of `from`, as many as `to` has.
  void CopyRows(TensorView from, TensorView to) const;
  TensorView Numbers(Range range) const;
  // The parts of packed rows.
  struct PackedColumns {
    TensorView x, ids, weights;
  };
  PackedColumns ColumnsOf(TensorView packed) const;

  Device& device_;
  ExpertRowShape shape_;
  int64_t groups_ = 1;  // data-parallel ones
  int64_t max_tokens_ = 0;
  // Of several groups.
  ExpertRowBuffer rows_;  // of all groups
  Tensor own_;            // [max tokens, words] int32
  Tensor gathered_;       // [groups * max tokens, words] int32
  Tensor numbers_;        // [groups * max tokens] int32: 0, 1, 2, ...
  Range own_rows_;        // among those of all groups, in the exchange under way
};

}  // namespace cohort

#endif  // COHORT_PARALLEL_REPLICATED_EXCHANGE_H_
