// Random operations on a scheduler whose plans a hash rank executes: what is delivered must be what
// the model says, whatever was cancelled, lost or in flight, and nothing may leak.
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
  bool cancelled = false;
  std::optional<Finish> finish;
};

class RandomRun {
 public:
  explicit RandomRun(uint64_t seed)
      : random_(seed),
        options_(MakeOptions()),
        depth_(1 + static_cast<int64_t>(random_() % 3)),
        model_{.vocabulary = 30, .nan_one_in = 60},
        scheduler_(options_) {
    StartEpoch();
  }

  void Run(int operations) {
    for (int i = 0; i < operations && !testing::Test::HasFatalFailure(); ++i) {
      switch (random_() % 8) {
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
        default:
          CommitOne();
      }
      CheckCounts();
    }
    Finish();
  }

 private:
  SchedulerOptions MakeOptions() {
    SchedulerOptions options;
    options.blocks = 4 + static_cast<int64_t>(random_() % 40);
    options.block_size = 1 + static_cast<int64_t>(random_() % 5);
    options.max_running = 1 + static_cast<int64_t>(random_() % 8);
    options.max_batch_tokens = 1 + static_cast<int64_t>(random_() % 20);
    options.max_model_len = 40;
    options.max_waiting = 10;
    options.eos_token_ids = {kEos};
    return options;
  }

  void Add() {
    Request request;
    for (uint64_t i = 1 + random_() % 14; i > 0; --i) {
      request.prompt.push_back(static_cast<int32_t>(random_() % 30));
    }
    request.sampling.seed = random_();
    request.stopping.max_tokens = 1 + static_cast<int64_t>(random_() % 20);
    request.stopping.ignore_eos = random_() % 3 == 0;
    if (random_() % 4 == 0) {
      request.stopping.stop_token_ids = {5, 6};
    }
    request.score = random_() % 5 == 0;
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

  // No slot or block that a plan in flight names begins a new life in `plan`.
  void CheckReuse(const StepPlan& plan) {
    for (const AdmitSequence& admit : plan.admits) {
      for (const InFlight& sent : in_flight_) {
        ASSERT_EQ(sent.slots.count(admit.slot), 0u) << "slot " << admit.slot;
      }
      table_of_slot_[admit.slot].clear();
    }
    for (const SequenceRows& rows : plan.rows) {
      for (const int32_t block : rows.appended_blocks) {
        for (const InFlight& sent : in_flight_) {
          ASSERT_EQ(sent.blocks.count(block), 0u) << "block " << block;
        }
        table_of_slot_[rows.slot].push_back(block);
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
    tracked.finish = update.finish;
    if (update.finish.has_value()) {
      CheckOutcome(tracked);
    }
  }

  void CheckOutcome(const Tracked& tracked) {
    const ExpectedOutcome expected = Expect(model_, tracked.request, options_.eos_token_ids);
    ASSERT_EQ(tracked.finish->prompt_tokens, static_cast<int64_t>(tracked.request.prompt.size()));
    ASSERT_EQ(tracked.finish->completion_tokens, static_cast<int64_t>(tracked.tokens.size()));
    if (tracked.cancelled) {
      ASSERT_LE(tracked.tokens.size(), expected.tokens.size());
      ASSERT_TRUE(
          std::equal(tracked.tokens.begin(), tracked.tokens.end(), expected.tokens.begin()));
      return;
    }
    ASSERT_EQ(tracked.tokens, expected.tokens);
    ASSERT_EQ(tracked.finish->reason, expected.reason);
    ASSERT_EQ(tracked.finish->status.ok(), expected.reason != FinishReason::kError);
    ASSERT_EQ(tracked.finish->prompt_logprobs, expected.prompt_logprobs);
  }

  void CheckCounts() {
    ASSERT_LE(scheduler_.running(), scheduler_.options().max_running);
    ASSERT_EQ(scheduler_.in_flight(), static_cast<int64_t>(in_flight_.size()));
    ASSERT_EQ(scheduler_.running() + scheduler_.waiting(),
              static_cast<int64_t>(scheduler_.unfinished().size()));
    if (scheduler_.idle()) {
      ASSERT_EQ(scheduler_.blocks().used(), 0);
    }
  }

  // Everything left comes to its end without further operations.
  void Finish() {
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
  for (uint64_t seed = 0; seed < 150; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    RandomRun(seed).Run(400);
    if (testing::Test::HasFatalFailure()) {
      return;
    }
  }
}

}  // namespace
}  // namespace cohort
