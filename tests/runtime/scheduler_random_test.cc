// Random operations on a scheduler whose plans a hash rank executes: what is delivered must be what
// the model says, whatever was cached, preempted, paused, cancelled, lost or in flight, and nothing
// may leak.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <set>

#include "runtime/scheduler.h"
#include "tests/runtime/paged_rank.h"

namespace cohort {
namespace {

constexpr int32_t kEos = 3;

struct Tracked {
  Request request;
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<TokenLogprob> top;
  bool cancelled = false;
  bool paused = false;
  std::optional<Finish> finish;
};

class RandomRun {
 public:
  explicit RandomRun(uint64_t seed)
      : random_(seed),
        options_(MakeOptions()),
        depth_(1 + static_cast<int64_t>(random_() % 3)),
        model_{.vocabulary = 30,
               .nan_one_in = 60,
               .extra_tokens = static_cast<int32_t>(random_() % 3)},
        scheduler_(options_) {
    StartEpoch();
  }

  void Run(int operations) {
    for (int i = 0; i < operations && !testing::Test::HasFatalFailure(); ++i) {
      switch (random_() % 10) {
        case 0:
        case 1:
          Add();
          break;
        case 2:
          CancelSomeone();
          break;
        case 3:
          if (random_() % 12 == 0) {
            StartEpoch();
          }
          break;
        case 4:
        case 5:
          if (scheduler_.in_flight() < depth_) {
            Plan();
          }
          break;
        case 6:
          PauseOrResumeSomeone();
          break;
        default:
          CommitOne();
      }
      CheckCounts();
    }
    Finish();
  }

  const SchedulerCounts& counts() const { return scheduler_.counts(); }

 private:
  SchedulerOptions MakeOptions() {
    SchedulerOptions options;
    options.blocks = 4 + static_cast<int64_t>(random_() % 40);
    options.block_size = 1 + static_cast<int64_t>(random_() % 5);
    options.max_running = 1 + static_cast<int64_t>(random_() % 8);
    options.max_batch_tokens = 1 + static_cast<int64_t>(random_() % 20);
    options.max_prefill_tokens = 1 + static_cast<int64_t>(random_() % 20);
    options.prefix_caching = random_() % 6 != 0;
    options.max_model_len = 40;
    options.max_waiting = 10;
    options.eos_token_ids = {kEos};
    return options;
  }

  // Prompts begin alike, so that prefixes are found.
  std::vector<int32_t> RandomPrompt() {
    std::vector<int32_t> prompt(1 + random_() % 14);
    const int32_t family = static_cast<int32_t>(random_() % 3);
    for (size_t i = 0; i < prompt.size(); ++i) {
      prompt[i] = (family + static_cast<int32_t>(i)) % 30;
    }
    if (random_() % 2 == 0) {
      prompt.back() = static_cast<int32_t>(random_() % 30);
    }
    return prompt;
  }

  Request RandomRequest() {
    Request request;
    request.prompt = RandomPrompt();
    request.sampling.seed = random_() % 4;
    request.sampling.logprobs = static_cast<int32_t>(random_() % 4) - 1;
    request.sampling.presence_penalty = random_() % 4 == 0 ? 1 : 0;  // needs the history
    request.sequence_index = random_() % 3;
    request.stopping.max_tokens = 1 + static_cast<int64_t>(random_() % 20);
    request.stopping.min_tokens = static_cast<int64_t>(random_() % 3);
    request.stopping.ignore_eos = random_() % 3 == 0;
    if (random_() % 4 == 0) {
      request.stopping.stop_token_ids = {5, 6};
    }
    request.score = random_() % 6 == 0;
    request.prompt_logprobs = random_() % 5 == 0 ? static_cast<int32_t>(random_() % 3) : -1;
    request.priority = static_cast<int32_t>(random_() % 3) - 1;
    request.cache_salt = random_() % 4 == 0 ? "salt" : "";
    request.bypass_prefix_cache = random_() % 8 == 0;
    return request;
  }

  void Add() {
    const Request request = RandomRequest();
    const RequestId id = ++last_id_;
    const absl::Status status = scheduler_.Add(id, request);
    if (status.ok()) {
      requests_[id].request = request;
    } else {
      ASSERT_TRUE(status.code() == absl::StatusCode::kInvalidArgument ||
                  scheduler_.waiting() >= options_.max_waiting)
          << status;
    }
  }

