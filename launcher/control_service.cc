#include "launcher/control_service.h"

#include "absl/time/clock.h"
#include "launcher/rank_memory.h"

namespace cohort {
namespace {

grpc::ServerUnaryReactor* Done(grpc::CallbackServerContext* call) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

void FillRank(const RankStatus& rank, v1::RankInfo& message) {
  message.set_rank(static_cast<uint32_t>(rank.rank));
  message.set_agent(rank.agent);
  message.set_process_id(rank.process_id);
  message.set_state(rank.state);
  message.set_load_progress(rank.load_progress);
  message.set_weight_bytes(rank.weight_bytes);
  message.set_kv_bytes(rank.kv_bytes);
  *message.mutable_planned() = ToMessage(rank.planned);
  *message.mutable_allocated() = ToMessage(rank.allocated);
  message.set_restarts(rank.restarts);
  message.set_device(rank.device);
  message.set_transport(rank.transport);
}

void FillAgent(const AgentStatus& agent, v1::AgentInfo& message) {
  message.set_name(agent.name);
  message.set_state(agent.state);
  message.set_address(agent.address);
  message.set_cores(static_cast<uint32_t>(agent.cores));
  for (int i = 0; i < agent.ranks; ++i) {
    message.add_ranks(static_cast<uint32_t>(agent.first_rank + i));
  }
  message.set_loss(agent.loss);
}

void FillGroup(const SchedulerLoad& load, v1::DataParallelGroup& message) {
  message.set_running(static_cast<uint32_t>(load.running));
  message.set_waiting(static_cast<uint32_t>(load.waiting));
  message.set_paused(static_cast<uint32_t>(load.paused));
  message.set_kv_blocks_used(static_cast<uint64_t>(load.blocks_used));
  message.set_kv_blocks_cached(static_cast<uint64_t>(load.blocks_cached));
  message.set_kv_blocks_total(static_cast<uint64_t>(load.blocks_total));
  message.set_prompt_tokens(load.counts.prompt_tokens_computed);
  message.set_preemptions(load.counts.preemptions);
  message.set_prefix_queried_tokens(load.counts.prefix_queried_tokens);
  message.set_prefix_hit_tokens(load.counts.prefix_hit_tokens);
}

void FillEngineLoad(const EngineLoad& load, v1::Load& message) {
  message.set_running(static_cast<uint32_t>(load.running));
  message.set_waiting(static_cast<uint32_t>(load.waiting));
  message.set_kv_blocks_used(static_cast<uint64_t>(load.kv_blocks_used));
  message.set_kv_blocks_total(static_cast<uint64_t>(load.kv_blocks_total));
  message.set_block_size(static_cast<uint32_t>(load.block_size));
  message.set_steps(load.steps);
  message.set_requests_finished(load.requests_finished);
  message.set_prompt_tokens(load.prompt_tokens);
  message.set_generated_tokens(load.generated_tokens);
  message.set_last_step_milliseconds(load.last_step_milliseconds);
  message.set_paused(static_cast<uint32_t>(load.paused));
  message.set_kv_blocks_cached(static_cast<uint64_t>(load.kv_blocks_cached));
  message.set_preemptions(load.preemptions);
  message.set_prefix_queried_tokens(load.prefix_queried_tokens);
  message.set_prefix_hit_tokens(load.prefix_hit_tokens);
  message.mutable_expert_hits()->Assign(load.expert_hits.begin(), load.expert_hits.end());
  // The groups have equally many consecutive ranks.
  const size_t group_ranks = static_cast<size_t>(message.ranks_size()) / load.groups.size();
  for (size_t group = 0; group < load.groups.size(); ++group) {
    v1::DataParallelGroup& added = *message.add_groups();
    FillGroup(load.groups[group], added);
    for (size_t rank = 0; rank < group_ranks; ++rank) {
      added.add_ranks(static_cast<uint32_t>(group * group_ranks + rank));
    }
  }
}

}  // namespace

grpc::ServerUnaryReactor* ControlService::GetServerInfo(grpc::CallbackServerContext* call,
                                                        const v1::GetServerInfoRequest*,
                                                        v1::ServerInfo* response) {
  *response = context_.server_info;
  response->set_uptime_seconds(absl::ToDoubleSeconds(absl::Now() - context_.started));
  return Done(call);
}

grpc::ServerUnaryReactor* ControlService::GetModelInfo(grpc::CallbackServerContext* call,
                                                       const v1::GetModelInfoRequest*,
                                                       v1::ModelInfo* response) {
  const ModelConfig& config = context_.config;
  response->set_name(context_.model_name);
  response->set_architecture(config.architecture);
  response->set_vocabulary(static_cast<uint32_t>(config.vocabulary));
  response->set_max_model_len(static_cast<uint32_t>(context_.max_model_len));
  response->set_layers(static_cast<uint32_t>(config.layers));
  response->set_hidden(static_cast<uint32_t>(config.hidden));
  response->set_query_heads(static_cast<uint32_t>(config.query_heads));
  response->set_kv_heads(static_cast<uint32_t>(config.kv_heads));
  for (const int32_t id : config.eos_token_ids) {
    response->add_eos_token_ids(static_cast<uint32_t>(id));
  }
  response->set_has_tokenizer(context_.tokenizer != nullptr);
  if (context_.tokenizer != nullptr && context_.chat_template.ok()) {
    response->set_chat_template(context_.chat_template->name);
  }
  return Done(call);
}

grpc::ServerUnaryReactor* ControlService::GetLoad(grpc::CallbackServerContext* call,
                                                  const v1::GetLoadRequest*, v1::Load* response) {
  const GroupStatus group = context_.group();
  const EngineLoad load = context_.engine->load();
  response->set_state(load.draining ? "draining" : group.state);
  response->set_epoch(group.epoch);
  for (const RankStatus& rank : group.ranks) FillRank(rank, *response->add_ranks());
  for (const AgentStatus& agent : group.agents) FillAgent(agent, *response->add_agents());
  response->set_awaited(group.awaited);
  FillEngineLoad(load, *response);
  return Done(call);
}

grpc::ServerUnaryReactor* ControlService::Abort(grpc::CallbackServerContext* call,
                                                const v1::AbortRequest* request,
                                                v1::AbortResult* response) {
  const std::vector<std::string> ids(request->request_ids().begin(), request->request_ids().end());
  for (std::string& id : active_.Abort(ids)) response->add_aborted(std::move(id));
  return Done(call);
}

}  // namespace cohort
