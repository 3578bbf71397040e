// How rows reach the ranks that hold their experts, and the sums of those experts get back. Two
// ways behind one interface:
//
//   replicated   every rank computes its experts' part of every row of all data-parallel groups.
//                Of one group nothing has to move: its ranks have the same rows anyway.
//   all-to-all   a rank gets only rows with one of its experts.
//
// Rows move among the ranks of equal tensor index, the data group. That is enough: in every tensor
// group exactly one rank trades with a given rank, so once the layer's reduce has added up a tensor
// group, every expert has been counted once.
#ifndef COHORT_PARALLEL_EXPERT_EXCHANGE_H_
#define COHORT_PARALLEL_EXPERT_EXCHANGE_H_

#include <cstdint>
#include <memory>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "parallel/communicator.h"
#include "parallel/shard_plan.h"

namespace cohort {

// The handle of one exchange: what this rank's experts have to compute.
struct ExpertRows {
  TensorView x;     // [rows, hidden] act
  Routing routing;  // of these rows; experts of other ranks among them
  TensorView sums;  // [rows, hidden] fp32, for the caller to fill: each row's weighted sum over
                    // this rank's part of its experts
};

// One per rank. Between Dispatch() and Combine() lies one exchange at a time; its views are valid
// until the next. A failure of `data` sticks there, and what comes back then means nothing.
class ExpertExchange {
 public:
  virtual ~ExpertExchange() = default;

  // x [tokens, hidden] act and routing [tokens, k]: the rows of this rank's data-parallel group,
  // the same on all its ranks; tokens may be 0, and another number in every group. `out` as for
  // Combine(); `data`: the communicator of this rank's data group. `rows_of_groups`: those of every
  // data-parallel group, as the plan of the step says. So a replicated exchange only enqueues.
  virtual ExpertRows Dispatch(TensorView x, const Routing& routing, TensorView out,
                              Communicator& data, absl::Span<const int64_t> rows_of_groups) = 0;

  // out [tokens, hidden] fp32 becomes this rank's summand of the tensor group's sum over experts.
  virtual void Combine(const ExpertRows& rows, TensorView out, Communicator& data) = 0;

  // Rows that Dispatch() gives at most.
  virtual int64_t max_rows() const = 0;
};

enum class ExpertExchangeKind { kReplicated, kAllToAll };

struct ExpertExchangeOptions {
  ExpertExchangeKind kind = ExpertExchangeKind::kReplicated;
  DType act = DType::kBF16;
  int64_t max_tokens = 0;  // rows of a step in each data-parallel group
};

// Allocates everything an exchange needs. UNIMPLEMENTED for all-to-all between devices other than
// the CPU. `device` must outlive the exchange.
absl::StatusOr<std::unique_ptr<ExpertExchange>> MakeExpertExchange(
    const ExpertExchangeOptions& options, const ShardPlan& plan, Device& device);

// Bytes that MakeExpertExchange() allocates.
int64_t ExpertExchangeBytes(const ExpertExchangeOptions& options, const ShardPlan& plan);

}  // namespace cohort

#endif  // COHORT_PARALLEL_EXPERT_EXCHANGE_H_
