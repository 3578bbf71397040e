#include "launcher/gpu_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "runtime/planner.h"
#include "runtime/published_configs.h"

namespace cohort {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kH200Bytes = int64_t{143771} << 20;

ModelConfig Published(const std::string& name) {
  const auto config = ParseModelConfig(PublishedConfig(name), name);
  CHECK_OK(config.status());
  return *config;
}

absl::StatusOr<GpuRoom> RoomFor(const std::string& name, const ServeOptions& options,
                                int64_t bytes = kH200Bytes) {
  return FindGpuRoom(options, Published(name), DType::kBF16, bytes);
}

TEST(GpuBytesOfRank, IsAPartOfTheGpuOrASize) {
  EXPECT_EQ(GpuBytesOfRank({.fraction = 0.5, .bytes = 0}, 1000, 1).value(), 500);
  EXPECT_EQ(GpuBytesOfRank({.fraction = 0.5, .bytes = 0}, 1000, 2).value(), 250);
  EXPECT_EQ(GpuBytesOfRank({.fraction = 0, .bytes = 400}, 1000, 2).value(), 400);
  EXPECT_TRUE(
      absl::IsResourceExhausted(GpuBytesOfRank({.fraction = 0, .bytes = 501}, 1000, 2).status()));
}

// The same bytes as `cohort plan` prints.
TEST(FindGpuRoom, KvMemoryIsWhatThePlanLeaves) {
  PlanRequest request;
  request.config = Published("Qwen2-7B");
  request.hardware = WithMemory(KnownHardware().front(), kH200Bytes);
  request.gpus = 2;
  const auto layout = PlanLayout(request, {.tp = 2});
  ASSERT_TRUE(layout.ok()) << layout.status();
  ServeOptions options;
  options.tp = 2;
  const auto room = RoomFor("Qwen2-7B", options);
  ASSERT_TRUE(room.ok()) << room.status();
  EXPECT_EQ(room->kv_bytes, layout->ranks[0].kv);
  EXPECT_FALSE(room->host_embedding);
}

TEST(FindGpuRoom, TheEmbeddingOfALargeModelGoesToTheHost) {
  ServeOptions options;
  const auto room = RoomFor("Qwen2-72B", options);
  ASSERT_TRUE(room.ok()) << room.status();
  EXPECT_TRUE(room->host_embedding);
  EXPECT_GT(room->kv_bytes, int64_t{3} << 30);
  options.embedding_memory = "device";
  const auto on_device = RoomFor("Qwen2-72B", options);
  EXPECT_TRUE(!on_device.ok() || on_device->kv_bytes < room->kv_bytes);
  options.embedding_memory = "host";
  const auto small = RoomFor("Qwen2-7B", options);
  ASSERT_TRUE(small.ok()) << small.status();
  EXPECT_TRUE(small->host_embedding);
}

TEST(FindGpuRoom, ATiedHeadStaysWithTheGpu) {
  ServeOptions options;
  options.embedding_memory = "host";
  EXPECT_TRUE(absl::IsInvalidArgument(RoomFor("Qwen2-0.5B", options).status()));
}

TEST(FindGpuRoom, SaysWhatIsMissing) {
  const absl::Status status = RoomFor("Qwen2-72B", {}, int64_t{80} << 30).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  for (const char* part : {"rank 0 needs", "weights 1429", "workspace", "reserve",
                           "may take 85899345920", "bytes are missing"}) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }
}

TEST(FindGpuRoom, ASimulatedRankHasTheRoomOfItsGroup) {
  ServeOptions options;
  options.simulated = {.rank = 0, .size = 8};
  const auto room = RoomFor("Qwen2-72B", options);
  ASSERT_TRUE(room.ok()) << room.status();
  options.simulated.reset();
  options.tp = 8;
  EXPECT_EQ(room->kv_bytes, RoomFor("Qwen2-72B", options)->kv_bytes);
}

}  // namespace
}  // namespace cohort
