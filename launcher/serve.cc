#include "launcher/serve.h"

#include <cstdio>
#include <future>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "launcher/client.h"
#include "launcher/cluster_setup.h"
#include "launcher/coordinator.h"
#include "launcher/grpc_server.h"
#include "launcher/log.h"
#include "launcher/model_setup.h"
#include "launcher/network_address.h"
#include "launcher/pocket_checkpoint.h"
#include "launcher/stop_signals.h"
#include "launcher/version.h"

namespace cohort {
namespace {

// How often a wait looks at the other things that may end it.
constexpr absl::Duration kTick = absl::Milliseconds(100);
// For the last events of streams that have finished to leave.
constexpr absl::Duration kFlushGrace = absl::Seconds(5);

ServingContext MakeServingContext(const ServeOptions& options, const ModelSetup& setup,
                                  Coordinator& coordinator) {
  ServingContext context;
  context.engine = &coordinator.engine();
  context.tokenizer = setup.tokenizer.get();
  context.group = [&coordinator] { return coordinator.group(); };
  context.config = setup.config;
  context.default_sampling = setup.default_sampling;
  context.chat_template = setup.chat_template;
  if (options.mask_padding) context.choosable_ids = setup.token_ids;
  context.model_name = setup.served_name;
  context.max_model_len = setup.max_model_len;
  if (context.tokenizer != nullptr) {
    context.max_prompt_bytes = MaxPromptBytes(*context.tokenizer, context.max_model_len);
  }
  std::random_device random;
  v1::ServerInfo& info = context.server_info;
  info.set_version(kVersion);
  info.set_api_revision(kApiRevision);
  info.set_instance_id(absl::StrFormat("%08x%08x", random(), random()));
  info.set_device(setup.device);
  info.set_dtype(std::string(NameOf(setup.dtype)));
  info.set_tensor_parallel(static_cast<uint32_t>(options.tp));
  info.set_data_parallel(static_cast<uint32_t>(options.dp));
  info.set_expert_parallel(static_cast<uint32_t>(options.ep));
  info.set_max_running(static_cast<uint32_t>(options.max_running));
  info.set_max_batch_tokens(static_cast<uint32_t>(options.max_batch_tokens));
  info.set_block_size(static_cast<uint32_t>(options.block_size));
  context.started = absl::Now();
  return context;
}

// True once the group serves, false when a signal came first.
absl::StatusOr<bool> AwaitServing(Coordinator& coordinator, StopSignals& signals) {
  for (;;) {
    const absl::Status status = coordinator.WaitUntilServing(absl::Now() + kTick);
    if (status.ok()) return true;
    if (!absl::IsDeadlineExceeded(status)) return status;
    if (signals.Wait(absl::ZeroDuration())) return false;
  }
}

// Brings health in line with the group, whose last change may have come before anybody listened.
// The group's state is published before its callback, so the last word is right either way.
void TellHealth(const Coordinator& coordinator, HealthService& health) {
  bool serving = false;
  do {
    serving = coordinator.group().state == "serving";
    health.SetServing(serving);
  } while (serving != (coordinator.group().state == "serving"));
}

// Until a signal comes (OK) or the group is gone for good.
absl::Status ServeUntilStopped(Coordinator& coordinator, StopSignals& signals) {
  while (!signals.Wait(kTick)) RETURN_IF_ERROR(coordinator.failure());
  return absl::OkStatus();
}

// Lets running requests finish. A second signal ends them at once.
void Drain(absl::Duration timeout, Coordinator& coordinator, GrpcServer& server,
           StopSignals& signals) {
  server.health().StopServing();
  LogInfo("draining", {{"timeout", absl::FormatDuration(timeout)}});
  std::future<bool> drained = std::async(std::launch::async, [&coordinator, timeout] {
    return coordinator.engine().Drain(absl::Now() + timeout);
  });
  bool cut_short = false;
  while (!cut_short && drained.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    cut_short = signals.Wait(kTick);
  }
  if (cut_short) coordinator.Shutdown();
  LogInfo("drained", {{"complete", drained.get() && !cut_short}, {"second_signal", cut_short}});
}

void PrintReady(const HostPort& address) {
  std::printf("ready %s\n", address.ToString().c_str());
  std::fflush(stdout);
}

absl::Status ServeGroup(const ServeOptions& options, Coordinator& coordinator, GrpcServer& server,
                        StopSignals& signals) {
  coordinator.OnServingChange([&server](bool serving) { server.health().SetServing(serving); });
  ASSIGN_OR_RETURN(const bool serving, AwaitServing(coordinator, signals));
  if (!serving) return absl::OkStatus();
  TellHealth(coordinator, server.health());
  PrintReady(server.address());
  LogInfo("serving", {{"address", server.address().ToString()}});
  RETURN_IF_ERROR(ServeUntilStopped(coordinator, signals));
  Drain(options.drain_timeout, coordinator, server, signals);
  return absl::OkStatus();
}

absl::Status Serve(const ServeOptions& options, StopSignals& signals) {
  RETURN_IF_ERROR(CheckListenAddress("--listen", options.listen));
  ASSIGN_OR_RETURN(const ModelSetup setup, SetUpModel(options));
  if (options.model.empty()) {
    LogInfo("default_model", {{"model", kPocketName}, {"directory", setup.model}});
  }
  for (const std::string& warning : setup.warnings) LogWarning("model", {{"message", warning}});
  LogInfo("starting", {{"model", setup.served_name},
                       {"device", setup.device},
                       {"dtype", NameOf(setup.dtype)},
                       {"tp", options.tp},
                       {"dp", options.dp},
                       {"ep", options.ep},
                       {"agents", options.agents},
                       {"threads_per_rank", setup.threads},
                       {"kv_blocks", setup.kv_blocks},
                       {"max_model_len", setup.max_model_len},
                       {"tokenizer", setup.tokenizer != nullptr}});
  CoordinatorOptions coordinator_options;
  coordinator_options.configuration = MakeRankConfiguration(options, setup);
  coordinator_options.scheduler = MakeSchedulerOptions(options, setup);
  RETURN_IF_ERROR(SetUpCluster(options, setup, coordinator_options));
  ASSIGN_OR_RETURN(const std::unique_ptr<Coordinator> coordinator,
                   Coordinator::Start(std::move(coordinator_options)));
  if (coordinator->cluster_address().has_value()) {
    LogInfo("cluster_listening", {{"address", coordinator->cluster_address()->ToString()}});
  }
  ASSIGN_OR_RETURN(
      const std::unique_ptr<GrpcServer> server,
      GrpcServer::Start(options.listen, MakeServingContext(options, setup, *coordinator),
                        options.reflection));
  const absl::Status status = ServeGroup(options, *coordinator, *server, signals);
  server->health().StopServing();
  server->Shutdown(kFlushGrace);
  coordinator->Shutdown();
  return status;
}

}  // namespace

int RunServe(const ServeOptions& options) {
  StopSignals signals;
  const absl::Status status = Serve(options, signals);
  if (!status.ok()) return PrintError(status.message());
  LogInfo("stopped");
  return 0;
}

}  // namespace cohort
