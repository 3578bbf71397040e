// Only gloo's newer interface (unbound buffers) is used: mixed with the older one on one context it
// stalls.
#include "parallel/gloo_mesh.h"

#include <gloo/transport/context.h>
#include <gloo/transport/device.h>
#include <gloo/transport/pair.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/unbound_buffer.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "kernels/check.h"

namespace cohort {
namespace {

// Messages of one tag keep their order.
constexpr uint64_t kMessageTag = 0;
// Of a message that is never sent: whoever waits for it hears when the connection is lost. gloo
// tells that only to receives that have not begun, not to one in the middle of its message.
constexpr uint64_t kNeverTag = 1;
constexpr std::chrono::hours kNeverTimeout(24 * 3650);
// gloo waits five times the context's timeout for a connection.
constexpr int kConnectTimeouts = 5;

using Milliseconds = std::chrono::milliseconds;

// At least 1: gloo takes 0 for "for ever".
Milliseconds ToMilliseconds(absl::Duration duration) {
  constexpr int64_t kDay = int64_t{24} * 3600 * 1000;
  return Milliseconds(std::clamp<int64_t>(absl::ToInt64Milliseconds(duration), 1, kDay));
}

// gloo's words without the place in its source, "[/build/...:123] ".
std::string Words(const std::exception& error) {
  const StringView text = error.what();
  const size_t end = text.find("] ");
  const bool has_place = !text.empty() && text.front() == '[' && end != StringView::npos;
  return std::string(has_place ? text.substr(end + 2) : text);
}

bool IgnoresBrokenPipes() {
  struct sigaction action = {};
  sigaction(SIGPIPE, nullptr, &action);
  return action.sa_handler == SIG_IGN;
}

absl::Status CheckOptions(const GlooMeshOptions& options) {
  const size_t hosts = options.names.size();
  const bool sizes_fit = options.message_bytes.size() == hosts &&
                         std::all_of(options.message_bytes.begin(), options.message_bytes.end(),
                                     [](int64_t bytes) { return bytes > 0; });
  if (hosts < 2 || options.host < 0 || options.host >= static_cast<int>(hosts) || !sizes_fit) {
    return absl::InvalidArgumentError(absl::StrCat(
        "host ", options.host, " of ", hosts, " hosts with ", options.message_bytes.size(),
        " message sizes: there must be at least two hosts, each with a positive size"));
  }
  if (options.connect_timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat("a connect timeout of ",
                                                   absl::FormatDuration(options.connect_timeout),
                                                   " is not positive"));
  }
  return absl::OkStatus();
}

}  // namespace

class GlooMesh::State {
 public:
  explicit State(GlooMeshOptions options)
      : options_(std::move(options)), peers_(options_.names.size()) {}
  ~State();

  absl::Status Listen();
  absl::Status Connect(absl::Span<const std::string> peers);
  absl::Status Exchange(absl::Span<const int64_t> bytes, absl::Duration timeout);
  void Abort();

  int host() const { return options_.host; }
  int hosts() const { return static_cast<int>(options_.names.size()); }
  const std::vector<std::string>& listeners() const { return listeners_; }
  std::byte* outgoing(int host) { return peer(host).outgoing[exchanges_ & 1].data(); }
  const std::byte* incoming(int host) const {
    return peers_[static_cast<size_t>(host)].incoming[(exchanges_ + 1) & 1].data();
  }

 private:
  using Buffer = std::unique_ptr<gloo::transport::UnboundBuffer>;
  // Of one other host. There are two buffers each way, for messages of even and odd number: one is
  // read (written) by us while gloo still writes (reads) the other. That our message has left is
  // known from the other side's next, which it sends after it has ours; gloo's own word for it may
  // never come when the connection is lost.
  struct Peer {
    std::array<std::vector<std::byte>, 2> outgoing;
    std::array<std::vector<std::byte>, 2> incoming;
    std::array<Buffer, 2> send;
    std::array<Buffer, 2> receive;
    std::byte nothing{};
    Buffer never;
    std::thread watcher;  // waits for `never`
    std::string loss;     // set before is_lost
    std::atomic<bool> is_lost{false};
  };

