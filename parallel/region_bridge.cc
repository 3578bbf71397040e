#include "parallel/region_bridge.h"

#include <cstring>
#include <utility>

#include "kernels/check.h"

namespace cohort {
namespace {

// A message: one RankHeader per rank of the sending host, then their bytes in the same order. All
// hosts of a group are of one byte order.
struct RankHeader {
  Announcement announcement;
  uint32_t step = 0;
  uint32_t reserved = 0;
  Range bytes;  // of the rank's buffer
};

// Appends `value` at `position`.
template <class Value>
void Write(std::byte*& position, const Value& value) {
  std::memcpy(position, &value, sizeof(value));
  position += sizeof(value);
}

}  // namespace

RegionBridge::RegionBridge(std::shared_ptr<const SharedRegion> region, std::vector<Range> hosts,
                           std::shared_ptr<GlooMesh> mesh)
    : region_(std::move(region)),
      hosts_(std::move(hosts)),
      mesh_(std::move(mesh)),
      lengths_(hosts_.size()) {
  CHECK_EQ(static_cast<int>(hosts_.size()), mesh_->hosts());
}

int64_t RegionBridge::MessageBytes(int64_t ranks) {
  return ranks * (static_cast<int64_t>(sizeof(RankHeader)) + SharedRegion::kBufferBytes);
}

absl::Status RegionBridge::Carry(uint32_t step, StepBytes bytes, absl::Duration timeout) {
  for (int host = 0; host < mesh_->hosts(); ++host) {
    if (host != mesh_->host()) lengths_[static_cast<size_t>(host)] = Pack(step, host, bytes);
  }
  RETURN_IF_ERROR(mesh_->Exchange(lengths_, timeout));
  for (int host = 0; host < mesh_->hosts(); ++host) {
    if (host != mesh_->host()) RETURN_IF_ERROR(Unpack(step, host, bytes));
  }
  return absl::OkStatus();
}

int64_t RegionBridge::Pack(uint32_t step, int host, StepBytes bytes) {
  std::byte* const start = mesh_->outgoing(host);
  std::byte* position = start;
  const Range own = own_ranks();
  const Range readers = hosts_[static_cast<size_t>(host)];
  for (int64_t rank = own.begin; rank < own.end; ++rank) {
    const int source = static_cast<int>(rank);
    Write(position, RankHeader{.announcement = region_->control(source).announcements[step & 1u],
                               .step = step,
                               .reserved = 0,
                               .bytes = bytes(source, readers)});
  }
  for (int64_t rank = own.begin; rank < own.end; ++rank) {
    const int source = static_cast<int>(rank);
    const Range wanted = bytes(source, readers);
    CHECK_LE(wanted.end, SharedRegion::kBufferBytes);
    std::memcpy(position, region_->buffer(source, step) + wanted.begin,
                static_cast<size_t>(wanted.size()));
    position += wanted.size();
  }
  return position - start;
}

absl::Status RegionBridge::Unpack(uint32_t step, int host, StepBytes bytes) {
  const Range ranks = hosts_[static_cast<size_t>(host)];
  const std::byte* position = mesh_->incoming(host);
  const std::byte* data = position + ranks.size() * static_cast<int64_t>(sizeof(RankHeader));
  const Announcement& own =
      region_->control(static_cast<int>(own_ranks().begin)).announcements[step & 1u];
  for (int64_t rank = ranks.begin; rank < ranks.end; ++rank) {
    const int source = static_cast<int>(rank);
    RankHeader header;
    std::memcpy(&header, position, sizeof(header));
    position += sizeof(header);
    region_->control(source).announcements[step & 1u] = header.announcement;
    const Range wanted = bytes(source, own_ranks());
    // What a rank in another collective sent is of no use: the ranks fail when they compare
    // announcements.
    if (header.announcement != own) break;
    if (header.step != step || header.bytes != wanted) {
      return absl::InternalError(
          absl::StrCat("group rank ", source, " sent bytes ", header.bytes.begin, " to ",
                       header.bytes.end, " of step ", header.step, "; bytes ", wanted.begin, " to ",
                       wanted.end, " of step ", step, " were expected"));
    }
    std::memcpy(region_->buffer(source, step) + wanted.begin, data,
                static_cast<size_t>(wanted.size()));
    data += wanted.size();
  }
  return absl::OkStatus();
}

}  // namespace cohort
