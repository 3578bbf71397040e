#include "launcher/agent_seats.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_join.h"
#include "kernels/check.h"

namespace cohort {
namespace {

std::string Describe(const AgentDescription& agent) {
  return agent.address.empty() ? absl::StrCat("agent '", agent.name, "'")
                               : absl::StrCat("agent '", agent.name, "' at ", agent.address);
}

}  // namespace

std::vector<int> ShareRanks(int ranks, const std::vector<int>& cores) {
  CHECK_GE(ranks, static_cast<int>(cores.size()));
  std::vector<int> counts(cores.size(), 1);
  // The next rank goes where it leaves most cores to each; the first of equals.
  for (int given = static_cast<int>(cores.size()); given < ranks; ++given) {
    size_t best = 0;
    for (size_t i = 1; i < cores.size(); ++i) {
      const int64_t with_i = int64_t{std::max(1, cores[i])} * (counts[best] + 1);
      const int64_t with_best = int64_t{std::max(1, cores[best])} * (counts[i] + 1);
      if (with_i > with_best) best = i;
    }
    ++counts[best];
  }
  return counts;
}

AgentSeats::AgentSeats(int agents, int ranks) : ranks_(ranks), seats_(static_cast<size_t>(agents)) {
  CHECK_GE(agents, 1);
  CHECK_GE(ranks, agents);
}

// The coordinator's own agent comes first, whoever joins before it.
int AgentSeats::FreeSeat(bool local) const {
  const size_t count = seats_.size();
  const size_t begin = local || count == 1 ? 0 : 1;
  const size_t end = local ? 1 : count;
  for (size_t i = begin; i < end; ++i) {
    if (!seats_[i].taken) return static_cast<int>(i);
  }
  return -1;
}

bool AgentSeats::Contains(const std::string& agent) const {
  return std::any_of(seats_.begin(), seats_.end(),
                     [&](const Seat& seat) { return seat.taken && seat.agent.name == agent; });
}

int AgentSeats::taken() const {
  return static_cast<int>(
      std::count_if(seats_.begin(), seats_.end(), [](const Seat& seat) { return seat.taken; }));
}

Range AgentSeats::Join(const AgentDescription& agent) {
  const int free = FreeSeat(agent.local);
  CHECK_GE(free, 0) << "no place for agent '" << agent.name << "'";
  Seat& seat = seats_[static_cast<size_t>(free)];
  seat.agent = agent;
  seat.taken = true;
  seat.loss.clear();
  if (!decided_ && taken() == static_cast<int>(seats_.size())) Decide();
  return seat.ranks;
}

void AgentSeats::Decide() {
  std::vector<int> cores;
  for (const Seat& seat : seats_) cores.push_back(seat.agent.cores);
  int64_t begin = 0;
  size_t next = 0;
  for (const int count : ShareRanks(ranks_, cores)) {
    seats_[next++].ranks = {begin, begin + count};
    begin += count;
  }
  decided_ = true;
}

Range AgentSeats::Lose(const std::string& agent, const std::string& reason) {
  for (Seat& seat : seats_) {
    if (!seat.taken || seat.agent.name != agent) continue;
    seat.taken = false;
    seat.loss = absl::StrCat(Describe(seat.agent), " was lost: ", reason);
    return seat.ranks;
  }
  return {};
}

int AgentSeats::SeatOf(int rank) const {
  for (size_t i = 0; i < seats_.size(); ++i) {
    if (rank >= seats_[i].ranks.begin && rank < seats_[i].ranks.end) return static_cast<int>(i);
  }
  CHECK(false) << "rank " << rank << " has no place";
  return -1;
}

std::string AgentSeats::Awaited() const {
  std::vector<std::string> losses;
  for (const Seat& seat : seats_) {
    if (!seat.taken && !seat.loss.empty()) losses.push_back(seat.loss);
  }
  const int missing = static_cast<int>(seats_.size()) - taken();
  if (missing == 0) return "";
  return absl::StrCat(missing, " more ", missing == 1 ? "agent" : "agents", " to join, of ",
                      seats_.size(), losses.empty() ? "" : " (", absl::StrJoin(losses, "; "),
                      losses.empty() ? "" : ")");
}

std::vector<AgentStatus> AgentSeats::status() const {
  std::vector<AgentStatus> all;
  for (const Seat& seat : seats_) {
    AgentStatus& status = all.emplace_back();
    status.state = seat.taken ? "joined" : seat.loss.empty() ? "awaited" : "lost";
    status.name = seat.agent.name;
    status.address = seat.agent.address;
    status.cores = seat.agent.cores;
    status.first_rank = static_cast<int>(seat.ranks.begin);
    status.ranks = static_cast<int>(seat.ranks.size());
    status.loss = seat.loss;
  }
  return all;
}

}  // namespace cohort
