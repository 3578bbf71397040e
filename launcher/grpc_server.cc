#include "launcher/grpc_server.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <utility>

#include "absl/time/clock.h"
#include "launcher/network_address.h"
#include "launcher/reflection_option.h"

namespace cohort {
namespace {

constexpr int kMaxReceiveBytes = 8 << 20;
constexpr int kMaxMetadataBytes = 16 << 10;

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

}  // namespace

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
  SetReflection(builder, reflection);
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || port == 0) {
    return CannotListen("--listen", listen, "the address is taken or not of this machine");
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
