// Messages between the hosts of one group: one rank of each host (its leader) holds a TCP
// connection to the leader of every other host, made and driven by gloo. gloo_mesh.cc alone
// includes gloo's headers; its exceptions end there as statuses.
//
// Addresses are exchanged by whoever holds the group together: Listen, tell listeners() to the
// other leaders, Connect with theirs.
#ifndef COHORT_PARALLEL_GLOO_MESH_H_
#define COHORT_PARALLEL_GLOO_MESH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/status.h"

namespace cohort {

struct GlooMeshOptions {
  int host = 0;  // this one's index
  // By host, for messages: "group ranks 2 to 3 on agent 'b'". There are as many hosts as names.
  std::vector<std::string> names;
  // By host: the longest message from it, bytes.
  std::vector<int64_t> message_bytes;
  // Of this machine, where the other hosts reach it: an IP address or a name.
  std::string address;
  absl::Duration connect_timeout = absl::Seconds(30);  // for each other host
};

// For one thread, but for Abort. The process must ignore SIGPIPE.
class GlooMesh {
 public:
  // INVALID_ARGUMENT for options that describe no group; UNAVAILABLE when nothing can be bound to
  // the address.
  static absl::StatusOr<std::unique_ptr<GlooMesh>> Listen(GlooMeshOptions options);
  ~GlooMesh();
  GlooMesh(const GlooMesh&) = delete;
  GlooMesh& operator=(const GlooMesh&) = delete;

  int host() const;
  int hosts() const;

  // By host: what the leader of that host gives its Connect at our index. Opaque bytes; empty at
  // our own.
  const std::vector<std::string>& listeners() const;

  // `peers` by host (our own is ignored). Returns once every other host is connected.
  // UNAVAILABLE names the host that is not; ABORTED.
  absl::Status Connect(absl::Span<const std::string> peers);

  // Where the next message to `host` is written, of message_bytes[own host] at most; and where the
  // last Exchange put the message of `host`. Both are valid until the next Exchange.
  std::byte* outgoing(int host);
  const std::byte* incoming(int host) const;

  // Sends the first `bytes[host]` (at least one) of outgoing(host) to every other host, and waits
  // for one message of each. DEADLINE_EXCEEDED names the host that sent nothing, UNAVAILABLE the
  // one whose connection is lost; ABORTED. After a failure nothing else works.
  absl::Status Exchange(absl::Span<const int64_t> bytes, absl::Duration timeout);

  // Connect and Exchange, present or future, return ABORTED. Any thread.
  void Abort();

 private:
  class State;
  explicit GlooMesh(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cohort

#endif  // COHORT_PARALLEL_GLOO_MESH_H_
