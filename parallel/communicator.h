// Collectives among the ranks of one group. A communicator belongs to one epoch and to one rank's
// worker thread; only Abort() and status() may be called from another thread.
#ifndef COHORT_PARALLEL_COMMUNICATOR_H_
#define COHORT_PARALLEL_COMMUNICATOR_H_

#include <memory>

#include "absl/types/span.h"
#include "kernels/ops.h"
#include "kernels/status.h"
#include "kernels/tensor.h"
#include "parallel/shard_plan.h"

namespace cohort {

// Rows that go to, or came from, each rank of a group: those of rank r are rows [r * capacity,
// r * capacity + counts[r]). The capacity is fixed and the counts are data of the device, so the
// sizes of a call never depend on them.
struct ExchangeView {
  TensorView rows;    // [ranks * capacity, columns], dense; fp32, bf16 or int32
  TensorView counts;  // [ranks] int32, each in 0..capacity
  int64_t capacity() const { return rows.rows() / counts.shape.elements(); }
};

// Every rank of the group makes the same calls in the same order with the same sizes. Calls return
// void, as operations of a device do: the first failure (a deadline, an abort) sticks, every later
// call returns at once leaving its output unspecified, and status() tells.
class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;  // index inside the group
  virtual int size() const = 0;

  // inout = the sum over ranks, added in rank order in fp32, so that every rank holds the same bits
  // whatever the timing. fp32 or bf16 (rounded once); dense.
  virtual void AllReduceSum(TensorView inout) = 0;

  // out[r, parts[i]] = rank i's shard[r]. shard [rows, parts[rank].size()], out [rows, total];
  // fp32, bf16 or int32; rows may be strided. `parts` tile [0, total) and may differ in size or be
  // empty.
  virtual void AllGather(TensorView shard, absl::Span<const Range> parts, TensorView out) = 0;

  // Rank r's rows for this rank become `receive`'s rows from r, and their count its count. The same
  // capacity, columns and dtype on every rank; what `receive` holds beyond the counts is
  // unspecified. The views share no memory.
  virtual void AllToAll(const ExchangeView& send, const ExchangeView& receive) = 0;

  virtual void Barrier() = 0;

  // Every wait of this communicator, present or future, on this rank returns with ABORTED.
  // Idempotent, any thread.
  virtual void Abort() = 0;

  // OK, or the first failure: ABORTED, DEADLINE_EXCEEDED that names the collective, its sequence
  // number and the group ranks that had not arrived, or UNAVAILABLE that names the ranks of another
  // host when the connection to it is lost.
  virtual absl::Status status() const = 0;

  // The end of every half-layer. Default: reduce, then the operation.
  // x [tokens, hidden] partial sums, fp32 or act, unspecified afterwards; the rest as
  // Ops::AddRmsNorm.
  virtual void AllReduceAddRmsNorm(Ops& ops, TensorView x, TensorView residual, TensorView gamma,
                                   float eps, TensorView out);
};

// A group of one: every collective is the identity (AllGather copies).
std::unique_ptr<Communicator> MakeSelfCommunicator();

}  // namespace cohort

#endif  // COHORT_PARALLEL_COMMUNICATOR_H_
