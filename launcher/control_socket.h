// One end of the socket pair between an agent and a rank process: whole messages in order, with
// file descriptors beside them. The other end's process being gone reads as end of file.
#ifndef COHORT_LAUNCHER_CONTROL_SOCKET_H_
#define COHORT_LAUNCHER_CONTROL_SOCKET_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "kernels/status.h"
#include "launcher/file_descriptor.h"

namespace cohort {

inline constexpr size_t kMaxControlBytes = 128 * 1024;
inline constexpr size_t kMaxControlDescriptors = 8;

struct ControlPacket {
  std::string bytes;  // never empty
  std::vector<FileDescriptor> descriptors;
};

// Send from one thread at a time, Receive from one thread.
class ControlSocket {
 public:
  // Takes over `socket`, a SOCK_SEQPACKET of the Unix family.
  explicit ControlSocket(FileDescriptor socket) : socket_(std::move(socket)) {}

  struct Pair;
  static absl::StatusOr<Pair> MakePair();

  int fd() const { return socket_.get(); }
  FileDescriptor Release() && { return std::move(socket_); }

  enum class WhenFull { kFail, kWait };
  // The descriptors are duplicated into the receiver. INVALID_ARGUMENT for more than the limits
  // above or nothing at all; UNAVAILABLE when the other end is gone or (kFail) does not read.
  absl::Status Send(StringView bytes, absl::Span<const int> descriptors, WhenFull when_full);

  // Waits for a packet; nullopt at end of file. DATA_LOSS for a packet over the limits.
  absl::StatusOr<std::optional<ControlPacket>> Receive();

  // True when Receive would not wait.
  bool Readable() const;

 private:
  FileDescriptor socket_;
};

struct ControlSocket::Pair {
  ControlSocket first;
  ControlSocket second;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_CONTROL_SOCKET_H_
