// Groups of GPUs, real or emulated: what the suite of all communicators does not ask.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "kernels/bfloat16.h"
#include "kernels/ops.h"
#include "tests/parallel/spawn_gpu_ranks.h"

namespace cohort {
namespace {

using testing::HasSubstr;

constexpr PeerReduction kBoth[] = {PeerReduction::kNever, PeerReduction::kAlways};

template <class T>
std::vector<T> Values(int seed, int64_t count) {
  std::mt19937 generator(static_cast<uint32_t>(seed));
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<T> values(static_cast<size_t>(count));
  for (T& value : values) {
    value = FromFloat<T>(std::ldexp(uniform(generator), static_cast<int>(generator() % 9)));
  }
  return values;
}

template <class T>
std::vector<T> SumInOrder(int ranks, int seed, int64_t count) {
  std::vector<float> sums(static_cast<size_t>(count));
  for (int rank = 0; rank < ranks; ++rank) {
    const std::vector<T> values = Values<T>(seed + rank, count);
    for (size_t i = 0; i < sums.size(); ++i) {
      sums[i] = rank == 0 ? ToFloat(values[i]) : sums[i] + ToFloat(values[i]);
    }
  }
  std::vector<T> rounded;
  for (const float sum : sums) {
    rounded.push_back(FromFloat<T>(sum));
  }
  return rounded;
}

template <class T>
Tensor Upload(Device& device, const std::vector<T>& values, Shape shape) {
  Tensor tensor = device.Allocate(shape, DTypeOf<T>()).value();
  device.CopyFromHost(values.data(), tensor.view());
  return tensor;
}

template <class T>
std::vector<T> Download(Device& device, const Tensor& tensor) {
  std::vector<T> values(static_cast<size_t>(tensor.view().shape.elements()));
  device.CopyToHost(tensor.view(), values.data());
  return values;
}

template <class T>
bool SameBits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// Everything in one exchange, or in two.
PluginCommunicatorOptions Options(PeerReduction reduction, bool one_shot) {
  PluginCommunicatorOptions options;
  options.peer_reduction = reduction;
  options.one_shot_bytes = one_shot ? int64_t{1} << 20 : 1;
  return options;
}

// The outputs of all ranks.
class Outputs {
 public:
  void Add(std::vector<float> output) {
    const std::lock_guard<std::mutex> lock(mutex_);
    outputs_.push_back(std::move(output));
  }
  void ExpectTheSameBits() const {
    for (const std::vector<float>& output : outputs_) {
      EXPECT_TRUE(SameBits(output, outputs_.front()));
    }
  }

