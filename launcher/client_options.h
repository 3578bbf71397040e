// What the client commands were asked for. Values that the server judges (sampling, stopping) are
// carried as they were given, so that its refusal names the field.
#ifndef COHORT_LAUNCHER_CLIENT_OPTIONS_H_
#define COHORT_LAUNCHER_CLIENT_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "launcher/flag_values.h"

namespace cohort {

// Exactly one is set.
struct PromptOptions {
  std::optional<std::string> text;
  std::optional<std::vector<uint32_t>> token_ids;
  std::optional<std::string> chat;  // one user message
  std::optional<std::string> file;  // path of a text
};

struct SamplingOptions {
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int64_t> top_k;
  std::optional<double> min_p;
  std::optional<uint64_t> seed;
  std::optional<double> repetition_penalty;
  std::optional<double> presence_penalty;
  std::optional<double> frequency_penalty;
  std::optional<int64_t> n;
  std::vector<std::pair<uint32_t, double>> logit_bias;
  std::vector<uint32_t> allowed_token_ids;
  std::vector<std::string> bad_words;
};

struct StoppingOptions {
  std::optional<int64_t> max_tokens;
  std::optional<int64_t> min_tokens;
  std::vector<uint32_t> stop_token_ids;
  std::vector<std::string> stop_strings;
  bool include_stop = false;
  bool ignore_eos = false;
};

struct GenerateOptions {
  HostPort server;
  PromptOptions prompt;
  std::string model;
  std::string request_id;
  SamplingOptions sampling;
  StoppingOptions stopping;
  std::optional<int64_t> logprobs;
  std::optional<int64_t> prompt_logprobs;
  std::optional<int64_t> priority;
  std::string cache_salt;
  bool bypass_prefix_cache = false;
  bool json = false;
  std::optional<absl::Duration> timeout;
};

struct ChatOptions {
  HostPort server;
  std::string model;
  std::optional<std::string> system;
  SamplingOptions sampling;
  std::optional<int64_t> max_tokens;
  std::optional<absl::Duration> timeout;  // of each answer
};

struct ScoreOptions {
  HostPort server;
  PromptOptions prompt;
  std::string model;
  std::optional<int64_t> top;
  bool json = false;
  std::optional<absl::Duration> timeout;
};

struct StatusOptions {
  HostPort server;
  bool json = false;
  absl::Duration timeout = absl::Seconds(10);
};

struct TokenizeOptions {
  std::string model;  // a checkpoint directory, or `pocket`
  std::string text;
  bool json = false;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_CLIENT_OPTIONS_H_