  void CancelSomeone() {
    const RequestId id = 1 + random_() % (last_id_ + 1);
    const auto found = requests_.find(id);
    cohort::Finish finish;
    finish.reason = FinishReason::kCancelled;
    const std::optional<RequestUpdate> update = scheduler_.Cancel(id, finish);
    ASSERT_EQ(update.has_value(), found != requests_.end() && !found->second.finish.has_value());
    if (update.has_value()) {
      found->second.cancelled = true;
      Take(*update);
    }
  }

  void PauseOrResumeSomeone() {
    const RequestId id = 1 + random_() % (last_id_ + 1);
    const bool pause = random_() % 3 == 0;
    scheduler_.SetPaused(id, pause);
    if (const auto found = requests_.find(id); found != requests_.end()) {
      found->second.paused = pause;
    }
  }

  void StartEpoch() {
    const std::vector<RequestId> before = scheduler_.unfinished();
    scheduler_.Requeue(++epoch_);
    ASSERT_EQ(scheduler_.unfinished(), before) << "the order of arrival";
    ASSERT_TRUE(std::is_sorted(before.begin(), before.end()));
    ASSERT_EQ(scheduler_.blocks().used(), 0);
    rank_.emplace(model_, options_, epoch_);
    in_flight_.clear();
    table_of_slot_.clear();
  }

  // What a plan in flight names.
  struct InFlight {
    StepResult result;
    std::set<uint32_t> slots;
    std::set<int32_t> blocks;
  };

  bool Plan() {
    const std::optional<StepPlan> plan = scheduler_.Next();
    if (!plan.has_value()) {
      return false;
    }
    EXPECT_FALSE(plan->rows.empty());
    CheckReuse(*plan);
    auto decoded = DecodeStepPlan(Encode(*plan));
    EXPECT_TRUE(decoded.ok()) << decoded.status();
    auto result = rank_->Run(*decoded);
    EXPECT_TRUE(result.ok()) << result.status();
    if (!result.ok()) {
      return false;
    }
    InFlight entry{.result = *std::move(result), .slots = {}, .blocks = {}};
    for (const SequenceRows& rows : plan->rows) {
      const std::vector<int32_t>& table = table_of_slot_[rows.slot];
      entry.slots.insert(rows.slot);
      entry.blocks.insert(table.begin(), table.end());
    }
    in_flight_.push_back(std::move(entry));
    return true;
  }

  // No slot or block that a plan in flight names begins a new life in `plan`; the blocks of a
  // cached prefix go on with the one they have.
  void CheckReuse(const StepPlan& plan) {
    std::map<uint32_t, size_t> cached;  // blocks of slots that are admitted
    for (const AdmitSequence& admit : plan.admits) {
      for (const InFlight& sent : in_flight_) {
        ASSERT_EQ(sent.slots.count(admit.slot), 0u) << "slot " << admit.slot;
      }
      table_of_slot_[admit.slot].clear();
      cached[admit.slot] = admit.first_position / static_cast<uint64_t>(options_.block_size);
    }
    for (const SequenceRows& rows : plan.rows) {
      for (const int32_t block : rows.appended_blocks) {
        std::vector<int32_t>& table = table_of_slot_[rows.slot];
        for (const InFlight& sent : in_flight_) {
          ASSERT_TRUE(table.size() < cached[rows.slot] || sent.blocks.count(block) == 0)
              << "block " << block;
        }
        table.push_back(block);
      }
    }
    for (const uint32_t slot : plan.releases) {
      ASSERT_TRUE(std::none_of(plan.rows.begin(), plan.rows.end(),
                               [&](const SequenceRows& rows) { return rows.slot == slot; }));
      table_of_slot_.erase(slot);
    }
  }

  void CommitOne() {
    if (in_flight_.empty()) {
      return;
    }
    const StepResult result = std::move(in_flight_.front().result);
    in_flight_.pop_front();
    for (const RequestUpdate& update : scheduler_.Commit(result)) {
      Take(update);
    }
  }

  void Take(const RequestUpdate& update) {
    Tracked& tracked = requests_.at(update.id);
    ASSERT_FALSE(tracked.finish.has_value()) << "request " << update.id << " finished before";
    ASSERT_EQ(update.first_index, static_cast<int64_t>(tracked.tokens.size()));
    tracked.tokens.insert(tracked.tokens.end(), update.tokens.begin(), update.tokens.end());
    tracked.logprobs.insert(tracked.logprobs.end(), update.logprobs.begin(), update.logprobs.end());
    tracked.top.insert(tracked.top.end(), update.top.begin(), update.top.end());
    tracked.finish = update.finish;
    if (update.finish.has_value()) {
      CheckOutcome(tracked);
    }
  }

