// Which waiting requests begin: the order, the prefixes they find computed already, and the slots
// and blocks they need.
#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "runtime/scheduler_state.h"

namespace cohort {
namespace {

constexpr int kMaxHeldBack = 32;  // bounds the work of a plan that admits nobody

// After so many ids of history no more are admitted to a plan: links buffer a plan of some size
// while the ranks still compute the one before (launcher/epoch_memory.cc).
constexpr size_t kMaxHistoryIds = size_t{1} << 16;

}  // namespace

// The most urgent first; one that does not fit yet holds back those behind it, so none starves
// among its equals. Who only waits for a prefix that is being computed lets the others pass.
void Scheduler::State::PlanAdmissions(int64_t budget, StepPlan& plan) {
  if (budget <= 0 || waiting_.empty()) {
    return;
  }
  demand_ = DemandOfRunning();
  int held_back = 0;
  size_t history_ids = 0;
  for (auto next = waiting_.begin();
       budget > 0 && history_ids < kMaxHistoryIds && next != waiting_.end();) {
    Sequence& candidate = **next;
    if (free_slots_.empty() && !CouldFindSlot(candidate)) {
      return;
    }
    const Prefix prefix = FindPrefix(candidate);
    if (prefix.is_coming) {
      if (++held_back == kMaxHeldBack) {
        return;
      }
      ++next;
      continue;
    }
    if (!FindSlot(candidate) || !FindBlocks(candidate, prefix)) {
      return;
    }
    ++next;
    Admit(candidate, prefix, plan);
    history_ids += plan.admits.back().history.size();
    const int64_t rows = PlanRows(candidate, budget, plan);
    CHECK_GT(rows, 0) << "request " << candidate.id() << " was admitted without rows";
    budget -= rows;
    demand_ += DemandOf(candidate, static_cast<int64_t>(candidate.blocks.size()));
  }
}

// The cached blocks that `tokens` begin with. Never all of it: the last token is computed, for what
// comes after it is chosen from that row.
std::vector<PrefixCache::Found> Scheduler::State::CachedBlocks(
    PrefixCache::Node root, absl::Span<const int32_t> tokens) const {
  std::vector<PrefixCache::Found> blocks;
  const size_t size = static_cast<size_t>(options_.block_size);
  for (size_t begin = 0; begin + size < tokens.size(); begin += size) {
    const auto found =
        cache_.Find(blocks.empty() ? root : blocks.back().node, tokens.subspan(begin, size));
    if (!found.has_value()) {
      break;
    }
    blocks.push_back(*found);
  }
  return blocks;
}

int64_t Scheduler::State::CachedTokens(const Request& request) const {
  if (!options_.prefix_caching || !Sequence::MayReadCache(request)) {
    return 0;
  }
  const std::string salt = CacheSalt(request, static_cast<int64_t>(request.prompt.size()));
  const auto blocks = CachedBlocks(cache_.FindRoot(salt), request.prompt);
  return static_cast<int64_t>(blocks.size()) * options_.block_size;
}

PrefixCache::Node Scheduler::State::RootOf(const Sequence& sequence) {
  return cache_.Root(CacheSalt(sequence.request(), sequence.prompt_tokens()));
}

Scheduler::State::Prefix Scheduler::State::FindPrefix(const Sequence& sequence) {
  Prefix prefix;
  if (!options_.prefix_caching || !sequence.may_read_cache()) {
    return prefix;
  }
  const PrefixCache::Node root = RootOf(sequence);
  prefix.blocks = CachedBlocks(root, sequence.tokens());
  const size_t size = static_cast<size_t>(options_.block_size);
  const size_t begin = prefix.blocks.size() * size;
  if (begin + size < sequence.tokens().size()) {
    const PrefixCache::Node node = prefix.blocks.empty() ? root : prefix.blocks.back().node;
    prefix.is_coming =
        next_blocks_.contains(absl::HashOf(node, sequence.tokens().subspan(begin, size)));
  }
  return prefix;
}

// The sequence has rows of prefill in this plan: who needs its next block too can find it in the
// next plan. By hash: an accident only makes somebody wait for one plan more.
void Scheduler::State::AnnounceBlock(const Sequence& sequence) {
  const size_t size = static_cast<size_t>(options_.block_size);
  const size_t begin = static_cast<size_t>(sequence.blocks_cached) * size;
  if (options_.prefix_caching && begin + size <= sequence.tokens().size()) {
    next_blocks_.insert(absl::HashOf(sequence.cache_node, sequence.tokens().subspan(begin, size)));
  }
}

// Blocks that a sequence which has `blocks` still needs for what is known of it, and the one after.
int64_t Scheduler::State::DemandOf(const Sequence& sequence, int64_t blocks) const {
  const int64_t prefill = std::max(CeilDivide(sequence.prefill_end(), options_.block_size), blocks);
  const bool grows = prefill < CeilDivide(sequence.positions_needed(), options_.block_size);
  return prefill - blocks + (grows ? 1 : 0);
}

int64_t Scheduler::State::DemandOfRunning() const {
  int64_t demand = 0;
  for (const Sequence* sequence : running_) {
    if (!sequence->paused && !sequence->preempted) {
      demand += DemandOf(*sequence, static_cast<int64_t>(sequence->blocks.size()));
    }
  }
  return demand;
}

// Whom a waiting request may displace, in this order: paused sequences, then those of smaller
// priority, the least urgent first.
std::vector<Sequence*> Scheduler::State::VictimsFor(const Sequence& candidate) const {
  std::vector<Sequence*> victims;
  for (const bool paused : {true, false}) {
    for (auto other = running_.rbegin(); other != running_.rend(); ++other) {
      const bool yields = paused || (*other)->request().priority < candidate.request().priority;
      if ((*other)->paused == paused && !(*other)->preempted && yields) {
        victims.push_back(*other);
      }
    }
  }
  return victims;
}

// Whether somebody may give up a slot. None does while one is on its way back.
bool Scheduler::State::CouldFindSlot(const Sequence& candidate) const {
  const bool is_coming = !ending_.empty() || preempting_ > 0;
  return !is_coming &&
         (paused_ > 0 || running_.back()->request().priority < candidate.request().priority);
}

bool Scheduler::State::FindSlot(const Sequence& candidate) {
  if (free_slots_.empty() && CouldFindSlot(candidate)) {
    if (const std::vector<Sequence*> victims = VictimsFor(candidate); !victims.empty()) {
      Preempt(*victims.front());
      demand_ = DemandOfRunning();
    }
  }
  return !free_slots_.empty();
}

// Whether the blocks of the whole sequence as it is known now, and those that running ones are
// about to reach, are available. Preempts for it only where that is enough.
bool Scheduler::State::FindBlocks(const Sequence& candidate, const Prefix& prefix) {
  const auto missing = [&] {
    // Cached blocks that nobody uses yet are available until this one takes them.
    const int64_t taken = std::count_if(
        prefix.blocks.begin(), prefix.blocks.end(),
        [this](const PrefixCache::Found& found) { return pool_.references(found.block) == 0; });
    return DemandOf(candidate, static_cast<int64_t>(prefix.blocks.size())) + demand_ + taken -
           pool_.available();
  };
  if (missing() <= 0) {
    return true;
  }
  std::vector<Sequence*> chosen;
  FreedBlocks freed = blocks_coming();
  int64_t released_demand = 0;
  const auto suffices = [&] {
    return freed.count() - blocks_claimed_ + released_demand >= missing();
  };
  for (Sequence* victim : VictimsFor(candidate)) {
    if (suffices()) {
      break;
    }
    chosen.push_back(victim);
    freed.Add(*victim);
    released_demand +=
        victim->paused ? 0 : DemandOf(*victim, static_cast<int64_t>(victim->blocks.size()));
  }
  if (!suffices()) {
    return false;
  }
  for (Sequence* victim : chosen) {
    Preempt(*victim);
  }
  demand_ = DemandOfRunning();
  return missing() <= 0;
}

void Scheduler::State::Admit(Sequence& sequence, const Prefix& prefix, StepPlan& plan) {
  Dequeue(sequence);
  running_.insert(std::upper_bound(running_.begin(), running_.end(), &sequence, MoreUrgent()),
                  &sequence);
  const uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  slots_to_release_.erase(slot);  // the admission resets it
  sequence.cache_node = RootOf(sequence);
  for (const PrefixCache::Found& found : prefix.blocks) {
    pool_.AddReference(found.block);
    sequence.blocks.push_back(found.block);
    sequence.cache_node = found.node;
  }
  sequence.blocks_cached = static_cast<int64_t>(prefix.blocks.size());
  const int64_t cached = sequence.blocks_cached * options_.block_size;
  if (options_.prefix_caching && sequence.is_new() && sequence.may_read_cache()) {
    counts_.prefix_queried_tokens += static_cast<uint64_t>(sequence.prompt_tokens());
    counts_.prefix_hit_tokens += static_cast<uint64_t>(cached);
  }
  plan.admits.push_back(sequence.Admit(slot, cached, options_.eos_token_ids));
}

}  // namespace cohort
