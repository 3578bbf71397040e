#include "tests/runtime/worker_ranks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <thread>

#include "parallel/plugin_communicator.h"
#include "parallel/thread_communicator.h"

namespace cohort {

absl::StatusOr<std::unique_ptr<WorkerRanks>> WorkerRanks::Create(
    const ModelConfig& config, WorkerOptions options, const DeviceOptions& device_options) {
  auto ranks = std::unique_ptr<WorkerRanks>(new WorkerRanks(options));
  for (int rank = 0; rank < options.parallelism.world(); ++rank) {
    options.rank = rank;
    ASSIGN_OR_RETURN(auto device, Device::Create(device_options));
    if (device->kind() == "cuda") ranks->gpu_ = device.get();  // the worker keeps it
    ASSIGN_OR_RETURN(auto worker, Worker::Create(config, options, std::move(device), nullptr));
    ranks->workers_.push_back(std::move(worker));
  }
  RETURN_IF_ERROR(ranks->Join(1));
  return ranks;
}

absl::Status WorkerRanks::Join(uint64_t epoch, absl::Duration timeout) {
  epoch_ = epoch;
  last_step_ = 0;
  return gpu_ != nullptr ? JoinGpu() : JoinThreads(timeout);
}

// A group of one whose copies are ordered with the device's work.
absl::Status WorkerRanks::JoinGpu() {
  CHECK_EQ(options_.parallelism.world(), 1);
  ASSIGN_OR_RETURN(auto group, MakePluginCommunicator(*gpu_, PluginCommunicatorOptions()));
  RETURN_IF_ERROR(group->Join());
  return workers_[0]->JoinEpoch(epoch_, std::move(group));
}

absl::Status WorkerRanks::JoinThreads(absl::Duration timeout) {
  const Parallelism& parallelism = options_.parallelism;
  std::vector<std::vector<std::unique_ptr<Communicator>>> tensor, data;  // [group][rank in it]
  for (int group = 0; group < parallelism.dp; ++group) {
    tensor.push_back(MakeThreadCommunicators(parallelism.tp, timeout));
  }
  for (int group = 0; group < parallelism.tp; ++group) {
    data.push_back(MakeThreadCommunicators(parallelism.dp, timeout));
  }
  const size_t tp = static_cast<size_t>(parallelism.tp);
  for (size_t rank = 0; rank < workers_.size(); ++rank) {
    RETURN_IF_ERROR(workers_[rank]->JoinEpoch(epoch_, std::move(tensor[rank / tp][rank % tp]),
                                              std::move(data[rank % tp][rank / tp])));
  }
  return absl::OkStatus();
}

absl::StatusOr<StepResult> WorkerRanks::Run(const StepPlan& plan) {
  std::vector<std::optional<absl::StatusOr<StepResult>>> results(workers_.size());
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < workers_.size(); ++rank) {
    threads.emplace_back([&, rank] { results[rank] = workers_[rank]->Run(plan); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  const size_t tp = static_cast<size_t>(options_.parallelism.tp);
  for (size_t rank = 0; rank < results.size(); ++rank) {
    RETURN_IF_ERROR(results[rank]->status());
    const StepResult& result = **results[rank];
    EXPECT_EQ(result.digest, (*results[rank / tp * tp])->digest) << "step " << plan.step;
    EXPECT_TRUE(rank % tp == 0 || result.sequences.empty());
  }
  return *std::move(results[static_cast<size_t>(group_) * tp]);
}

StepPlan WorkerRanks::NextPlan(int64_t first_position, int64_t rows, const AdmitSequence& admit) {
  StepPlan plan;
  plan.epoch = epoch_;
  plan.step = ++last_step_;
  plan.rows.emplace_back();
  plan.rows[0].slot = slot();
  if (first_position == 0) {
    plan.admits.push_back(admit);
    plan.admits[0].slot = slot();
    blocks_used_ = 0;
  }
  plan.rows[0].first_position = static_cast<uint64_t>(first_position);
  while (blocks_used_ * options_.block_size < first_position + rows) {
    // From the last to the first, so that a table that is not read would show.
    plan.rows[0].appended_blocks.push_back(
        static_cast<int32_t>(options_.kv_blocks - 1 - blocks_used_++));
  }
  return plan;
}

std::vector<float> WorkerRanks::Score(const std::vector<int32_t>& ids, int64_t chunk) {
  const int64_t length = static_cast<int64_t>(ids.size());
  std::vector<float> logprobs;
  for (int64_t begin = 0; begin < length; begin += chunk) {
    const int64_t end = std::min(begin + chunk, length);
    StepPlan plan = NextPlan(begin, end - begin, {.prompt_tokens = ids.size(), .sampling = {}});
    for (int64_t i = begin; i < end; ++i) {
      plan.rows[0].tokens.push_back({.id = ids[static_cast<size_t>(i)]});
      plan.rows[0].score_targets.push_back(i + 1 < length ? ids[static_cast<size_t>(i + 1)] : -1);
    }
    const auto result = Run(plan);
    EXPECT_TRUE(result.ok()) << result.status();
    if (!result.ok() || result->sequences.size() != 1) {
      return {};
    }
    const std::vector<float>& chunk_logprobs = result->sequences[0].logprobs;
    logprobs.insert(logprobs.end(), chunk_logprobs.begin(), chunk_logprobs.end());
  }
  logprobs.pop_back();
  return logprobs;
}

std::vector<int32_t> WorkerRanks::Generate(const std::vector<int32_t>& prompt, int64_t count,
                                           int64_t chunk, const SamplingParameters& sampling) {
  std::vector<int32_t> tokens;
  for (const SequenceResult& result : Results(prompt, count, chunk, {.sampling = sampling})) {
    tokens.push_back(result.tokens.at(0));
  }
  return tokens;
}

std::vector<SequenceResult> WorkerRanks::Results(const std::vector<int32_t>& prompt, int64_t count,
                                                 int64_t chunk, AdmitSequence admit) {
  const int64_t length = static_cast<int64_t>(prompt.size());
  admit.prompt_tokens = prompt.size();
  std::vector<SequenceResult> results;
  for (int64_t begin = 0; static_cast<int64_t>(results.size()) < count;) {
    const int64_t rows = begin < length ? std::min(chunk, length - begin) : 1;
    StepPlan plan = NextPlan(begin, rows, admit);
    for (int64_t i = begin; i < begin + rows; ++i) {
      if (i < length) {
        plan.rows[0].tokens.push_back({.id = prompt[static_cast<size_t>(i)]});
      } else {
        plan.rows[0].tokens.push_back({.sampled_in_step = plan.step - 1});
      }
    }
    begin += rows;
    plan.rows[0].sample = begin >= length;
    auto result = Run(plan);
    EXPECT_TRUE(result.ok()) << result.status();
    if (!result.ok()) {
      return {};
    }
    if (plan.rows[0].sample) {
      results.push_back(std::move(result->sequences.at(0)));
    }
  }
  return results;
}

}  // namespace cohort
