// What the client commands were asked for. Values that the server judges (sampling, stopping) are
// carried as they were given, so that its refusal names the field.
#ifndef COHORT_LAUNCHER_CLIENT_OPTIONS_H_
#define COHORT_LAUNCHER_CLIENT_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
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

struct GenerateOptions {
  HostPort server;
  PromptOptions prompt;
  std::string model;
  std::string request_id;
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int64_t> top_k;
  std::optional<uint64_t> seed;
  std::optional<int64_t> max_tokens;
  std::vector<uint32_t> stop_token_ids;
  bool ignore_eos = false;
  bool json = false;
  std::optional<absl::Duration> timeout;
};

struct ScoreOptions {
  HostPort server;
  PromptOptions prompt;
  std::string model;
  bool json = false;
  std::optional<absl::Duration> timeout;
};

struct StatusOptions {
  HostPort server;
  bool json = false;
  absl::Duration timeout = absl::Seconds(10);
};

struct TokenizeOptions {
  std::string model_dir;
  std::string text;
  bool json = false;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_CLIENT_OPTIONS_H_
