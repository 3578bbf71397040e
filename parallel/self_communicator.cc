#include <atomic>

#include "kernels/check.h"
#include "parallel/communicator.h"
#include "parallel/exchange_shape.h"
#include "parallel/gather_shape.h"
#include "parallel/row_stream.h"

namespace cohort {
namespace {

// Nothing to wait for, so an abort only shows in status().
class SelfCommunicator : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void AllReduceSum(TensorView inout) override {
    CHECK(inout.dtype == DType::kF32 || inout.dtype == DType::kBF16) << NameOf(inout.dtype);
  }
  void AllGather(TensorView shard, absl::Span<const Range> parts, TensorView out) override {
    CheckGatherShapes(/*rank=*/0, /*size=*/1, shard, parts, out);
    CopyRows(shard, out);
  }
  void AllToAll(const ExchangeView& send, const ExchangeView& receive) override {
    CheckExchangeShapes(/*size=*/1, send, receive);
    const int32_t count = *send.counts.As<int32_t>();
    CHECK(count >= 0 && count <= send.capacity()) << count << " of " << send.capacity();
    *receive.counts.As<int32_t>() = count;
    CopyRows(send.rows.Rows(0, count), receive.rows.Rows(0, count));
  }
  void Barrier() override {}
  void Abort() override { aborted_.store(true); }
  absl::Status status() const override {
    return aborted_.load() ? absl::AbortedError("communicator of group rank 0 of 1 was aborted")
                           : absl::OkStatus();
  }

 private:
  std::atomic<bool> aborted_{false};
};

}  // namespace

std::unique_ptr<Communicator> MakeSelfCommunicator() {
  return std::make_unique<SelfCommunicator>();
}

}  // namespace cohort
