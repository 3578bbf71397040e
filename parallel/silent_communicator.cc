#include "parallel/silent_communicator.h"

#include <algorithm>
#include <mutex>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "parallel/gather_shape.h"

namespace cohort {
namespace {

class SilentCommunicator : public Communicator {
 public:
  // `rows`: [max rows] int32, 0, 1, 2, ...
  SilentCommunicator(Ops& ops, Tensor rows, int rank, int size)
      : ops_(ops), rows_(std::move(rows)), rank_(rank), size_(size) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void AllReduceSum(TensorView inout) override {
    CHECK(inout.dtype == DType::kF32 || inout.dtype == DType::kBF16) << NameOf(inout.dtype);
  }
  void AllGather(TensorView shard, absl::Span<const Range> parts, TensorView out) override;
  void AllToAll(const ExchangeView&, const ExchangeView&) override {
    Fail(absl::UnimplementedError(absl::StrCat("rank ", rank_, " of ", size_,
                                               " is simulated: it has nobody to exchange rows "
                                               "with")));
  }
  void Barrier() override {}
  void Abort() override {
    Fail(absl::AbortedError(
        absl::StrCat("the communicator of simulated rank ", rank_, " of ", size_, " was aborted")));
  }
  absl::Status status() const override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return failure_;
  }

 private:
  void Fail(const absl::Status& failure) {
    const std::lock_guard<std::mutex> lock(mutex_);
    failure_.Update(failure);
  }

  Ops& ops_;
  const Tensor rows_;
  const int rank_;
  const int size_;
  mutable std::mutex mutex_;
  absl::Status failure_;  // guarded by mutex_
};

void SilentCommunicator::AllGather(TensorView shard, absl::Span<const Range> parts,
                                   TensorView out) {
  CheckGatherShapes(rank_, size_, shard, parts, out);
  CHECK_LE(shard.rows(), rows_.view().rows());
  const TensorView rows = rows_.view().Rows(0, shard.rows());
  for (const Range& part : parts) {
    const int64_t columns = std::min(part.size(), shard.columns());
    if (columns > 0) {
      ops_.GatherRows(shard.Columns(0, columns), rows, out.Columns(part.begin, columns));
    }
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> MakeSilentCommunicator(Device& device, int rank,
                                                                     int size, int64_t max_rows) {
  CHECK(rank >= 0 && rank < size) << "rank " << rank << " of " << size;
  ASSIGN_OR_RETURN(Tensor rows, device.Allocate({max_rows}, DType::kI32));
  std::vector<int32_t> numbers(static_cast<size_t>(max_rows));
  std::iota(numbers.begin(), numbers.end(), 0);
  device.CopyFromHost(numbers.data(), rows.view());
  RETURN_IF_ERROR(device.Synchronize());  // before the numbers are gone
  return std::make_unique<SilentCommunicator>(device.ops(), std::move(rows), rank, size);
}

}  // namespace cohort
