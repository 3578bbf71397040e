#include "kernels/plugin_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "tests/kernels/plugin_fixture.h"

namespace cohort {
namespace {

using ::testing::ElementsAre;

TEST_F(PluginDeviceTest, CopiesThroughTheTable) {
  const std::vector<float> numbers = {1, 2, 3, 4, 5, 6};
  absl::StatusOr<Tensor> tensor = device_.Allocate({2, 3}, DType::kF32);
  ASSERT_TRUE(tensor.ok());
  device_.CopyFromHost(numbers.data(), tensor->view());
  std::vector<float> back(6);
  device_.CopyToHost(tensor->view(), back.data());
  EXPECT_EQ(back, numbers);
  EXPECT_EQ(device_.kind(), "cuda");
}

TEST_F(PluginDeviceTest, TensorsMayOutliveTheDevice) {
  auto other_side = std::make_unique<CohortCudaDevice>();
  auto device = std::make_unique<PluginDevice>(&table_, other_side.get(), 3, "");
  absl::StatusOr<Tensor> tensor = device->Allocate({0, 3}, DType::kBF16);
  ASSERT_TRUE(tensor.ok());
  EXPECT_NE(tensor->view().data, nullptr);
  device.reset();
  EXPECT_TRUE(other_side->is_destroyed);
  other_side.reset();
}

TEST_F(PluginDeviceTest, RunningOutOfMemoryIsResourceExhausted) {
  other_side_.is_out_of_memory = true;
  const absl::Status status = device_.Allocate({2, 3}, DType::kF32).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "cannot allocate 24 bytes");
}

TEST_F(PluginDeviceTest, SynchronizeNamesTheDeviceOnce) {
  other_side_.error.code = kCohortCudaFailed;
  std::strcpy(other_side_.error.message, "RmsNorm: too bad");
  const absl::Status status = device_.Synchronize();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(status.message(), "cuda:3: RmsNorm: too bad");
  EXPECT_TRUE(device_.Synchronize().ok());
}

TEST_F(PluginDeviceTest, EnqueuesCopiesOfHostMemory) {
  absl::StatusOr<Tensor> host = device_.AllocateHost({3}, DType::kI32);
  absl::StatusOr<Tensor> tensor = device_.Allocate({3}, DType::kI32);
  ASSERT_TRUE(host.ok() && tensor.ok());
  std::iota(host->view().As<int32_t>(), host->view().As<int32_t>() + 3, 7);
  device_.EnqueueCopyFromHost(host->view().data, tensor->view());
  host->view().As<int32_t>()[1] = 0;
  device_.EnqueueCopyToHost(tensor->view(), host->view().data);
  EXPECT_EQ(host->view().As<int32_t>()[1], 8);
  other_side_.is_out_of_memory = true;
  EXPECT_EQ(device_.AllocateHost({3}, DType::kI32).status().message(), "cannot allocate 12 bytes");
}

TEST_F(PluginDeviceTest, MarksSayWhatSynchronizeWouldSay) {
  const absl::StatusOr<std::unique_ptr<Mark>> mark = device_.CreateMark();
  ASSERT_TRUE(mark.ok());
  (*mark)->Set();
  EXPECT_EQ(other_side_.verb, "mark_set");
  EXPECT_TRUE((*mark)->Wait(absl::Milliseconds(2)).ok());
  EXPECT_EQ(other_side_.number, 2000);
  other_side_.error.code = kCohortCudaDeadline;
  std::strcpy(other_side_.error.message, "not done");
  EXPECT_EQ((*mark)->Wait(-absl::Seconds(1)), absl::DeadlineExceededError("cuda:3: not done"));
  EXPECT_EQ(other_side_.number, 0);
}

TEST_F(PluginDeviceTest, QueuesCopyAndMarkForThemselves) {
  const std::vector<float> numbers = {1, 2, 3};
  absl::StatusOr<Tensor> tensor = device_.Allocate({3}, DType::kF32);
  absl::StatusOr<std::unique_ptr<CopyQueue>> queue = device_.CreateCopyQueue();
  ASSERT_TRUE(tensor.ok() && queue.ok());
  (*queue)->EnqueueCopyFromHost(numbers.data(), tensor->view());
  EXPECT_EQ(tensor->view().As<float>()[2], 3);
  EXPECT_TRUE((*queue)->CreateMark().ok());
  EXPECT_EQ(other_side_.number, 1);
  EXPECT_TRUE(device_.CreateMark().ok());
  EXPECT_EQ(other_side_.number, 0);
  queue->reset();
  EXPECT_EQ(other_side_.verb, "copy_queue_destroy");
}

TEST_F(PluginDeviceTest, MemoryIsPinnedUntilItIsGivenBack) {
  int unpinned = 0;
  absl::StatusOr<std::unique_ptr<PinnedHost>> pinned = device_.PinHost(&unpinned, 4096);
  ASSERT_TRUE(pinned.ok());
  EXPECT_EQ(unpinned, 0);
  pinned->reset();
  EXPECT_EQ(unpinned, 1);
  EXPECT_EQ(device_.PinHost(&unpinned, 0).status().message(), "nothing to pin for cuda:3");
}

TEST_F(PluginDeviceTest, NamesTheNearestNodeOfTheHost) {
  table_.device_properties = [](int32_t index, CohortCudaProperties* properties) {
    properties->host_node = index - 2;
    return CohortCudaError{};
  };
  EXPECT_EQ(device_.host_node(), 1);
  CohortCudaDevice other_side;
  EXPECT_EQ(PluginDevice(&table_, &other_side, 1, "").host_node(), std::nullopt);
}

TEST_F(PluginDeviceTest, RecordsWhatTheWorkEnqueues) {
  std::string during;
  const auto work = [&] { during = other_side_.verb; };
  const absl::StatusOr<std::unique_ptr<Recording>> recording = device_.Record(work);
  ASSERT_TRUE(recording.ok());
  EXPECT_EQ(during, "recording_begin");
  (*recording)->Enqueue();
  EXPECT_EQ(other_side_.verb, "recording_enqueue");
  const Recording::Kernels kernels = (*recording)->kernels();
  EXPECT_EQ(kernels.count, 7);
  EXPECT_EQ(kernels.pairs, 6);
  EXPECT_EQ(kernels.programmatic, 5);
  other_side_.error.code = kCohortCudaFailed;
  EXPECT_EQ(device_.Record(work).status().code(), absl::StatusCode::kInternal);
}

TEST_F(PluginDeviceTest, RecordsStepsWhereItHasTheirOperations) {
  EXPECT_FALSE(device_.records_steps());
  table_.recorded_candidates = [](CohortCudaDevice*, const CohortCudaTensor*,
                                  const CohortCudaTensor*, int32_t,
                                  const CohortCudaVocabularySlice*, const CohortCudaTensor*) {};
  table_.choose_recorded = [](CohortCudaDevice*, const CohortCudaTensor*, int64_t,
                              const CohortCudaTensor*, int64_t, const CohortCudaTensor*) {};
  table_.select_ids = [](CohortCudaDevice*, const CohortCudaTensor*, const CohortCudaTensor*,
                         const CohortCudaTensor*) {};
  table_.store_tokens = table_.select_ids;
  EXPECT_TRUE(device_.records_steps());
  CohortCudaDevice other_side;
  EXPECT_FALSE(PluginDevice(&table_, &other_side, 3, "", false).records_steps());
}

TEST_F(PluginDeviceTest, TellsItsMemory) {
  const absl::StatusOr<DeviceMemory> memory = device_.memory();
  ASSERT_TRUE(memory.ok());
  EXPECT_EQ(memory->free, 5);
  EXPECT_EQ(memory->total, 9);
}

TEST_F(PluginDeviceTest, ViewsKeepShapeTypeAndStride) {
  const TensorView x(reinterpret_cast<void*>(0x1000), DType::kBF16, {3, 4}, 10);
  const CohortCudaTensor plugin = ToPlugin(x);
  EXPECT_EQ(plugin.data, x.data);
  EXPECT_EQ(plugin.rank, 2);
  EXPECT_THAT(plugin.dims, ElementsAre(3, 4, 0, 0));
  EXPECT_EQ(plugin.row_stride, 10);
  EXPECT_EQ(plugin.dtype, kCohortCudaBF16);
}

}  // namespace
}  // namespace cohort
