// The agents' sessions at the coordinator: who may join, who is there, who has fallen silent.
// Used from the coordinator's thread; every time is SteadyNow's.
#ifndef COHORT_LAUNCHER_AGENT_ROSTER_H_
#define COHORT_LAUNCHER_AGENT_ROSTER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "cohort/v1/cluster.pb.h"
#include "launcher/agent_seats.h"
#include "launcher/cluster_service.h"
#include "runtime/checkpoint_digest.h"

namespace cohort {

// How often both ends of a session are heard of, and the silence that ends it.
struct HeartbeatOptions {
  absl::Duration period = absl::Seconds(1);
  absl::Duration timeout = absl::Seconds(5);
};

struct AgentRosterOptions {
  HeartbeatOptions local;  // of the agent in this process
  HeartbeatOptions nodes;  // of the others
  std::string model;       // as in v1::Welcome
  bool dummy_weights = false;
  std::vector<CheckpointPart> checkpoint;  // what a node's must equal
};

class AgentRoster {
 public:
  using SessionPointer = std::shared_ptr<AgentSession>;

  // Called from within the calls below.
  struct Group {
    std::function<bool(bool local)> has_room;
    std::function<void(const AgentDescription&)> joined;
    std::function<void(const std::string& agent, const std::string& reason)> lost;
  };

  AgentRoster(AgentRosterOptions options, Group group);

  // Join, CheckpointReport and Leave are dealt with here. True when the message is another one, of
  // an agent that is in the group.
  bool Handle(const SessionPointer& session, const v1::AgentMessage& message, absl::Time now);
  void SessionEnded(const SessionPointer& session);

  // Sends heartbeats and drops who is silent.
  void Tick(absl::Time now);
  absl::Time next_deadline() const;

  // To one in the group; to all in it.
  void Send(const std::string& agent, const v1::CoordinatorMessage& message);
  void SendToAll(const v1::CoordinatorMessage& message);
  // Its session; nullptr when it is not there.
  SessionPointer SessionOf(const std::string& agent) const;

  // From now on agents are told to shut down, and their ends are expected.
  void Close(const v1::CoordinatorMessage& farewell);

 private:
  struct Agent {
    SessionPointer session;
    AgentDescription description;
    uint64_t incarnation = 0;
    absl::Time heard;
    bool admitted = false;  // in the group
  };
  using Agents = std::map<std::string, Agent>;

  void Join(const SessionPointer& session, const v1::Join& join, absl::Time now);
  absl::Status CheckJoin(const SessionPointer& session, const v1::Join& join) const;
  void Admit(Agents::iterator agent);
  void Refuse(const SessionPointer& session, const std::string& agent, const absl::Status& why);
  void CompareCheckpoint(Agents::iterator agent, const v1::CheckpointReport& report);
  void Drop(Agents::iterator agent, const absl::Status& status);
  std::string Members() const;
  const HeartbeatOptions& HeartbeatOf(const Agent& agent) const;
  Agents::iterator Find(const SessionPointer& session);

  const AgentRosterOptions options_;
  const Group group_;
  Agents agents_;  // by name
  absl::Time next_heartbeat_;
  absl::Time last_tick_;
  uint64_t heartbeats_ = 0;
  bool closed_ = false;
  v1::CoordinatorMessage farewell_;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_AGENT_ROSTER_H_
