// What the services know of the server they belong to. Built once by `cohort serve` (or a test),
// before the first call; immutable afterwards but for what it points to.
#ifndef COHORT_LAUNCHER_SERVING_CONTEXT_H_
#define COHORT_LAUNCHER_SERVING_CONTEXT_H_

#include <functional>
#include <limits>
#include <string>

#include "absl/time/time.h"
#include "cohort/v1/control.pb.h"
#include "launcher/group_status.h"
#include "runtime/chat_template.h"
#include "runtime/engine.h"
#include "runtime/model_config.h"
#include "runtime/tokenizer.h"

namespace cohort {

struct ServingContext {
  Engine* engine = nullptr;              // outlives the server
  const Tokenizer* tokenizer = nullptr;  // null: token ids only; outlives the server
  std::function<GroupStatus()> group;    // safe from any thread
  ModelConfig config;
  SamplingParameters default_sampling;  // for values that a request leaves out
  absl::StatusOr<ChatTemplate> chat_template = ChatTemplate();  // or why chat is refused
  // Ids from here on are never chosen (vocabulary padding).
  int64_t choosable_ids = std::numeric_limits<int64_t>::max();
  std::string model_name;  // as served
  int64_t max_model_len = 0;
  int64_t max_prompt_bytes = int64_t{8} << 20;  // of a text, before it is tokenised
  v1::ServerInfo server_info;                   // all but the uptime
  absl::Time started;
};

// A bound on the bytes of a text that can still fit `max_model_len` tokens.
int64_t MaxPromptBytes(const Tokenizer& tokenizer, int64_t max_model_len);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_SERVING_CONTEXT_H_