  void CheckOutcome(const Tracked& tracked) {
    const ExpectedOutcome expected = Expect(model_, tracked.request, options_.eos_token_ids);
    ASSERT_EQ(tracked.finish->prompt_tokens, static_cast<int64_t>(tracked.request.prompt.size()));
    ASSERT_EQ(tracked.finish->completion_tokens, static_cast<int64_t>(tracked.tokens.size()));
    ASSERT_LT(tracked.finish->cached_tokens, tracked.finish->prompt_tokens);
    ASSERT_EQ(tracked.finish->cached_tokens % options_.block_size, 0);
    if (tracked.cancelled) {
      ASSERT_LE(tracked.tokens.size(), expected.tokens.size());
      ASSERT_TRUE(
          std::equal(tracked.tokens.begin(), tracked.tokens.end(), expected.tokens.begin()));
      return;
    }
    ASSERT_EQ(tracked.tokens, expected.tokens);
    ASSERT_EQ(tracked.finish->reason, expected.reason);
    ASSERT_EQ(tracked.finish->status.ok(), expected.reason != FinishReason::kError);
    ASSERT_EQ(tracked.logprobs, expected.logprobs);
    ASSERT_EQ(tracked.top, expected.top);
    ASSERT_EQ(tracked.finish->prompt_logprobs, expected.prompt_logprobs);
    ASSERT_EQ(tracked.finish->prompt_top, expected.prompt_top);
  }

  void CheckCounts() {
    ASSERT_LE(scheduler_.running(), scheduler_.options().max_running);
    ASSERT_EQ(scheduler_.in_flight(), static_cast<int64_t>(in_flight_.size()));
    ASSERT_EQ(scheduler_.running() + scheduler_.waiting(),
              static_cast<int64_t>(scheduler_.unfinished().size()));
    ASSERT_EQ(scheduler_.paused(),
              std::count_if(requests_.begin(), requests_.end(), [](const auto& entry) {
                return entry.second.paused && !entry.second.finish.has_value();
              }));
    if (scheduler_.idle()) {
      ASSERT_EQ(scheduler_.blocks().used(), 0);
    }
  }

  // Everything left comes to its end without further operations.
  void Finish() {
    for (auto& [id, tracked] : requests_) {
      scheduler_.SetPaused(id, false);
      tracked.paused = false;
    }
    for (int step = 0; !scheduler_.idle(); ++step) {
      ASSERT_LT(step, 100'000) << "no progress";
      const bool planned = scheduler_.in_flight() < depth_ && Plan();
      ASSERT_TRUE(planned || !in_flight_.empty()) << "nothing in flight and nothing to plan";
      if (!planned || random_() % 2 == 0) {
        CommitOne();
      }
      if (testing::Test::HasFatalFailure()) {
        return;
      }
    }
    ASSERT_EQ(scheduler_.blocks().used(), 0);
    for (const auto& [id, tracked] : requests_) {
      ASSERT_TRUE(tracked.finish.has_value()) << "request " << id;
    }
  }

  std::mt19937_64 random_;
  SchedulerOptions options_;
  int64_t depth_;
  HashModel model_;
  Scheduler scheduler_;
  uint64_t epoch_ = 0;
  std::optional<PagedRank> rank_;
  std::deque<InFlight> in_flight_;
  std::map<uint32_t, std::vector<int32_t>> table_of_slot_;
  RequestId last_id_ = 0;
  std::map<RequestId, Tracked> requests_;
};

TEST(SchedulerRandom, EveryRequestEndsOnceWithTheTokensOfItsOwnModel) {
  SchedulerCounts sum;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    RandomRun run(seed);
    run.Run(400);
    if (testing::Test::HasFatalFailure()) {
      return;
    }
    sum.preemptions += run.counts().preemptions;
    sum.prefix_hit_tokens += run.counts().prefix_hit_tokens;
  }
  EXPECT_GT(sum.preemptions, 500u);
  EXPECT_GT(sum.prefix_hit_tokens, 1000u);
}

}  // namespace
}  // namespace cohort
