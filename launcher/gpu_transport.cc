#include "launcher/gpu_transport.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"

namespace cohort {
namespace {

StringView NameOf(CohortCudaLink link) {
  switch (link) {
    case kCohortCudaLinkSelf:
      return "itself";
    case kCohortCudaLinkNvlink:
      return "NVLink";
    case kCohortCudaLinkPcie:
      return "PCIe";
    case kCohortCudaLinkSameGpu:
      return "the same GPU";
    case kCohortCudaLinkHost:
      return "the host's memory";
    case kCohortCudaLinkNetwork:
      return "network";
  }
  return "an unknown link";
}

std::string Describe(const GpuPeer& peer) {
  if (peer.nccl.empty()) return std::string(NameOf(peer.link));
  return peer.link == kCohortCudaLinkNetwork
             ? peer.nccl
             : absl::StrCat(NameOf(peer.link), " (", peer.nccl, ")");
}

bool IsNvlink(const GpuPeer& peer) {
  return peer.link == kCohortCudaLinkNvlink &&
         (peer.nccl.empty() || absl::StartsWith(peer.nccl, "P2P"));
}

bool IsRdma(const GpuPeer& peer) {
  return absl::StartsWith(peer.nccl, "NET/") && !absl::StrContains(peer.nccl, "Socket");
}

absl::Status Refuse(StringView flag, StringView wanted, int rank, const GpuPeer& peer) {
  const bool is_known = !peer.nccl.empty() || peer.link != kCohortCudaLinkNetwork;
  return absl::FailedPreconditionError(absl::StrCat(
      flag, ": rank ", rank, " reaches rank ", peer.rank, " by ", Describe(peer), ", not ", wanted,
      is_known ? "" : " (what NCCL chose is not known: leave NCCL_DEBUG unset)",
      "; mend that or start without ", flag));
}

}  // namespace

std::string DescribeTransport(const std::vector<GpuPeer>& peers) {
  std::vector<std::pair<std::string, std::vector<int>>> kinds;  // in order of appearance
  for (const GpuPeer& peer : peers) {
    if (peer.link == kCohortCudaLinkSelf) continue;
    std::string words = Describe(peer);
    if (kinds.empty() || kinds.back().first != words)
      kinds.emplace_back(std::move(words), std::vector<int>{});
    kinds.back().second.push_back(peer.rank);
  }
  return absl::StrJoin(kinds, "; ", [](std::string* out, const auto& kind) {
    absl::StrAppend(out, kind.first, " to rank ", absl::StrJoin(kind.second, ", "));
  });
}

std::string DescribeReductions(const PeerLinks& links) {
  if (!links.reduces_over_peers) return "";
  std::vector<std::string> ways;
  if (links.one_shot_bytes > 0) ways.push_back(absl::StrCat("one shot to ", links.one_shot_bytes));
  if (links.two_shot_bytes > 0) ways.push_back(absl::StrCat("two to ", links.two_shot_bytes));
  return absl::StrCat("; small reductions over peer memory (", absl::StrJoin(ways, ", "),
                      " bytes)");
}

absl::Status CheckTransport(const TransportRequirements& requirements, int rank,
                            const std::vector<GpuPeer>& peers) {
  for (const GpuPeer& peer : peers) {
    if (peer.link == kCohortCudaLinkSelf) continue;
    const bool is_remote = peer.link == kCohortCudaLinkNetwork;
    if (requirements.nvlink && !is_remote && !IsNvlink(peer)) {
      return Refuse("--require-nvlink", "NVLink", rank, peer);
    }
    if (requirements.rdma && is_remote && !IsRdma(peer)) {
      return Refuse("--require-rdma", "RDMA", rank, peer);
    }
  }
  return absl::OkStatus();
}

}  // namespace cohort