  Peer& peer(int host) { return peers_[static_cast<size_t>(host)]; }
  // What the watcher found out.
  static std::string LossOf(const Peer& peer) { return peer.is_lost.load() ? peer.loss : ""; }
  const std::string& name(int host) const { return options_.names[static_cast<size_t>(host)]; }
  void MakeBuffers();
  void Watch(int host);
  absl::Status Receive(int host, uint64_t parity, absl::Time deadline);
  absl::Status Lost(int host, StringView words) const;
  // Calls `call(host)`, which may throw, for every other host.
  template <class Call>
  absl::Status ForEachPeer(Call call);

  const GlooMeshOptions options_;
  std::shared_ptr<gloo::transport::Device> device_;
  std::shared_ptr<gloo::transport::Context> context_;
  std::vector<std::string> listeners_;
  std::vector<Peer> peers_;  // by host; nothing at our own
  uint64_t exchanges_ = 0;   // finished

  std::atomic<bool> aborted_{false};
  std::mutex connecting_mutex_;
  bool connecting_ = true;  // guarded by connecting_mutex_; until every host is connected
};

template <class Call>
absl::Status GlooMesh::State::ForEachPeer(Call call) {
  for (int host = 0; host < hosts(); ++host) {
    if (host == options_.host) continue;
    try {
      RETURN_IF_ERROR(call(host));
    } catch (const std::exception& error) {
      return Lost(host, Words(error));
    }
  }
  return absl::OkStatus();
}

GlooMesh::State::~State() {
  for (Peer& other : peers_) {
    if (!other.watcher.joinable()) continue;
    other.never->abortWaitRecv();
    other.watcher.join();
  }
  // Before the buffers: from here on gloo's thread does not touch them.
  for (int host = 0; context_ != nullptr && host < hosts(); ++host) {
    context_->getPair(host).reset();
  }
}

absl::Status GlooMesh::State::Lost(int host, StringView words) const {
  if (aborted_.load()) return absl::AbortedError("the connections between hosts were aborted");
  return absl::UnavailableError(
      absl::StrCat("the connection to ", name(host), " is lost: ", words));
}

absl::Status GlooMesh::State::Listen() {
  try {
    device_ =
        gloo::transport::tcp::CreateDevice(gloo::transport::tcp::attr(options_.address.c_str()));
    context_ = device_->createContext(options_.host, hosts());
    context_->setTimeout(ToMilliseconds(options_.connect_timeout / kConnectTimeouts));
    listeners_.resize(static_cast<size_t>(hosts()));
    for (int host = 0; host < hosts(); ++host) {
      if (host == options_.host) continue;
      const std::vector<char> bytes = context_->createPair(host)->address().bytes();
      listeners_[static_cast<size_t>(host)] = std::string(bytes.begin(), bytes.end());
    }
    MakeBuffers();
  } catch (const std::exception& error) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen for other hosts on '", options_.address, "': ", Words(error)));
  }
  return absl::OkStatus();
}

void GlooMesh::State::MakeBuffers() {
  const auto make = [this](std::vector<std::byte>& memory, int64_t bytes) {
    memory.resize(static_cast<size_t>(bytes));
    return context_->createUnboundBuffer(memory.data(), memory.size());
  };
  const auto bytes_from = [this](int host) {
    return options_.message_bytes[static_cast<size_t>(host)];
  };
  for (int host = 0; host < hosts(); ++host) {
    if (host == options_.host) continue;
    Peer& other = peer(host);
    for (size_t i = 0; i < 2; ++i) {
      other.send[i] = make(other.outgoing[i], bytes_from(options_.host));
      other.receive[i] = make(other.incoming[i], bytes_from(host));
    }
    other.never = context_->createUnboundBuffer(&other.nothing, sizeof(other.nothing));
  }
}

absl::Status GlooMesh::State::Connect(absl::Span<const std::string> peers) {
  if (peers.size() != peers_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the addresses of ", peers.size(), " hosts were given, of ", hosts()));
  }
  RETURN_IF_ERROR(ForEachPeer([&](int host) -> absl::Status {
    const std::string& address = peers[static_cast<size_t>(host)];
    if (!aborted_.load()) {
      context_->getPair(host)->connect(std::vector<char>(address.begin(), address.end()));
    }
    if (aborted_.load()) return Lost(host, "");
    // A receive that is posted early lets the other side send without asking first.
    peer(host).receive[0]->recv(host, kMessageTag);
    peer(host).never->recv(host, kNeverTag);
    peer(host).watcher = std::thread([this, host] { Watch(host); });
    return absl::OkStatus();
  }));
  const std::lock_guard<std::mutex> lock(connecting_mutex_);
  connecting_ = false;
  return aborted_.load() ? Lost(options_.host, "") : absl::OkStatus();
}

