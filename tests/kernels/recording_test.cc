#include <numeric>
#include <vector>

#include "tests/kernels/devices.h"

namespace cohort {
namespace {

Tensor Ids(Device& device, const std::vector<int32_t>& values) {
  absl::StatusOr<Tensor> tensor =
      device.Allocate({static_cast<int64_t>(values.size())}, DType::kI32);
  CHECK_OK(tensor.status());
  device.CopyFromHost(values.data(), tensor->view());
  return *std::move(tensor);
}

std::vector<int32_t> Read(Device& device, const Tensor& tensor) {
  std::vector<int32_t> values(static_cast<size_t>(tensor.view().shape.elements()));
  device.CopyToHost(tensor.view(), values.data());
  return values;
}

TEST(SelectIds, TakesIdsAsTheyAreAndSlotsLastTokens) {
  OnEachDevice([](Device& device) {
    const Tensor last_tokens = Ids(device, {70, 71, -1, -3, 74});
    const Tensor sources = Ids(device, {0, 5, -1, -5, -2, 151936, -3, -4});
    const Tensor ids = Ids(device, std::vector<int32_t>(8, -9));
    device.ops().SelectIds(sources.view(), last_tokens.view(), ids.view());
    // A slot without a token gives id 0.
    EXPECT_EQ(Read(device, ids), (std::vector<int32_t>{0, 5, 70, 74, 71, 151936, 0, 0}));
  });
}

TEST(SelectIds, TakesMoreRowsThanABlockHas) {
  OnEachDevice([](Device& device) {
    std::vector<int32_t> numbers(300);
    std::iota(numbers.begin(), numbers.end(), 1000);
    const Tensor last_tokens = Ids(device, numbers);
    std::vector<int32_t> slots(300);
    for (int32_t i = 0; i < 300; ++i) {
      slots[static_cast<size_t>(i)] = -1 - (299 - i);
    }
    const Tensor sources = Ids(device, slots);
    const Tensor ids = Ids(device, numbers);
    device.ops().SelectIds(sources.view(), last_tokens.view(), ids.view());
    EXPECT_EQ(Read(device, ids), std::vector<int32_t>(numbers.rbegin(), numbers.rend()));
  });
}

TEST(StoreTokens, WritesToTheRowsSlotsAndNowhereElse) {
  OnEachDevice([](Device& device) {
    const Tensor last_tokens = Ids(device, {1, 2, 3, 4, 5});
    const Tensor slots = Ids(device, {4, -1, 0, 2, -1});
    const Tensor tokens = Ids(device, {90, 91, 92, kNoToken, 94});
    device.ops().StoreTokens(tokens.view(), slots.view(), last_tokens.view());
    EXPECT_EQ(Read(device, last_tokens), (std::vector<int32_t>{92, 2, kNoToken, 4, 90}));
  });
}

TEST(Record, ComputesNothingUntilItIsEnqueuedAndThenEveryTime) {
  OnEachDevice([](Device& device) {
    const Tensor last_tokens = Ids(device, {10, 20});
    const Tensor sources = Ids(device, {-1, -2});
    const Tensor slots = Ids(device, {1, 0});
    const Tensor ids = Ids(device, {0, 0});
    // The two slots change places.
    const auto work = [&] {
      device.ops().SelectIds(sources.view(), last_tokens.view(), ids.view());
      device.ops().StoreTokens(ids.view(), slots.view(), last_tokens.view());
    };
    work();
    EXPECT_EQ(Read(device, last_tokens), (std::vector<int32_t>{20, 10}));
    const absl::StatusOr<std::unique_ptr<Recording>> recording = device.Record(work);
    ASSERT_TRUE(recording.ok()) << recording.status();
    EXPECT_EQ(Read(device, last_tokens), (std::vector<int32_t>{20, 10}));
    (*recording)->Enqueue();
    EXPECT_EQ(Read(device, last_tokens), (std::vector<int32_t>{10, 20}));
    (*recording)->Enqueue();
    (*recording)->Enqueue();
    (*recording)->Enqueue();
    EXPECT_EQ(Read(device, last_tokens), (std::vector<int32_t>{20, 10}));
  });
}

// What a step ahead does: upload, recorded work, download, mark; twice before the host looks.
TEST(Record, ReadsWhatWasUploadedBeforeEachTime) {
  OnEachDevice([](Device& device) {
    const Tensor last_tokens = Ids(device, {10, 20, 30});
    const Tensor sources = Ids(device, {-1, -1});
    const Tensor ids = Ids(device, {0, 0});
    const auto work = [&] {
      device.ops().SelectIds(sources.view(), last_tokens.view(), ids.view());
    };
    work();
    const auto recording = device.Record(work);
    ASSERT_TRUE(recording.ok()) << recording.status();
    struct Turn {
      Tensor in, out;
      std::unique_ptr<Mark> mark;
    };
    Turn turns[2];
    const int32_t asked[2][2] = {{-3, 7}, {-2, -3}};
    for (int i = 0; i < 2; ++i) {
      auto in = device.AllocateHost({2}, DType::kI32);
      auto out = device.AllocateHost({2}, DType::kI32);
      auto mark = device.CreateMark();
      ASSERT_TRUE(in.ok() && out.ok() && mark.ok());
      turns[i] = {*std::move(in), *std::move(out), *std::move(mark)};
      std::copy_n(asked[i], 2, turns[i].in.view().As<int32_t>());
      device.EnqueueCopyFromHost(turns[i].in.view().data, sources.view());
      (*recording)->Enqueue();
      device.EnqueueCopyToHost(ids.view(), turns[i].out.view().data);
      turns[i].mark->Set();
    }
    const std::vector<std::vector<int32_t>> expected = {{30, 7}, {20, 30}};
    for (size_t i = 0; i < 2; ++i) {
      ASSERT_TRUE(turns[i].mark->Wait(absl::Seconds(30)).ok());
      const int32_t* out = turns[i].out.view().As<int32_t>();
      EXPECT_EQ(std::vector<int32_t>(out, out + 2), expected[i]);
      EXPECT_TRUE(turns[i].mark->Wait(absl::ZeroDuration()).ok());
    }
  });
}

TEST(AllocateHost, OperationsReadItAsIfItWereTheDevices) {
  OnEachDevice([](Device& device) {
    const auto table = device.AllocateHost({4, 8}, DType::kF32);
    ASSERT_TRUE(table.ok()) << table.status();
    std::iota(table->view().As<float>(), table->view().As<float>() + 32, 0.0f);
    const Tensor ids = Ids(device, {7, 5});
    const auto out = device.Allocate({2, 8}, DType::kF32);
    ASSERT_TRUE(out.ok()) << out.status();
    device.ops().Embed(ids.view(), table->view(), 4, out->view());
    std::vector<float> rows(16);
    device.CopyToHost(out->view(), rows.data());
    std::vector<float> expected(16);
    std::iota(expected.begin(), expected.begin() + 8, 24.0f);
    std::iota(expected.begin() + 8, expected.end(), 8.0f);
    EXPECT_EQ(rows, expected);
  });
}

TEST(DeviceMemory, ItIsThere) {
  OnEachDevice([](Device& device) {
    const auto memory = device.memory();
    ASSERT_TRUE(memory.ok()) << memory.status();
    EXPECT_GT(memory->total, 0);
    EXPECT_LE(memory->free, memory->total);
  });
}

}  // namespace
}  // namespace cohort