 private:
  std::mutex mutex_;
  std::vector<std::vector<float>> outputs_;
};

// X: of the summands, T: of residual and output.
template <class X, class T>
void ExpectReduceAndNorm(Device& device, PluginCommunicator& group, int64_t rows, int64_t columns,
                         Outputs* outputs) {
  const int seed = static_cast<int>(rows * 1000 + columns);
  const int64_t count = rows * columns;
  const std::vector<T> residual_values = Values<T>(seed + 70, count);
  const Tensor x = Upload(device, Values<X>(seed + group.rank(), count), {rows, columns});
  const Tensor sum = Upload(device, SumInOrder<X>(group.size(), seed, count), {rows, columns});
  const Tensor residual = Upload(device, residual_values, {rows, columns});
  const Tensor expected_residual = Upload(device, residual_values, {rows, columns});
  const Tensor gamma = Upload(device, Values<T>(seed + 71, columns), {columns});
  const Tensor out = Upload(device, residual_values, {rows, columns});
  const Tensor expected = Upload(device, residual_values, {rows, columns});
  group.AllReduceAddRmsNorm(device.ops(), x.view(), residual.view(), gamma.view(), 1e-6f,
                            out.view());
  device.ops().AddRmsNorm(expected_residual.view(), sum.view(), gamma.view(), 1e-6f,
                          expected.view());
  ASSERT_EQ(device.Synchronize(), absl::OkStatus());
  ASSERT_EQ(group.status(), absl::OkStatus());
  EXPECT_TRUE(SameBits(Download<T>(device, residual), Download<T>(device, expected_residual)));
  const std::vector<T> actual = Download<T>(device, out);
  const std::vector<T> wanted = Download<T>(device, expected);
  // The order of a row's sum of squares may differ: each of its additions rounds once. Then a
  // neighbour may be the nearest T, twice.
  const float tolerance =
      static_cast<float>(columns) * 0x1p-24f + (sizeof(T) == 2 ? 2 * 0x1p-7f : 2 * 0x1p-23f);
  std::vector<float> as_floats;
  for (size_t i = 0; i < actual.size(); ++i) {
    as_floats.push_back(ToFloat(actual[i]));
    ASSERT_NEAR(as_floats.back(), ToFloat(wanted[i]), tolerance * std::abs(ToFloat(wanted[i])))
        << i;
  }
  outputs->Add(std::move(as_floats));
}

void ExpectReduceAndNormOfManyShapes(int size, PeerReduction reduction, bool one_shot) {
  std::vector<Outputs> outputs(9);
  SpawnGpuRanks(size, Options(reduction, one_shot), [&](Device& device, PluginCommunicator& group) {
    EXPECT_EQ(group.links().reduces_over_peers, reduction == PeerReduction::kAlways);
    size_t next = 0;
    for (const int64_t rows : {1, 3, 37}) {
      ExpectReduceAndNorm<float, float>(device, group, rows, 64, &outputs[next++]);
      ExpectReduceAndNorm<float, BFloat16>(device, group, rows, 896, &outputs[next++]);
      // No multiple of a pack in the middle one.
      ExpectReduceAndNorm<BFloat16, BFloat16>(device, group, rows, rows == 3 ? 42 : 200,
                                              &outputs[next++]);
    }
  });
  for (const Outputs& of_shape : outputs) {
    of_shape.ExpectTheSameBits();
  }
}

TEST(GpuCommunicator, AllReduceAddRmsNormIsTheSumThenTheNormOnEveryRankTheSameBits) {
  for (const int size : {2, 4}) {
    if (!HaveGpus(size)) {
      GTEST_SKIP() << "needs " << size << " GPUs";
    }
    for (const PeerReduction reduction : kBoth) {
      SCOPED_TRACE(testing::Message()
                   << size << " ranks, over peers: " << static_cast<int>(reduction));
      ExpectReduceAndNormOfManyShapes(size, reduction, /*one_shot=*/true);
      ExpectReduceAndNormOfManyShapes(size, reduction, /*one_shot=*/false);
    }
  }
}

TEST(GpuCommunicator, RoundsOverPeersDoNotMeetEachOther) {
  if (!HaveGpus(3)) {
    GTEST_SKIP() << "needs 3 GPUs";
  }
  for (const bool one_shot : {true, false}) {
    SpawnGpuRanks(3, Options(PeerReduction::kAlways, one_shot),
                  [](Device& device, PluginCommunicator& group) {
                    for (int round = 0; round < 40; ++round) {
                      const int64_t rows = 1 + round * 7 % 20;
                      const Shape shape = {rows, 16};
                      const Tensor x = Upload(
                          device, Values<float>(round * 10 + group.rank(), rows * 16), shape);
                      group.AllReduceSum(x.view());
                      ASSERT_TRUE(SameBits(Download<float>(device, x),
                                           SumInOrder<float>(3, round * 10, rows * 16)))
                          << "round " << round;
                    }
                    EXPECT_EQ(group.status(), absl::OkStatus());
                  });
  }
}

TEST(GpuCommunicator, MeasuredSizesAreThoseOfEveryRank) {
  if (!HaveGpus(2)) {
    GTEST_SKIP() << "needs 2 GPUs";
  }
  PluginCommunicatorOptions options;
  options.peer_reduction = PeerReduction::kAlways;
  options.measures_sizes = true;
  std::mutex mutex;
  std::vector<PeerLinks> all;
  SpawnGpuRanks(2, options, [&](Device& device, PluginCommunicator& group) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      all.push_back(group.links());
    }
    for (const int64_t rows : {1, 300, 3000}) {  // 256 bytes to 768 KB: whatever way they go
      const Tensor x = Upload(device, Values<float>(group.rank(), rows * 64), {rows, 64});
      group.AllReduceSum(x.view());
      EXPECT_TRUE(SameBits(Download<float>(device, x), SumInOrder<float>(2, 0, rows * 64)));
    }
    EXPECT_EQ(group.status(), absl::OkStatus());
  });
  ASSERT_EQ(all.size(), 2u);
  for (const PeerLinks& links : all) {
    EXPECT_EQ(links.one_shot_bytes, all[0].one_shot_bytes);
    EXPECT_EQ(links.two_shot_bytes, all[0].two_shot_bytes);
    EXPECT_LE(links.one_shot_bytes, int64_t{1} << 20);
    EXPECT_LE(links.two_shot_bytes, int64_t{1} << 20);
    EXPECT_EQ(links.reduces_over_peers, links.one_shot_bytes + links.two_shot_bytes > 0);
  }
}

