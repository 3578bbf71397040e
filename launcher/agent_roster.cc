#include "launcher/agent_roster.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_join.h"
#include "launcher/checkpoint_report.h"
#include "launcher/log.h"
#include "launcher/task_queue.h"
#include "launcher/version.h"

namespace cohort {
namespace {

std::string AddressOf(const AgentDescription& agent) {
  return agent.address.empty() ? "this process" : agent.address;
}

}  // namespace

AgentRoster::AgentRoster(AgentRosterOptions options, Group group)
    : options_(std::move(options)),
      group_(std::move(group)),
      next_heartbeat_(SteadyNow()),
      last_tick_(next_heartbeat_) {}

bool AgentRoster::Handle(const SessionPointer& session, const v1::AgentMessage& message,
                         absl::Time now) {
  if (message.has_join()) {
    Join(session, message.join(), now);
    return false;
  }
  const auto agent = Find(session);
  if (agent == agents_.end()) {  // never joined, or dropped
    session->End(absl::UnavailableError("the agent has not joined the group"));
    return false;
  }
  agent->second.heard = now;
  switch (message.message_case()) {
    case v1::AgentMessage::kLeave:
      Drop(agent, absl::UnavailableError(message.leave().reason()));
      return false;
    case v1::AgentMessage::kCheckpoint:
      if (!agent->second.admitted) CompareCheckpoint(agent, message.checkpoint());
      return false;
    default:
      return agent->second.admitted;
  }
}

// ---- Joining ----

void AgentRoster::Join(const SessionPointer& session, const v1::Join& join, absl::Time now) {
  if (closed_) {
    session->Send(farewell_);
    session->End(absl::OkStatus());
    return;
  }
  const absl::Status check = CheckJoin(session, join);
  if (!check.ok()) {
    Refuse(session, join.agent(), check);
    return;
  }
  const auto old = agents_.find(join.agent());
  if (old != agents_.end()) Drop(old, absl::UnavailableError("it joined anew"));
  Agent& agent = agents_[join.agent()];
  agent.session = session;
  agent.description = {.name = join.agent(),
                       .address = join.address(),
                       .cores = static_cast<int>(join.cores()),
                       .local = session->is_local()};
  agent.incarnation = join.incarnation();
  agent.heard = now;
  if (agent.description.local) {  // it reads what this process has read
    Admit(agents_.find(join.agent()));
    return;
  }
  LogInfo("agent_welcome", {{"agent", join.agent()}, {"address", join.address()}});
  v1::CoordinatorMessage message;
  v1::Welcome& welcome = *message.mutable_welcome();
  welcome.set_model(options_.model);
  welcome.set_dummy_weights(options_.dummy_weights);
  welcome.set_heartbeat_period_milliseconds(absl::ToInt64Milliseconds(options_.nodes.period));
  welcome.set_heartbeat_timeout_milliseconds(absl::ToInt64Milliseconds(options_.nodes.timeout));
  session->Send(std::move(message));
}

// FAILED_PRECONDITION where trying again is of no use.
absl::Status AgentRoster::CheckJoin(const SessionPointer& session, const v1::Join& join) const {
  if (join.version() != kVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("agent '", join.agent(), "' is of version ", join.version(),
                     ", the coordinator of version ", kVersion, ": they must be the same"));
  }
  if (join.agent().empty() || join.cores() < 1) {
    return absl::FailedPreconditionError(absl::StrCat(
        "agent '", join.agent(), "' with ", join.cores(), " cores: it needs a name and a core"));
  }
  const auto namesake = agents_.find(join.agent());
  if (namesake != agents_.end()) {
    if (namesake->second.incarnation == join.incarnation()) return absl::OkStatus();
    return absl::AlreadyExistsError(
        absl::StrCat("an agent '", join.agent(), "' is there already, at ",
                     AddressOf(namesake->second.description), ": give another --name"));
  }
  if (!group_.has_room(session->is_local())) {
    return absl::ResourceExhaustedError(absl::StrCat("the group has all its agents: ", Members()));
  }
  return absl::OkStatus();
}

void AgentRoster::Refuse(const SessionPointer& session, const std::string& agent,
                         const absl::Status& why) {
  LogWarning("agent_refused",
             {{"agent", agent}, {"peer", session->peer()}, {"reason", why.message()}});
  session->End(why);
}

