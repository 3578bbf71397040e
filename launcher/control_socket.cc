#include "launcher/control_socket.h"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace cohort {
namespace {

// Control data for kMaxControlDescriptors descriptors.
struct alignas(cmsghdr) DescriptorBuffer {
  char bytes[CMSG_SPACE(sizeof(int) * kMaxControlDescriptors)] = {};
};

absl::Status SocketError(StringView what, int error) {
  return absl::UnavailableError(absl::StrCat("control socket: ", what, ": ", std::strerror(error)));
}

std::vector<FileDescriptor> TakeDescriptors(msghdr& message) {
  std::vector<FileDescriptor> descriptors;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
      descriptors.emplace_back(fd);
    }
  }
  return descriptors;
}

}  // namespace

absl::StatusOr<ControlSocket::Pair> ControlSocket::MakePair() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return SocketError("socketpair failed", errno);
  }
  Pair pair{ControlSocket(FileDescriptor(ends[0])), ControlSocket(FileDescriptor(ends[1]))};
  // A packet must fit whole. The kernel doubles the value for its own needs.
  const int bytes = static_cast<int>(kMaxControlBytes);
  for (const int fd : ends) {
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)) != 0) {
      return SocketError("SO_SNDBUF", errno);
    }
  }
  return pair;
}

absl::Status ControlSocket::Send(StringView bytes, absl::Span<const int> descriptors,
                                 WhenFull when_full) {
  if (bytes.empty() || bytes.size() > kMaxControlBytes ||
      descriptors.size() > kMaxControlDescriptors) {
    return absl::InvalidArgumentError(
        absl::StrCat("a control packet of ", bytes.size(), " bytes and ", descriptors.size(),
                     " descriptors; 1 to ", kMaxControlBytes, " bytes and ", kMaxControlDescriptors,
                     " descriptors are legal"));
  }
  iovec piece = {const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message = {};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  DescriptorBuffer buffer;
  if (!descriptors.empty()) {
    message.msg_control = buffer.bytes;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors.size());
    cmsghdr* part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int) * descriptors.size());
    std::memcpy(CMSG_DATA(part), descriptors.data(), sizeof(int) * descriptors.size());
  }
  const int flags = MSG_NOSIGNAL | (when_full == WhenFull::kFail ? MSG_DONTWAIT : 0);
  while (sendmsg(fd(), &message, flags) < 0) {
    if (errno == EINTR) continue;
    if (errno == EAGAIN) return SocketError("the other end does not read", errno);
    return SocketError("sending failed", errno);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<ControlPacket>> ControlSocket::Receive() {
  ControlPacket packet;
  packet.bytes.resize(kMaxControlBytes);
  iovec piece = {packet.bytes.data(), packet.bytes.size()};
  DescriptorBuffer buffer;
  msghdr message = {};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = buffer.bytes;
  message.msg_controllen = sizeof(buffer.bytes);
  ssize_t received;
  do {
    received = recvmsg(fd(), &message, MSG_CMSG_CLOEXEC);
  } while (received < 0 && errno == EINTR);
  // A process that dies with unread packets resets the connection.
  if (received < 0 && errno != ECONNRESET) return SocketError("receiving failed", errno);
  if (received <= 0) return std::optional<ControlPacket>();
  packet.descriptors = TakeDescriptors(message);
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    return absl::DataLossError("control socket: a packet over the limits");
  }
  packet.bytes.resize(static_cast<size_t>(received));
  return std::optional<ControlPacket>(std::move(packet));
}

bool ControlSocket::Readable() const {
  pollfd waiting = {fd(), POLLIN, 0};
  return poll(&waiting, 1, 0) > 0;
}

}  // namespace cohort