TEST(GpuCommunicator, RecordedReductionsGoOnFromWhereTheLastOneStopped) {
  if (!HaveGpus(2)) {
    GTEST_SKIP() << "needs 2 GPUs";
  }
  for (const PeerReduction reduction : kBoth) {
    SpawnGpuRanks(2, Options(reduction, /*one_shot=*/true),
                  [](Device& device, PluginCommunicator& group) {
                    const Tensor x = Upload(device, std::vector<float>(64, 1.0f), {4, 16});
                    const auto work = [&] { group.AllReduceSum(x.view()); };
                    work();
                    const auto recording = device.Record(work);
                    ASSERT_TRUE(recording.ok()) << recording.status();
                    for (int i = 0; i < 5; ++i) {
                      (*recording)->Enqueue();
                    }
                    work();
                    EXPECT_EQ(Download<float>(device, x), std::vector<float>(64, 128.0f));
                    EXPECT_EQ(group.status(), absl::OkStatus());
                  });
  }
}

TEST(GpuCommunicator, AnAbortEndsAWaitForARankThatDoesNotCome) {
  if (!HaveGpus(2)) {
    GTEST_SKIP() << "needs 2 GPUs";
  }
  for (const PeerReduction reduction : kBoth) {
    SpawnGpuRanks(2, Options(reduction, /*one_shot=*/true),
                  [](Device& device, PluginCommunicator& group) {
                    if (group.rank() == 1) {
                      return;
                    }
                    const Tensor x = Upload(device, std::vector<float>(64, 1.0f), {4, 16});
                    group.AllReduceSum(x.view());
                    std::thread aborting([&] { group.Abort(); });
                    EXPECT_EQ(device.Synchronize(), absl::OkStatus());
                    aborting.join();
                    EXPECT_EQ(group.status().code(), absl::StatusCode::kAborted);
                  });
  }
}

TEST(GpuCommunicator, ARankThatDoesNotComeIsMissedInTime) {
  if (!HaveGpus(2)) {
    GTEST_SKIP() << "needs 2 GPUs";
  }
  for (const PeerReduction reduction : kBoth) {
    PluginCommunicatorOptions options = Options(reduction, /*one_shot=*/true);
    options.timeout = absl::Milliseconds(300);
    SpawnGpuRanks(2, options, [&](Device& device, PluginCommunicator& group) {
      if (group.rank() == 1) {
        return;
      }
      const Tensor x = Upload(device, std::vector<float>(64, 1.0f), {4, 16});
      group.AllReduceSum(x.view());
      EXPECT_EQ(device.Synchronize(), absl::OkStatus());
      EXPECT_EQ(group.status().code(), absl::StatusCode::kDeadlineExceeded);
      // Kernel and host watch the clock; the kernel knows whom it waited for.
      EXPECT_THAT(
          std::string(group.status().message()),
          testing::AnyOf(HasSubstr("over peer memory waited 300 ms for the summands of rank 1"),
                         HasSubstr("some rank did not arrive")));
    });
  }
}

TEST(GpuCommunicator, ARankAloneCopiesAndSumsNothing) {
  if (!HaveGpus(1)) {
    GTEST_SKIP() << "needs a GPU";
  }
  DeviceOptions options;
  options.kind = "cuda";
  const std::unique_ptr<Device> device = Device::Create(options).value();
  const auto group = MakePluginCommunicator(*device, PluginCommunicatorOptions()).value();
  ASSERT_EQ(group->Join(), absl::OkStatus());
  StagedCommunicator staged(*device, *group);
  std::vector<float> out(6, -1.0f);
  std::vector<float> shard = {1, 2, 3, 4};
  staged.AllGather(TensorView(shard.data(), DType::kF32, {2, 2}), {{Range{0, 2}}},
                   TensorView(out.data(), DType::kF32, {2, 2}, 3));
  EXPECT_EQ(out, (std::vector<float>{1, 2, -1, 3, 4, -1}));
  staged.AllReduceSum(TensorView(shard.data(), DType::kF32, {4}));
  EXPECT_EQ(shard, (std::vector<float>{1, 2, 3, 4}));
  staged.Barrier();
  EXPECT_EQ(staged.status(), absl::OkStatus());
}

TEST(GpuCommunicator, JoiningWithoutTheOthersEndsInTime) {
  if (!HaveGpus(1)) {
    GTEST_SKIP() << "needs a GPU";
  }
  DeviceOptions device_options;
  device_options.kind = "cuda";
  const std::unique_ptr<Device> device = Device::Create(device_options).value();
  PluginCommunicatorOptions options;
  options.size = 2;
  options.unique_id = CreatePluginUniqueId(*device).value();
  options.join_timeout = absl::Milliseconds(200);
  const auto late = MakePluginCommunicator(*device, options).value();
  EXPECT_EQ(late->Join().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(late->status().message()), HasSubstr("not all ranks came within 200 ms"));
}

}  // namespace
}  // namespace cohort
