// Runs the ranks of a group of GPUs as threads of the test, each with a device of its own. On real
// GPUs or emulated ones; where there are too few, there is nothing to run.
#ifndef COHORT_TESTS_PARALLEL_SPAWN_GPU_RANKS_H_
#define COHORT_TESTS_PARALLEL_SPAWN_GPU_RANKS_H_

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "kernels/device.h"
#include "kernels/plugin_device.h"
#include "parallel/plugin_communicator.h"

namespace cohort {

inline bool HaveGpus(int count) { return PluginDeviceCount().value_or(0) >= count; }

// Calls `body` once per rank, each call on its own thread. `options`: its rank, size and id are
// filled in.
inline void SpawnGpuRanks(int size, PluginCommunicatorOptions options,
                          const std::function<void(Device&, PluginCommunicator&)>& body) {
  std::vector<std::unique_ptr<Device>> devices;
  for (int rank = 0; rank < size; ++rank) {
    DeviceOptions device;
    device.kind = "cuda";
    device.index = rank;
    devices.push_back(Device::Create(device).value());
  }
  options.size = size;
  options.unique_id = CreatePluginUniqueId(*devices[0]).value();
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    options.rank = rank;
    threads.emplace_back([options, &body, &device = *devices[static_cast<size_t>(rank)]] {
      const auto communicator = MakePluginCommunicator(device, options);
      ASSERT_TRUE(communicator.ok()) << communicator.status();
      ASSERT_EQ((*communicator)->Join(), absl::OkStatus());
      body(device, **communicator);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

// Collectives of host memory over those of a device: what is tested with the one is tested with the
// other.
class StagedCommunicator : public Communicator {
 public:
  StagedCommunicator(Device& device, Communicator& inner) : device_(device), inner_(inner) {}

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  void AllReduceSum(TensorView inout) override {
    const Staged staged(device_, inout);
    inner_.AllReduceSum(staged.view());
    staged.Download();
  }
  void AllGather(TensorView shard, absl::Span<const Range> parts, TensorView out) override {
    const Staged staged_shard(device_, shard);
    const Staged staged_out(device_, out);
    inner_.AllGather(staged_shard.view(), parts, staged_out.view());
    staged_out.Download();
  }
  void AllToAll(const ExchangeView& send, const ExchangeView& receive) override {
    const Staged rows(device_, send.rows);
    const Staged counts(device_, send.counts);
    const Staged received_rows(device_, receive.rows);
    const Staged received_counts(device_, receive.counts);
    inner_.AllToAll({.rows = rows.view(), .counts = counts.view()},
                    {.rows = received_rows.view(), .counts = received_counts.view()});
    received_rows.Download();
    received_counts.Download();
  }
  void Barrier() override { inner_.Barrier(); }
  void Abort() override { inner_.Abort(); }
  absl::Status status() const override { return inner_.status(); }

 private:
  // A copy on the device, rows as far apart.
  class Staged {
   public:
    Staged(Device& device, TensorView host) : device_(device), host_(host) {
      const int64_t rows = host.rows();
      const int64_t columns = rows == 0 ? 0 : host.shape.elements() / rows;
      const int64_t elements = rows == 0 ? 0 : (rows - 1) * host.row_stride + columns;
      storage_ = device.Allocate({elements}, host.dtype).value();
      device_.CopyFromHost(host.data, storage_.view());
    }
    TensorView view() const {
      TensorView copy = host_;
      copy.data = storage_.view().data;
      return copy;
    }
    void Download() const { device_.CopyToHost(storage_.view(), host_.data); }

   private:
    Device& device_;
    TensorView host_;
    Tensor storage_;
  };

  Device& device_;
  Communicator& inner_;
};

}  // namespace cohort

#endif  // COHORT_TESTS_PARALLEL_SPAWN_GPU_RANKS_H_
