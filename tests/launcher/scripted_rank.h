// A rank without a model, in the engine's own process: answers every plan at once, or when let.
#ifndef COHORT_TESTS_LAUNCHER_SCRIPTED_RANK_H_
#define COHORT_TESTS_LAUNCHER_SCRIPTED_RANK_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "runtime/step_link.h"

namespace cohort {

// What the rank does, shared by a test and the link that the engine owns. Any thread.
class RankScript {
 public:
  // The token sampled after the row at `position`.
  using Choose = std::function<int32_t(uint64_t position)>;
  explicit RankScript(Choose choose) : choose_(std::move(choose)) {}

  void Hold();     // answers wait
  void Release();  // no longer

 private:
  friend class ScriptedRank;
  const Choose choose_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false;
  absl::Status aborted_;
  std::deque<std::string> answers_;
};

// Log-probabilities are made up: that of id i is -i / 4, the likeliest are 0, 1, 2, ...
class ScriptedRank final : public StepLink {
 public:
  explicit ScriptedRank(std::shared_ptr<RankScript> script) : script_(std::move(script)) {}
  std::string name() const override { return "scripted rank"; }
  absl::Status Send(StringView plan_bytes, absl::Time deadline) override;
  absl::StatusOr<std::string> Receive(absl::Time deadline) override;
  void Abort(absl::Status reason) override;

 private:
  void Answer(const SequenceRows& rows, SequenceResult& result);

  const std::shared_ptr<RankScript> script_;
  std::map<uint32_t, int32_t> logprobs_;  // by slot: SamplingParameters::logprobs
};

// A group of one such rank.
std::unique_ptr<Executor> ScriptedGroup(uint64_t epoch, std::shared_ptr<RankScript> script);

}  // namespace cohort

#endif  // COHORT_TESTS_LAUNCHER_SCRIPTED_RANK_H_
