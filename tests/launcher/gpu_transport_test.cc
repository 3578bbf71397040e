#include "launcher/gpu_transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launcher/nccl_log.h"

namespace cohort {
namespace {

using testing::ElementsAre;

// As NCCL 2.28 writes it.
constexpr char kLog[] = R"(host:10:20 [0] NCCL INFO Bootstrap: Using eth0:10.0.0.1<0>
host:10:20 [0] NCCL INFO Channel 00/1 : 0[0] -> 1[1] via P2P/CUMEM/read
host:10:20 [0] NCCL INFO Channel 01/1 : 0[0] -> 1[1] via P2P/CUMEM/read
host:10:20 [0] NCCL INFO Channel 00 : 0[0] -> 2[2] via SHM/direct/direct
host:10:20 [0] NCCL INFO Channel 00/0 : 0[0] -> 3[0] [send] via NET/IB/2/GDRDMA
host:10:20 [0] NCCL INFO Channel 01/0 : 0[0] -> 3[0] [send] via NET/IB/3/GDRDMA/Shared
host:10:20 [0] NCCL INFO Channel 00/0 : 4[1] -> 0[0] [receive] via NET/Socket/0
host:10:20 [0] NCCL INFO Channel 00/0 : 0[0] -> 5[1] [send] via NET/Socket/0(4)
)";

TEST(TransportsOf, TakesWhatTheRankSendsBy) {
  EXPECT_THAT(TransportsOf(kLog, 0, 6), ElementsAre("", "P2P/CUMEM/read", "SHM/direct/direct",
                                                    "NET/IB/GDRDMA", "", "NET/Socket"));
  EXPECT_THAT(TransportsOf(kLog, 1, 2), ElementsAre("", ""));
  EXPECT_THAT(TransportsOf("", 0, 1), ElementsAre(""));
}

TEST(NcclLog, IsReadOnceAndInOrder) {
  for (const char* name : {"NCCL_DEBUG", "NCCL_DEBUG_FILE", "NCCL_DEBUG_SUBSYS"}) unsetenv(name);
  NcclLog log = NcclLog::Capture();
  ASSERT_TRUE(log.is_captured());
  ASSERT_STREQ(getenv("NCCL_DEBUG"), "INFO");
  std::FILE* file = std::fopen(getenv("NCCL_DEBUG_FILE"), "w");
  ASSERT_NE(file, nullptr);
  std::fputs("first\n", file);
  std::fflush(file);
  EXPECT_EQ(log.Take(), "first\n");
  EXPECT_EQ(log.Take(), "");
  std::fputs("second\n", file);
  std::fclose(file);
  EXPECT_EQ(log.Take(), "second\n");
  EXPECT_FALSE(NcclLog::Capture().is_captured()) << "the environment says what to log";
}

const std::vector<GpuPeer> kNode = {{0, kCohortCudaLinkSelf, ""},
                                    {1, kCohortCudaLinkNvlink, "P2P/CUMEM"},
                                    {2, kCohortCudaLinkNvlink, "P2P/CUMEM"},
                                    {8, kCohortCudaLinkNetwork, "NET/IB/GDRDMA"}};

TEST(DescribeTransport, GroupsRanks) {
  EXPECT_EQ(DescribeTransport(kNode), "NVLink (P2P/CUMEM) to rank 1, 2; NET/IB/GDRDMA to rank 8");
  EXPECT_EQ(DescribeTransport({{0, kCohortCudaLinkSelf, ""}}), "");
  EXPECT_EQ(DescribeTransport({{1, kCohortCudaLinkHost, ""}}), "the host's memory to rank 1");
}

TEST(DescribeReductions, NamesTheSizesOfEachWay) {
  PeerLinks links{.of_rank = {}, .reduces_over_peers = true, .one_shot_bytes = 4096};
  EXPECT_EQ(DescribeReductions(links),
            "; small reductions over peer memory (one shot to 4096 bytes)");
  links.two_shot_bytes = 8192;
  EXPECT_EQ(DescribeReductions(links),
            "; small reductions over peer memory (one shot to 4096, two to 8192 bytes)");
  EXPECT_EQ(DescribeReductions(PeerLinks()), "");
}

std::string Refusal(TransportRequirements requirements, const GpuPeer& peer) {
  return std::string(CheckTransport(requirements, 3, {peer}).message());
}

TEST(CheckTransport, RefusesFallbacksByName) {
  const TransportRequirements both = {.nvlink = true, .rdma = true};
  EXPECT_EQ(CheckTransport(both, 0, kNode), absl::OkStatus());
  EXPECT_EQ(CheckTransport({}, 3, {{4, kCohortCudaLinkHost, "SHM"}}), absl::OkStatus());
  EXPECT_EQ(Refusal({.nvlink = true}, {4, kCohortCudaLinkPcie, "P2P/IPC"}),
            "--require-nvlink: rank 3 reaches rank 4 by PCIe (P2P/IPC), not NVLink; mend that or "
            "start without --require-nvlink");
  EXPECT_EQ(Refusal({.nvlink = true}, {4, kCohortCudaLinkNvlink, "SHM/direct"}),
            "--require-nvlink: rank 3 reaches rank 4 by NVLink (SHM/direct), not NVLink; mend that "
            "or start without --require-nvlink");
  EXPECT_EQ(Refusal({.rdma = true}, {4, kCohortCudaLinkNetwork, "NET/Socket"}),
            "--require-rdma: rank 3 reaches rank 4 by NET/Socket, not RDMA; mend that or start "
            "without --require-rdma");
  EXPECT_EQ(Refusal({.rdma = true}, {4, kCohortCudaLinkNetwork, ""}),
            "--require-rdma: rank 3 reaches rank 4 by network, not RDMA (what NCCL chose is not "
            "known: leave NCCL_DEBUG unset); mend that or start without --require-rdma");
}

}  // namespace
}  // namespace cohort
