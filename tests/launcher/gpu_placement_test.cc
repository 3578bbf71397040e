#include "launcher/gpu_placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cohort {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;

v1::RankConfiguration OnDevice(const std::string& device, bool allow_shared_gpu = false) {
  v1::RankConfiguration configuration;
  configuration.set_device(device);
  configuration.set_allow_shared_gpu(allow_shared_gpu);
  return configuration;
}

TEST(GpuPlacement, EveryRankHasItsOwn) {
  EXPECT_EQ(GpuOf(0, 2, 2, false).value(), 0);
  EXPECT_EQ(GpuOf(1, 2, 2, false).value(), 1);
  EXPECT_EQ(GpuOf(3, 4, 8, true).value(), 3);
}

TEST(GpuPlacement, ManyRanksTakeTurnsWhereTheyMay) {
  EXPECT_EQ(GpuOf(2, 5, 2, true).value(), 0);
  EXPECT_EQ(GpuOf(3, 5, 2, true).value(), 1);
}

TEST(GpuPlacement, TooFewAreRefusedWithBothNumbersAndTheWaysOut) {
  const absl::Status status = GpuOf(0, 4, 1, false).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(),
            "4 ranks on this node, which has 1 GPU: start fewer (--tp x --dp), add nodes "
            "(--agents), use --device cpu, or, for tests, let ranks share a GPU with "
            "--allow-shared-gpu");
}

TEST(RankEnvironment, IsThatOfTheServerOnTheCpu) {
  EXPECT_THAT(RankEnvironment(OnDevice("cpu", true), 3, ""), IsEmpty());
}

TEST(RankEnvironment, OpensNoListenerWithoutAuthentication) {
  EXPECT_THAT(RankEnvironment(OnDevice("cuda"), 3, ""), ElementsAre("NCCL_RAS_ENABLE=0"));
}

TEST(RankEnvironment, RanksThatShareAGpuLookLikeHosts) {
  const std::vector<std::string> alone = RankEnvironment(OnDevice("cuda", true), 3, "");
  EXPECT_THAT(alone, Contains("NCCL_HOSTID=cohort-rank-3"));
  EXPECT_THAT(alone, Contains("NCCL_P2P_DISABLE=1"));
  EXPECT_THAT(alone, Contains("NCCL_SOCKET_IFNAME==lo"));
  EXPECT_THAT(RankEnvironment(OnDevice("cuda", true), 3, "127.0.0.2"),
              Contains("NCCL_SOCKET_IFNAME==lo"));
  EXPECT_THAT(RankEnvironment(OnDevice("cuda", true), 3, "10.1.2.3"),
              Not(Contains("NCCL_SOCKET_IFNAME==lo")))
      << "other nodes must reach it";
}

}  // namespace
}  // namespace cohort
