// The agent of one node: keeps a session with the coordinator, runs the ranks that it assigns and
// reports what becomes of them. When the session is lost its ranks are killed (they must not answer
// a group that has moved on) and the agent joins anew. One thread does all of it.
#ifndef COHORT_LAUNCHER_NODE_AGENT_H_
#define COHORT_LAUNCHER_NODE_AGENT_H_

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "launcher/local_links.h"

namespace cohort {

struct NodeAgentOptions {
  std::string name = "local";
  int slots = 1;                                   // ranks it can host
  std::string coordinator;                         // a gRPC target
  std::string token;                               // of the coordinator's start
  std::string rank_executable = "/proc/self/exe";  // run as `... rank --control-fd N`
  absl::Duration heartbeat_period = absl::Seconds(1);
  absl::Duration heartbeat_timeout = absl::Seconds(5);
  absl::Duration exit_grace = absl::Seconds(2);  // from "please exit" to SIGKILL
  LocalLinks* links = nullptr;                   // outlives the agent
};

class NodeAgent {
 public:
  static std::unique_ptr<NodeAgent> Start(NodeAgentOptions options);
  ~NodeAgent();  // kills and reaps what is left

  // True once the coordinator has told the agent to shut down and its ranks are gone; false after
  // `timeout`.
  bool WaitUntilDone(absl::Duration timeout);

 private:
  class State;
  explicit NodeAgent(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_NODE_AGENT_H_
