#include "kernels/device.h"

#include <numeric>

#include "tests/kernels/devices.h"

namespace cohort {
namespace {

TEST(Device, RefusesAnUnknownKind) {
  DeviceOptions options;
  options.kind = "abacus";
  const absl::Status status = Device::Create(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "unknown device kind \"abacus\": expected cpu or cuda");
  EXPECT_EQ(DeviceAvailable("abacus"), status);
}

TEST(Device, RefusesACpuWithoutThreads) {
  DeviceOptions options;
  options.threads = 0;
  EXPECT_EQ(Device::Create(options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Device, CudaIsThereOrSaysInOneLineWhyNot) {
  DeviceOptions options;
  options.kind = "cuda";
  const absl::Status available = DeviceAvailable("cuda");
  const absl::Status created = Device::Create(options).status();
  EXPECT_EQ(available.code(), created.code());
  if (!available.ok()) {
    EXPECT_EQ(available.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_FALSE(available.message().empty());
    EXPECT_EQ(available.message().find('\n'), StringView::npos) << available;
  }
}

TEST(Device, DescribesItself) {
  OnEachDevice([](Device& device) {
    EXPECT_TRUE(DeviceAvailable(device.kind()).ok());
    EXPECT_FALSE(device.description().empty());
    EXPECT_EQ(device.description().find('\n'), std::string::npos);
  });
}

TEST(Device, AllocatesAlignedMemoryOfAnySize) {
  OnEachDevice([](Device& device) {
    for (const int64_t columns : {0, 1, 15, 4096, 3 << 18}) {
      const absl::StatusOr<Tensor> tensor = device.Allocate(Shape{3, columns}, DType::kBF16);
      ASSERT_TRUE(tensor.ok()) << tensor.status();
      EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor->view().data) % 64, 0u);
      EXPECT_TRUE(tensor->view().is_dense());
      EXPECT_EQ(tensor->bytes(), 6 * columns);
    }
  });
}

TEST(Device, NamesTheBytesItDoesNotHave) {
  OnEachDevice([](Device& device) {
    const absl::Status status =
        device.Allocate(Shape{int64_t{1} << 30, int64_t{1} << 24}, DType::kF32).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_NE(status.message().find("72057594037927936"), StringView::npos) << status;
  });
}

TEST(Device, RefusesSizesThatOverflow) {
  OnEachDevice([](Device& device) {
    const int64_t huge = int64_t{1} << 40;
    EXPECT_EQ(device.Allocate(Shape{huge, huge}, DType::kF32).status().code(),
              absl::StatusCode::kResourceExhausted);
  });
}

TEST(Device, CopiesThereAndBack) {
  OnEachDevice([](Device& device) {
    std::mt19937_64 random(5);
    for (const int64_t rows : {0, 1, 7}) {
      const HostTensor host = RandomNormal(random, DType::kBF16, Shape{rows, 13});
      ExpectSame(DeviceTensor(device, host).Read(), host);
    }
  });
}

// More than one thread's part, and no multiple of it.
TEST(Device, CopiesLargeTensorsThereAndBack) {
  OnEachDevice([](Device& device) {
    std::vector<int32_t> host((5 << 20) / 4 + 3);
    std::iota(host.begin(), host.end(), 1);
    const absl::StatusOr<Tensor> tensor =
        device.Allocate(Shape{static_cast<int64_t>(host.size())}, DType::kI32);
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    device.CopyFromHost(host.data(), tensor->view());
    std::vector<int32_t> back(host.size());
    device.CopyToHost(tensor->view(), back.data());
    EXPECT_EQ(back, host);
  });
}

// A KV memory that is mostly unused must cost only what is touched.
TEST(CpuDevice, LargeTensorsStartAsZeroPages) {
  absl::StatusOr<std::unique_ptr<Device>> device = Device::Create(DeviceOptions());
  ASSERT_TRUE(device.ok());
  const absl::StatusOr<Tensor> tensor = (*device)->Allocate(Shape{int64_t{1} << 29}, DType::kBF16);
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  BFloat16* last = tensor->view().As<BFloat16>() + (int64_t{1} << 29) - 1;
  EXPECT_EQ(last->bits, 0);
  last->bits = 1;
  EXPECT_EQ(last->bits, 1);
}

}  // namespace
}  // namespace cohort