void GlooMesh::State::Watch(int host) {
  Peer& other = peer(host);
  try {
    other.never->waitRecv(kNeverTimeout);
    return;  // told to end
  } catch (const std::exception& error) {
    other.loss = Words(error);
  }
  other.is_lost.store(true);
  for (const Buffer& receive : other.receive) receive->abortWaitRecv();
}

absl::Status GlooMesh::State::Exchange(absl::Span<const int64_t> bytes, absl::Duration timeout) {
  CHECK_EQ(static_cast<int>(bytes.size()), hosts());
  const absl::Time deadline = absl::Now() + timeout;
  const uint64_t parity = exchanges_ & 1;
  RETURN_IF_ERROR(ForEachPeer([&](int host) -> absl::Status {
    Peer& other = peer(host);
    const int64_t length = bytes[static_cast<size_t>(host)];
    CHECK_GT(length, 0);
    CHECK_LE(length, static_cast<int64_t>(other.outgoing[parity].size()));
    if (aborted_.load() || other.is_lost.load()) return Lost(host, LossOf(other));
    other.receive[parity ^ 1]->recv(host, kMessageTag);
    other.send[parity]->send(host, kMessageTag, /*offset=*/0, static_cast<size_t>(length));
    return absl::OkStatus();
  }));
  RETURN_IF_ERROR(ForEachPeer([&](int host) { return Receive(host, parity, deadline); }));
  ++exchanges_;
  return absl::OkStatus();
}

absl::Status GlooMesh::State::Receive(int host, uint64_t parity, absl::Time deadline) {
  Peer& other = peer(host);
  const auto left = [deadline] { return ToMilliseconds(deadline - absl::Now()); };
  try {
    if (other.receive[parity]->waitRecv(left())) return absl::OkStatus();
    return Lost(host, LossOf(other));
  } catch (const std::exception& error) {
    // gloo breaks every connection when a wait of its own runs out, and says no more than that.
    if (aborted_.load() || left() > Milliseconds(1)) return Lost(host, Words(error));
    return absl::DeadlineExceededError(absl::StrCat(name(host), " had not arrived"));
  }
}

void GlooMesh::State::Abort() {
  aborted_.store(true);
  for (Peer& other : peers_) {
    for (const Buffer& receive : other.receive) {
      if (receive != nullptr) receive->abortWaitRecv();
    }
  }
  const std::lock_guard<std::mutex> lock(connecting_mutex_);
  if (!connecting_) return;
  // Nothing else wakes a thread that waits for a connection.
  for (int host = 0; host < hosts(); ++host) {
    if (host != options_.host) context_->getPair(host)->close();
  }
}

GlooMesh::GlooMesh(std::unique_ptr<State> state) : state_(std::move(state)) {}
GlooMesh::~GlooMesh() = default;

absl::StatusOr<std::unique_ptr<GlooMesh>> GlooMesh::Listen(GlooMeshOptions options) {
  RETURN_IF_ERROR(CheckOptions(options));
  CHECK(IgnoresBrokenPipes()) << "gloo writes to connections that the other side has closed";
  auto state = std::make_unique<State>(std::move(options));
  RETURN_IF_ERROR(state->Listen());
  return std::unique_ptr<GlooMesh>(new GlooMesh(std::move(state)));
}

int GlooMesh::host() const { return state_->host(); }
int GlooMesh::hosts() const { return state_->hosts(); }
const std::vector<std::string>& GlooMesh::listeners() const { return state_->listeners(); }
absl::Status GlooMesh::Connect(absl::Span<const std::string> peers) {
  return state_->Connect(peers);
}
std::byte* GlooMesh::outgoing(int host) { return state_->outgoing(host); }
const std::byte* GlooMesh::incoming(int host) const { return state_->incoming(host); }
absl::Status GlooMesh::Exchange(absl::Span<const int64_t> bytes, absl::Duration timeout) {
  return state_->Exchange(bytes, timeout);
}
void GlooMesh::Abort() { state_->Abort(); }

}  // namespace cohort
