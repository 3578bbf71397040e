// Measures what the host pays for a step: Scheduler::Next, Encode and Scheduler::Commit while every
// sequence decodes. Prints one JSON object per line and number of sequences.
//
//   scheduler_bench [STEPS [SEQUENCES...]]
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "kernels/check.h"
#include "runtime/scheduler.h"
#include "runtime/step_plan.h"

namespace cohort {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kPromptTokens = 64;
constexpr int64_t kBlockSize = 16;

double MicrosecondsBetween(Clock::time_point start, Clock::time_point end) {
  return std::chrono::duration<double, std::micro>(end - start).count();
}

Scheduler MakeScheduler(int64_t sequences, int64_t steps) {
  SchedulerOptions options;
  options.max_model_len = kPromptTokens + steps + 1;
  options.block_size = kBlockSize;
  options.blocks = sequences * (options.max_model_len / kBlockSize + 2);
  options.max_running = sequences;
  options.max_batch_tokens = std::max<int64_t>(512, 2 * sequences);
  options.max_prefill_tokens = options.max_batch_tokens;
  options.max_waiting = sequences;
  options.eos_token_ids = {0};
  return Scheduler(options);
}

// Distinct prompts: nothing to share between sequences.
void AddRequests(Scheduler& scheduler, int64_t sequences, int64_t steps) {
  for (int64_t sequence = 0; sequence < sequences; ++sequence) {
    Request request;
    for (int64_t i = 0; i < kPromptTokens; ++i) {
      request.prompt.push_back(static_cast<int32_t>(1 + sequence * kPromptTokens + i));
    }
    request.stopping.max_tokens = steps;
    request.stopping.ignore_eos = true;
    const absl::Status added = scheduler.Add(static_cast<RequestId>(sequence + 1), request);
    CHECK(added.ok()) << added;
  }
}

// What ranks would answer: one token wherever the plan asks for a sample.
StepResult Answer(const StepPlan& plan) {
  StepResult result;
  result.epoch = plan.epoch;
  result.step = plan.step;
  for (const SequenceRows& rows : plan.rows) {
    if (!rows.sample) continue;
    SequenceResult& sequence = result.sequences.emplace_back();
    sequence.slot = rows.slot;
    sequence.tokens = {static_cast<int32_t>(1 + (plan.step + rows.slot) % 1000)};
  }
  return result;
}

struct StepCost {
  double next = 0, encode = 0, commit = 0;  // microseconds
  double total() const { return next + encode + commit; }
};

// The costs of the steps in which every sequence decodes, in order of their total.
std::vector<StepCost> DecodeCosts(int64_t sequences, int64_t steps) {
  // While the last sequence is prefilled the first one already decodes: with room for at least
  // `sequences` prompt rows in every step that takes at most kPromptTokens steps.
  const int64_t tokens = steps + kPromptTokens + 2;
  Scheduler scheduler = MakeScheduler(sequences, tokens);
  scheduler.SetEpoch(1);
  AddRequests(scheduler, sequences, tokens);
  std::vector<StepCost> costs;
  size_t encoded_bytes = 0;
  while (static_cast<int64_t>(costs.size()) < steps) {
    const Clock::time_point start = Clock::now();
    const std::optional<StepPlan> plan = scheduler.Next();
    const Clock::time_point planned = Clock::now();
    CHECK(plan.has_value()) << "a sequence ended after " << costs.size() << " steps";
    encoded_bytes += Encode(*plan).size();
    const Clock::time_point encoded = Clock::now();
    const bool all_decode =
        plan->tokens() == sequences && static_cast<int64_t>(plan->rows.size()) == sequences;
    const StepResult result = Answer(*plan);
    const Clock::time_point answered = Clock::now();
    const std::vector<RequestUpdate> updates = scheduler.Commit(result);
    const Clock::time_point committed = Clock::now();
    if (!all_decode) continue;
    CHECK_EQ(updates.size(), plan->rows.size());
    costs.push_back({MicrosecondsBetween(start, planned), MicrosecondsBetween(planned, encoded),
                     MicrosecondsBetween(answered, committed)});
  }
  CHECK(encoded_bytes > 0);
  std::sort(costs.begin(), costs.end(),
            [](const StepCost& a, const StepCost& b) { return a.total() < b.total(); });
  return costs;
}

}  // namespace
}  // namespace cohort

int main(int argc, char** argv) {
  const int64_t steps = argc > 1 ? std::atoll(argv[1]) : 1000;
  std::vector<int64_t> counts;
  for (int i = 2; i < argc; ++i) counts.push_back(std::atoll(argv[i]));
  if (counts.empty()) counts = {256, 1024};
  if (steps < 1 || *std::min_element(counts.begin(), counts.end()) < 1) {
    std::fprintf(stderr, "usage: scheduler_bench [STEPS [SEQUENCES...]]\n");
    return 2;
  }
  for (const int64_t sequences : counts) {
    const std::vector<cohort::StepCost> costs = cohort::DecodeCosts(sequences, steps);
    const cohort::StepCost& median = costs[costs.size() / 2];
    std::printf(
        "{\"sequences\": %lld, \"steps\": %lld, \"median_us\": %.1f, \"p99_us\": %.1f, "
        "\"next_us\": %.1f, \"encode_us\": %.1f, \"commit_us\": %.1f}\n",
        static_cast<long long>(sequences), static_cast<long long>(steps), median.total(),
        costs[costs.size() * 99 / 100].total(), median.next, median.encode, median.commit);
  }
  return 0;
}
