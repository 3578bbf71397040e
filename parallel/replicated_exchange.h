// Every rank computes its experts' part of every row. See expert_exchange.h.
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

  ExpertRows Dispatch(TensorView x, const Routing& routing, TensorView out,
                      Communicator& data) override;
  void Combine(const ExpertRows& rows, TensorView out, Communicator& data) override;
  int64_t max_rows() const override { return groups_ * max_tokens_; }

 private:
  ReplicatedExchange() = default;
  // Of every group, from the first of its rows to the one after its last.
  std::vector<Range> GatherParts(int64_t tokens, Communicator& data) const;

  ExpertRowShape shape_;
  int64_t groups_ = 1;  // data-parallel ones
  int64_t max_tokens_ = 0;
  // Of several groups.
  ExpertRowBuffer rows_;  // of all groups
  Tensor own_;            // [max tokens, words] int32
  Tensor gathered_;       // [groups * max tokens, words] int32
  Range own_rows_;        // among those of all groups, in the exchange under way
};

}  // namespace cohort

#endif  // COHORT_PARALLEL_REPLICATED_EXCHANGE_H_
