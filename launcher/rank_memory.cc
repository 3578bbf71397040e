#include "launcher/rank_memory.h"

namespace cohort {

v1::RankMemory ToMessage(const WorkerMemory& memory) {
  v1::RankMemory message;
  message.set_weight_bytes(memory.weights);
  message.set_kv_bytes(memory.kv);
  message.set_workspace_bytes(memory.workspace);
  return message;
}

WorkerMemory FromMessage(const v1::RankMemory& message) {
  return {.weights = message.weight_bytes(),
          .kv = message.kv_bytes(),
          .workspace = message.workspace_bytes()};
}

}  // namespace cohort
