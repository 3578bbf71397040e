// Small schedulers, requests for them and answers to their plans.
#ifndef COHORT_TESTS_RUNTIME_SCHEDULER_FIXTURE_H_
#define COHORT_TESTS_RUNTIME_SCHEDULER_FIXTURE_H_

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "runtime/scheduler.h"

namespace cohort {

inline constexpr int32_t kEos = 9;

inline SchedulerOptions SmallOptions() {
  SchedulerOptions options;
  options.blocks = 8;
  options.block_size = 4;
  options.max_running = 4;
  options.max_batch_tokens = 6;
  options.max_model_len = 32;
  options.max_waiting = 4;
  options.eos_token_ids = {kEos};
  return options;
}

inline Request Generate(std::vector<int32_t> prompt, int64_t max_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.stopping.max_tokens = max_tokens;
  return request;
}

inline Request Score(std::vector<int32_t> prompt) {
  Request request;
  request.prompt = std::move(prompt);
  request.score = true;
  return request;
}

// A result for every sequence that samples, in the plan's order.
inline StepResult Answer(const StepPlan& plan, std::vector<std::vector<int32_t>> tokens) {
  StepResult result{.epoch = plan.epoch, .step = plan.step, .digest = 0, .sequences = {}};
  size_t next = 0;
  for (const SequenceRows& rows : plan.rows) {
    if (rows.sample) {
      result.sequences.push_back({.slot = rows.slot, .tokens = tokens.at(next++), .logprobs = {}});
    }
  }
  EXPECT_EQ(next, tokens.size());
  return result;
}

inline Finish CancelledFinish() {
  Finish finish;
  finish.reason = FinishReason::kCancelled;
  finish.status = absl::CancelledError("no longer wanted");
  return finish;
}

inline SequenceRows Rows(uint32_t slot, uint64_t first, std::vector<TokenSource> tokens,
                         std::vector<int32_t> blocks, bool sample) {
  return {.slot = slot,
          .first_position = first,
          .tokens = std::move(tokens),
          .appended_blocks = std::move(blocks),
          .sample = sample,
          .score_targets = {}};
}

}  // namespace cohort

#endif  // COHORT_TESTS_RUNTIME_SCHEDULER_FIXTURE_H_
