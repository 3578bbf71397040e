#include "launcher/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/time/clock.h"

namespace cohort {
namespace {

constexpr int kMaxReceiveBytes = 8 << 20;
constexpr int kMaxMetadataBytes = 16 << 10;

// Exactly one reflection service or none: linking the library already adds one to every server.
class ReflectionOption final : public grpc::ServerBuilderOption {
 public:
  using Plugin = grpc::reflection::ProtoServerReflectionPlugin;

  explicit ReflectionOption(bool wanted) : wanted_(wanted) {}
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    const std::string name = Plugin().name();
    const auto is_reflection = [&name](const auto& plugin) { return plugin->name() == name; };
    plugins->erase(std::remove_if(plugins->begin(), plugins->end(), is_reflection), plugins->end());
    if (wanted_) plugins->push_back(std::make_unique<Plugin>());
  }

 private:
  const bool wanted_;
};

void SetLimits(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(kMaxReceiveBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  // One gateway connection may carry everything that is admitted.
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 4096);
  // Another server on the port is an error, not a partner.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Our own pings find half-open clients; clients may ping every 10 s, calls or not (a little
  // earlier is allowed, clocks differ).
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 9'000);
}

absl::Status CannotListen(const HostPort& listen, StringView why) {
  return absl::UnavailableError(
      absl::StrCat("--listen ", listen.ToString(), ": cannot listen there: ", why));
}

// 0 or the errno of binding one resolved address.
int TryBind(const addrinfo& address) {
  const int fd = socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  const int on = 1;
  int error = 0;
  // As gRPC does: a port in TIME_WAIT is free.
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      bind(fd, address.ai_addr, address.ai_addrlen) != 0 || listen(fd, 1) != 0) {
    error = errno;
  }
  close(fd);
  return error;
}

}  // namespace

absl::Status CheckListenAddress(const HostPort& listen) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  // What looks like an address is not looked up as a name, which may take long to fail.
  const bool is_numeric = listen.host.find_first_not_of("0123456789.") == std::string::npos ||
                          listen.host.find(':') != std::string::npos;
  if (is_numeric) hints.ai_flags |= AI_NUMERICHOST;
  addrinfo* found = nullptr;
  const int resolved =
      getaddrinfo(listen.host.c_str(), std::to_string(listen.port).c_str(), &hints, &found);
  if (resolved != 0) return CannotListen(listen, gai_strerror(resolved));
  int error = 0;
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    error = TryBind(*address);
    if (error == 0) break;
  }
  freeaddrinfo(found);
  return error == 0 ? absl::OkStatus() : CannotListen(listen, std::strerror(error));
}

GrpcServer::GrpcServer(ServingContext context)
    : context_(std::move(context)),
      active_(*context_.engine),
      generation_(context_, active_),
      control_(context_, active_),
      health_({v1::Generation::service_full_name(), v1::Control::service_full_name()}) {}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const HostPort& listen,
                                                              ServingContext context,
                                                              bool reflection) {
  std::unique_ptr<GrpcServer> server(new GrpcServer(std::move(context)));
  grpc::ServerBuilder builder;
  SetLimits(builder);
  int port = 0;
  builder.AddListeningPort(listen.ToString(), grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&server->generation_);
  builder.RegisterService(&server->control_);
  builder.RegisterService(&server->health_);
  builder.SetOption(std::make_unique<ReflectionOption>(reflection));
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || port == 0) {
    return CannotListen(listen, "the address is taken or not of this machine");
  }
  server->address_ = {listen.host, port};
  return server;
}

GrpcServer::~GrpcServer() { Shutdown(absl::ZeroDuration()); }

void GrpcServer::Shutdown(absl::Duration grace) {
  if (server_ == nullptr) return;
  health_.StopServing();
  health_.EndWatches();
  server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  server_.reset();
}

}  // namespace cohort
