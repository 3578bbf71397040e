// What `cohort serve` finds out before it starts a rank: the model, its tokenizer, the device and
// how much memory holds how long a sequence. Fast: no weight is read.
#ifndef COHORT_LAUNCHER_MODEL_SETUP_H_
#define COHORT_LAUNCHER_MODEL_SETUP_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cohort/v1/cluster.pb.h"
#include "launcher/serve_options.h"
#include "runtime/chat_template.h"
#include "runtime/model_config.h"
#include "runtime/sampling.h"
#include "runtime/scheduler.h"
#include "runtime/tokenizer.h"

namespace cohort {

struct ModelSetup {
  std::string model;  // absolute path of the directory, or the name of a published config
  std::string served_name;
  std::string config_json;
  ModelConfig config;
  SamplingParameters default_sampling;   // greedy unless generation_config.json says otherwise
  std::unique_ptr<Tokenizer> tokenizer;  // null: token ids only
  absl::StatusOr<ChatTemplate> chat_template = ChatTemplate();  // or why chat is refused
  std::string device;                                           // "cpu" or "cuda"
  DType dtype = DType::kBF16;
  int64_t threads = 1;    // of each rank
  int64_t token_ids = 0;  // ids below this have a token
  int64_t kv_blocks = 0;
  bool host_embedding = false;
  int64_t max_model_len = 0;
  std::vector<std::string> warnings;
};

// The KV blocks of one rank and the longest sequence they allow.
struct KvSetup {
  int64_t blocks = 0;
  int64_t max_model_len = 0;
  std::vector<std::string> warnings;
};

// Of a sequence of the model.
struct PositionBounds {
  int64_t usual = 0;  // where no flag says otherwise
  int64_t limit = 0;
};

// `bytes_per_token`: of the rank that holds most. Refusals name the flag, the value and the bytes;
// `kv_source` is the flag that said how many.
absl::StatusOr<KvSetup> SetUpKv(const ServeOptions& options, int64_t bytes_per_token,
                                const PositionBounds& positions,
                                StringView kv_source = "--kv-memory");

absl::StatusOr<ModelSetup> SetUpModel(const ServeOptions& options);

v1::RankConfiguration MakeRankConfiguration(const ServeOptions& options, const ModelSetup& setup);
SchedulerOptions MakeSchedulerOptions(const ServeOptions& options, const ModelSetup& setup);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_MODEL_SETUP_H_