void AgentRoster::CompareCheckpoint(Agents::iterator agent, const v1::CheckpointReport& report) {
  absl::Status status = cohort::CompareCheckpoint(options_.checkpoint, report);
  if (status.ok() && !group_.has_room(/*local=*/false)) {  // another was quicker
    status =
        absl::ResourceExhaustedError(absl::StrCat("the group has all its agents: ", Members()));
  }
  if (status.ok()) {
    Admit(agent);
    return;
  }
  Refuse(agent->second.session, agent->first, status);
  agents_.erase(agent);
}

void AgentRoster::Admit(Agents::iterator entry) {
  Agent& agent = entry->second;
  LogInfo("agent_joined", {{"agent", entry->first},
                           {"address", AddressOf(agent.description)},
                           {"cores", agent.description.cores}});
  agent.admitted = true;
  v1::CoordinatorMessage message;
  message.mutable_admitted();
  agent.session->Send(std::move(message));
  group_.joined(agent.description);
}

// ---- Leaving ----

void AgentRoster::SessionEnded(const SessionPointer& session) {
  const auto agent = Find(session);
  if (agent == agents_.end()) return;
  if (closed_) {
    agents_.erase(agent);
  } else {
    Drop(agent, absl::UnavailableError("its session ended"));
  }
}

void AgentRoster::Drop(Agents::iterator entry, const absl::Status& status) {
  const Agent agent = std::move(entry->second);
  agents_.erase(entry);
  agent.session->End(status);
  if (!agent.admitted || closed_) return;
  LogWarning("agent_lost", {{"agent", agent.description.name},
                            {"address", AddressOf(agent.description)},
                            {"reason", status.message()}});
  group_.lost(agent.description.name, std::string(status.message()));
}

void AgentRoster::Tick(absl::Time now) {
  // A stopped process or a paused machine: the silence was our own.
  const bool was_away =
      now - last_tick_ > std::min(options_.local.timeout, options_.nodes.timeout) / 2;
  last_tick_ = now;
  for (auto next = agents_.begin(); next != agents_.end();) {
    const auto entry = next++;
    Agent& agent = entry->second;
    const absl::Duration timeout = HeartbeatOf(agent).timeout;
    if (was_away) agent.heard = now;
    if (now - agent.heard >= timeout) {
      Drop(entry, absl::UnavailableError(
                      absl::StrCat("it was silent for ", absl::FormatDuration(timeout))));
    }
  }
  if (now < next_heartbeat_) return;
  next_heartbeat_ = now + std::min(options_.local.period, options_.nodes.period);
  v1::CoordinatorMessage message;
  message.mutable_heartbeat()->set_sequence(++heartbeats_);
  for (const auto& [name, agent] : agents_) agent.session->Send(message);
}

absl::Time AgentRoster::next_deadline() const {
  absl::Time next = next_heartbeat_;
  for (const auto& [name, agent] : agents_) {
    next = std::min(next, agent.heard + HeartbeatOf(agent).timeout);
  }
  return next;
}

void AgentRoster::Close(const v1::CoordinatorMessage& farewell) {
  closed_ = true;
  farewell_ = farewell;
  for (const auto& [name, agent] : agents_) agent.session->Send(farewell);
}

// ---- Looking up ----

std::string AgentRoster::Members() const {
  std::vector<std::string> members;
  for (const auto& [name, agent] : agents_) {
    if (!agent.admitted) continue;
    members.push_back(absl::StrCat("'", name, "' at ", AddressOf(agent.description)));
  }
  return absl::StrJoin(members, ", ");
}

const HeartbeatOptions& AgentRoster::HeartbeatOf(const Agent& agent) const {
  return agent.description.local ? options_.local : options_.nodes;
}

AgentRoster::Agents::iterator AgentRoster::Find(const SessionPointer& session) {
  return std::find_if(agents_.begin(), agents_.end(),
                      [&](const auto& entry) { return entry.second.session == session; });
}

AgentRoster::SessionPointer AgentRoster::SessionOf(const std::string& agent) const {
  const auto found = agents_.find(agent);
  return found == agents_.end() || !found->second.admitted ? nullptr : found->second.session;
}

void AgentRoster::Send(const std::string& agent, const v1::CoordinatorMessage& message) {
  if (const SessionPointer session = SessionOf(agent)) session->Send(message);
}

void AgentRoster::SendToAll(const v1::CoordinatorMessage& message) {
  for (const auto& [name, agent] : agents_) {
    if (agent.admitted) agent.session->Send(message);
  }
}

}  // namespace cohort
