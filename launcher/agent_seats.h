// The places that agents have in a group. Which ranks belong to a place is decided once, when all
// places are taken for the first time, and stays: whoever takes a free place later has the ranks of
// the one before, so that the others keep theirs and every agent's ranks are consecutive. Pure.
#ifndef COHORT_LAUNCHER_AGENT_SEATS_H_
#define COHORT_LAUNCHER_AGENT_SEATS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "launcher/group_status.h"
#include "parallel/shard_plan.h"

namespace cohort {

struct AgentDescription {
  std::string name;
  std::string address;  // where the ranks of other agents reach its ranks
  int cores = 1;        // that its ranks may use
  bool local = false;   // of the coordinator's own process; it has the first place
};

// How many of `ranks` each agent gets, in order: at least one, else so that ranks per core are as
// even as possible. ranks >= cores.size().
std::vector<int> ShareRanks(int ranks, const std::vector<int>& cores);

class AgentSeats {
 public:
  struct Seat {
    AgentDescription agent;
    bool taken = false;
    Range ranks;       // empty until they are decided
    std::string loss;  // of the last agent, while the place is free
  };

  // 1 <= agents <= ranks.
  AgentSeats(int agents, int ranks);

  const std::vector<Seat>& seats() const { return seats_; }
  bool HasRoom(bool local) const { return FreeSeat(local) >= 0; }
  bool Contains(const std::string& agent) const;
  int taken() const;
  bool decided() const { return decided_; }  // which ranks belong to which place

  // Takes a place and returns its ranks, which are empty while others are awaited. There is room.
  Range Join(const AgentDescription& agent);
  // Its ranks; empty when it has none.
  Range Lose(const std::string& agent, const std::string& reason);

  int SeatOf(int rank) const;  // once decided
  // "1 more agent to join, of 2 (agent 'b' at 10.0.0.2 was lost: its session ended)"; empty when
  // all are there.
  std::string Awaited() const;
  std::vector<AgentStatus> status() const;

 private:
  int FreeSeat(bool local) const;
  void Decide();

  const int ranks_;
  bool decided_ = false;
  std::vector<Seat> seats_;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_AGENT_SEATS_H_
