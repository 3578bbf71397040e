// What `cohort serve` was asked for, before it is compared with the model; and `cohort node`.
#ifndef COHORT_LAUNCHER_SERVE_OPTIONS_H_
#define COHORT_LAUNCHER_SERVE_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "launcher/flag_values.h"
#include "launcher/join_token.h"
#include "parallel/shard_plan.h"
#include "runtime/model_config.h"

namespace cohort {

inline constexpr int64_t kDefaultKvMemoryBytes = int64_t{512} << 20;

struct ServeOptions {
  // A checkpoint directory, `pocket`, or the name of a published config; empty: pocket.
  std::string model;
  int64_t tp = 1;
  int64_t dp = 1;
  int64_t ep = 1;                            // groups of whole experts
  int64_t world() const { return tp * dp; }  // ranks
  std::optional<SimulatedRank> simulated;    // in place of the degrees above
  // How the model is cut.
  Parallelism parallelism() const {
    return simulated.has_value() ? Parallelism{.tp = simulated->size}
                                 : Parallelism{.tp = static_cast<int>(tp),
                                               .dp = static_cast<int>(dp),
                                               .ep = static_cast<int>(ep)};
  }
  std::string expert_exchange = "auto";  // or "replicated", "all-to-all"
  ModelOverrides overrides;              // of config.json
  std::string device = "auto";
  bool allow_shared_gpu = false;
  bool require_nvlink = false;
  bool require_rdma = false;
  std::string peer_reduction = "auto";  // or "never", "always"
  ReductionSizes reduction_sizes;
  std::string product_tuning = "auto";    // or "on", "off"
  std::string tuning_file;                // empty: one in the user's cache
  std::string recorded_steps = "auto";    // or "on", "off"
  std::string persistent_steps = "auto";  // or "on", "off"
  std::string dtype;                      // "fp32", "bf16"; empty: what the checkpoint holds
  HostPort listen{"127.0.0.1", 9000};
  int64_t threads = 0;        // per rank; 0: allowed cores / local ranks
  int64_t max_model_len = 0;  // tokens; 0: what the model and the KV memory allow
  int64_t max_running = 256;
  int64_t max_waiting = 1024;
  int64_t max_waiting_tokens = int64_t{1} << 22;
  int64_t max_batch_tokens = 512;
  int64_t max_prefill_tokens = 256;  // of a step that also decodes
  // Per rank. By default kDefaultKvMemoryBytes, and on GPUs what the limit leaves.
  std::optional<int64_t> kv_memory_bytes;
  std::optional<GpuMemoryLimit> gpu_memory;  // default: all of it
  std::string embedding_memory = "auto";     // or "device", "host"
  int64_t block_size = 16;                   // tokens
  bool dummy_weights = false;
  bool strict = false;
  bool deterministic = false;  // refuse a device whose sums depend on the batch
  bool mask_padding = true;
  bool prefix_caching = true;
  bool reflection = true;
  std::string served_model_name;  // empty: the directory's name
  // Whether generation_config.json gives the sampling that requests leave out: "auto" or "none".
  std::string generation_config = "auto";
  absl::Duration drain_timeout = absl::Seconds(30);
  absl::Duration step_timeout = absl::Seconds(300);

  // Of a group over several nodes.
  int64_t agents = 1;  // the local one included
  std::optional<HostPort> cluster_listen;
  JoinTokenOptions join_token;
  absl::Duration agents_timeout = absl::Minutes(10);        // for all to join the first time
  absl::Duration agent_timeout = absl::Milliseconds(1500);  // of silence
};

// What `cohort node` was asked for.
struct NodeOptions {
  HostPort join;
  std::string name;     // empty: the host's name and the process's id
  std::string model;    // empty: the coordinator's path
  std::string address;  // empty: that of the way to the coordinator
  JoinTokenOptions join_token;
  absl::Duration join_timeout = absl::Minutes(10);
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_SERVE_OPTIONS_H_
