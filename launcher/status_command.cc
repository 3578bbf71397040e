#include "launcher/status_command.h"

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cohort/v1/control.grpc.pb.h"
#include "launcher/client.h"

namespace cohort {
namespace {

nlohmann::ordered_json ToJson(const v1::RankMemory& memory) {
  return {{"weight_bytes", memory.weight_bytes()},
          {"kv_bytes", memory.kv_bytes()},
          {"workspace_bytes", memory.workspace_bytes()}};
}

nlohmann::ordered_json ToJson(const v1::RankInfo& rank) {
  return {{"rank", rank.rank()},
          {"agent", rank.agent()},
          {"pid", rank.process_id()},
          {"state", rank.state()},
          {"device", rank.device()},
          {"transport", rank.transport()},
          {"load_progress", rank.load_progress()},
          {"weight_bytes", rank.weight_bytes()},
          {"kv_bytes", rank.kv_bytes()},
          {"planned", ToJson(rank.planned())},
          {"allocated", ToJson(rank.allocated())},
          {"restarts", rank.restarts()}};
}

nlohmann::ordered_json ToJson(const v1::DataParallelGroup& group) {
  return {{"ranks", group.ranks()},
          {"running", group.running()},
          {"waiting", group.waiting()},
          {"paused", group.paused()},
          {"kv_blocks_used", group.kv_blocks_used()},
          {"kv_blocks_cached", group.kv_blocks_cached()},
          {"kv_blocks_total", group.kv_blocks_total()},
          {"prompt_tokens", group.prompt_tokens()},
          {"preemptions", group.preemptions()},
          {"prefix_queried_tokens", group.prefix_queried_tokens()},
          {"prefix_hit_tokens", group.prefix_hit_tokens()}};
}

nlohmann::ordered_json ToJson(const v1::AgentInfo& agent) {
  return {{"name", agent.name()},   {"state", agent.state()}, {"address", agent.address()},
          {"cores", agent.cores()}, {"ranks", agent.ranks()}, {"loss", agent.loss()}};
}

double Mebibytes(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

void PrintAgent(const v1::AgentInfo& agent) {
  const std::string ranks = agent.ranks().empty()
                                ? "no ranks yet"
                                : absl::StrCat("ranks ", absl::StrJoin(agent.ranks(), ", "));
  if (agent.state() == "joined") {
    absl::PrintF("agent      %s, joined, at %s, %d cores, %s\n", agent.name(),
                 agent.address().empty() ? "this process" : agent.address(), agent.cores(), ranks);
  } else {
    absl::PrintF("agent      awaited, %s%s%s\n", ranks, agent.loss().empty() ? "" : "; ",
                 agent.loss());
  }
}

void PrintGroup(int number, const v1::DataParallelGroup& group) {
  absl::PrintF(
      "group %-4d ranks %s, %d running, %d waiting, %d of %d kv blocks used, %d cached, %d of %d "
      "prefix tokens found\n",
      number, absl::StrJoin(group.ranks(), ", "), group.running(), group.waiting(),
      group.kv_blocks_used(), group.kv_blocks_total(), group.kv_blocks_cached(),
      group.prefix_hit_tokens(), group.prefix_queried_tokens());
}

// What was planned beside what was allocated, by kind.
void PrintMemory(const v1::RankInfo& rank) {
  const v1::RankMemory& planned = rank.planned();
  const v1::RankMemory& allocated = rank.allocated();
  const auto pair = [](StringView kind, int64_t planned_bytes, int64_t allocated_bytes) {
    return absl::StrFormat("%s %.1f / %.1f", kind, Mebibytes(planned_bytes),
                           Mebibytes(allocated_bytes));
  };
  absl::PrintF("           MiB planned / allocated: %s, %s, %s\n",
               pair("weights", planned.weight_bytes(), allocated.weight_bytes()),
               pair("KV", planned.kv_bytes(), allocated.kv_bytes()),
               pair("workspace", planned.workspace_bytes(), allocated.workspace_bytes()));
}

void PrintRank(const v1::RankInfo& rank) {
  if (rank.agent().empty()) {
    absl::PrintF("rank %-5d %s, awaits a node, %d restarts\n", rank.rank(), rank.state(),
                 rank.restarts());
    return;
  }
  absl::PrintF("rank %-5d %s, pid %d on %s, %s, loaded %.0f%%, %d weight bytes, %d restarts\n",
               rank.rank(), rank.state(), rank.process_id(), rank.agent(), rank.device(),
               100 * rank.load_progress(), rank.weight_bytes(), rank.restarts());
  if (!rank.transport().empty()) absl::PrintF("           %s\n", rank.transport());
  if (rank.has_planned() && rank.planned().weight_bytes() > 0) PrintMemory(rank);
}

void PrintExperts(const v1::Load& load) {
  const auto& hits = load.expert_hits();
  if (hits.empty()) return;
  const double mean = std::accumulate(hits.begin(), hits.end(), 0.0) / hits.size();
  const auto busiest = std::max_element(hits.begin(), hits.end());
  absl::PrintF("experts    %d, the busiest %d with %.2f times the mean of %.0f rows, %d unused\n",
               hits.size(), busiest - hits.begin(),
               mean > 0 ? static_cast<double>(*busiest) / mean : 1.0, mean,
               std::count(hits.begin(), hits.end(), 0u));
}

void PrintTable(const v1::Load& load) {
  absl::PrintF("state      %s\n", load.state());
  absl::PrintF("epoch      %d\n", load.epoch());
  absl::PrintF("requests   %d running, %d waiting (%d of them paused), %d finished, %d preempted\n",
               load.running(), load.waiting(), load.paused(), load.requests_finished(),
               load.preemptions());
  absl::PrintF("kv blocks  %d of %d used, %d cached, %d tokens each\n", load.kv_blocks_used(),
               load.kv_blocks_total(), load.kv_blocks_cached(), load.block_size());
  absl::PrintF("prefixes   %d of %d tokens found in the cache\n", load.prefix_hit_tokens(),
               load.prefix_queried_tokens());
  absl::PrintF("steps      %d, the last took %.2f ms\n", load.steps(),
               load.last_step_milliseconds());
  absl::PrintF("tokens     %d of prompts, %d generated\n", load.prompt_tokens(),
               load.generated_tokens());
  PrintExperts(load);
  if (load.state() != "serving") absl::PrintF("awaited    %s\n", load.awaited());
  for (int group = 0; load.groups_size() > 1 && group < load.groups_size(); ++group) {
    PrintGroup(group, load.groups(group));
  }
  for (const v1::AgentInfo& agent : load.agents()) PrintAgent(agent);
  for (const v1::RankInfo& rank : load.ranks()) PrintRank(rank);
}

}  // namespace

nlohmann::ordered_json ToJson(const v1::Load& load) {
  nlohmann::ordered_json ranks = nlohmann::ordered_json::array();
  for (const v1::RankInfo& rank : load.ranks()) ranks.push_back(ToJson(rank));
  nlohmann::ordered_json agents = nlohmann::ordered_json::array();
  for (const v1::AgentInfo& agent : load.agents()) agents.push_back(ToJson(agent));
  nlohmann::ordered_json groups = nlohmann::ordered_json::array();
  for (const v1::DataParallelGroup& group : load.groups()) groups.push_back(ToJson(group));
  return {{"state", load.state()},
          {"epoch", load.epoch()},
          {"running", load.running()},
          {"waiting", load.waiting()},
          {"kv_blocks_used", load.kv_blocks_used()},
          {"kv_blocks_total", load.kv_blocks_total()},
          {"block_size", load.block_size()},
          {"awaited", load.awaited()},
          {"agents", agents},
          {"ranks", ranks},
          {"steps", load.steps()},
          {"requests_finished", load.requests_finished()},
          {"prompt_tokens", load.prompt_tokens()},
          {"generated_tokens", load.generated_tokens()},
          {"last_step_milliseconds", load.last_step_milliseconds()},
          {"paused", load.paused()},
          {"kv_blocks_cached", load.kv_blocks_cached()},
          {"preemptions", load.preemptions()},
          {"prefix_queried_tokens", load.prefix_queried_tokens()},
          {"prefix_hit_tokens", load.prefix_hit_tokens()},
          {"expert_hits", load.expert_hits()},
          {"groups", groups}};
}

int RunStatus(const StatusOptions& options) {
  grpc::ClientContext context;
  SetTimeout(options.timeout, context);
  v1::Load load;
  const grpc::Status status =
      v1::Control::NewStub(Connect(options.server))->GetLoad(&context, {}, &load);
  if (!status.ok()) return PrintError(options.server, status);
  if (options.json) {
    PrintJson(ToJson(load));
  } else {
    PrintTable(load);
  }
  return 0;
}

}  // namespace cohort
