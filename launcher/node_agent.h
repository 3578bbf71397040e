// The agent of one node: keeps a session with the coordinator, runs the ranks that it assigns and
// reports what becomes of them. When the session is lost its ranks are killed (they must not answer
// a group that has moved on) and the agent joins anew. One thread does all of it, but for what
// passes between the session and the rings of its ranks (StepRelay).
#ifndef COHORT_LAUNCHER_NODE_AGENT_H_
#define COHORT_LAUNCHER_NODE_AGENT_H_

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "launcher/agent_roster.h"
#include "launcher/rank_links.h"

namespace cohort {

struct NodeAgentOptions {
  std::string name = "local";
  std::string address;      // of this node, for the ranks of others; empty: there are none
  std::string model;        // this node's path of the checkpoint; empty: the coordinator's
  std::string coordinator;  // a gRPC target
  std::string token;        // of the coordinator's start, or the join token
  std::string rank_executable = "/proc/self/exe";  // run as `... rank --control-fd N`
  HeartbeatOptions heartbeat;                      // until the coordinator says otherwise
  absl::Duration exit_grace = absl::Seconds(2);    // from "please exit" to SIGKILL
  // Of the agent in the coordinator's process: where its ranks' rings go; outlives the agent. Null
  // on another node, whose agent
  //   - joins anew when the coordinator has shut down, and is done only when it is told to stop, is
  //     refused for good, or has not been in the group for join_timeout;
  //   - passes plans and results on itself.
  RankLinks* links = nullptr;
  absl::Duration join_timeout = absl::InfiniteDuration();
};

class NodeAgent {
 public:
  static std::unique_ptr<NodeAgent> Start(NodeAgentOptions options);
  ~NodeAgent();  // kills and reaps what is left

  // The agent leaves the group, its ranks are asked to exit. Any thread.
  void Stop(const std::string& reason);

  // True once the agent has ended and its ranks are gone; false after `timeout`.
  bool WaitUntilDone(absl::Duration timeout);
  // Why the agent gave up; OK unless it has.
  absl::Status failure() const;

 private:
  class State;
  explicit NodeAgent(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_NODE_AGENT_H_
