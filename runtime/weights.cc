#include "runtime/weights.h"

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "runtime/weight_source.h"

namespace cohort {
namespace {

// Gate, up and down of one FFN whose tensors' names begin with `prefix`.
void DeclareFfn(const std::string& prefix, int64_t hidden, int64_t columns,
                std::vector<DeclaredTensor>& tensors) {
  tensors.push_back({prefix + "gate_proj.weight", {columns, hidden}});
  tensors.push_back({prefix + "up_proj.weight", {columns, hidden}});
  tensors.push_back({prefix + "down_proj.weight", {hidden, columns}});
}

void DeclareExperts(const ModelConfig& config, const std::string& prefix,
                    std::vector<DeclaredTensor>& tensors) {
  tensors.push_back({prefix + "gate.weight", {config.experts, config.hidden}});
  for (int64_t expert = 0; expert < config.experts; ++expert) {
    DeclareFfn(absl::StrCat(prefix, "experts.", expert, "."), config.hidden, config.expert_columns,
               tensors);
  }
  DeclareFfn(prefix + "shared_expert.", config.hidden, config.shared_expert_columns, tensors);
  tensors.push_back({prefix + "shared_expert_gate.weight", {1, config.hidden}});
}

void DeclareLayer(const ModelConfig& config, int64_t layer, std::vector<DeclaredTensor>& tensors) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  const auto declare = [&](StringView name, std::vector<int64_t> shape) {
    tensors.push_back({absl::StrCat(prefix, name), std::move(shape)});
  };
  const int64_t query_columns = config.query_heads * config.head_dim;
  const int64_t kv_columns = config.kv_heads * config.head_dim;
  declare("input_layernorm.weight", {config.hidden});
  declare("self_attn.q_proj.weight", {query_columns, config.hidden});
  if (config.qkv_bias) {
    declare("self_attn.q_proj.bias", {query_columns});
    declare("self_attn.k_proj.bias", {kv_columns});
    declare("self_attn.v_proj.bias", {kv_columns});
  }
  declare("self_attn.k_proj.weight", {kv_columns, config.hidden});
  declare("self_attn.v_proj.weight", {kv_columns, config.hidden});
  declare("self_attn.o_proj.weight", {config.hidden, query_columns});
  declare("post_attention_layernorm.weight", {config.hidden});
  if (config.IsSparse(layer)) {
    DeclareExperts(config, prefix + "mlp.", tensors);
  } else {
    DeclareFfn(prefix + "mlp.", config.hidden, config.ffn_columns, tensors);
  }
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// Stored by some writers and never read.
bool IsKnownToBeUnused(StringView name, const ModelConfig& config) {
  return absl::EndsWith(name, "rotary_emb.inv_freq") ||
         (config.tied_embeddings && name == "lm_head.weight");
}

absl::Status CheckStored(const StoredTensor* stored, const DeclaredTensor& declared) {
  if (stored == nullptr) {
    return absl::NotFoundError(absl::StrCat("the checkpoint has no tensor ", declared.name,
                                            "; config.json declares it with shape ",
                                            ShapeText(declared.shape)));
  }
  if (stored->shape != declared.shape) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", declared.name, " has shape ", ShapeText(stored->shape),
                     " in the checkpoint where config.json declares ", ShapeText(declared.shape)));
  }
  if (!IsReadableDType(stored->dtype)) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", declared.name, " is stored as ",
                                                   stored->dtype,
                                                   "; F32, BF16 and F16 can be computed with"));
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<DeclaredTensor> DeclareTensors(const ModelConfig& config) {
  std::vector<DeclaredTensor> tensors;
  tensors.push_back({"model.embed_tokens.weight", {config.vocabulary, config.hidden}});
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    DeclareLayer(config, layer, tensors);
  }
  tensors.push_back({"model.norm.weight", {config.hidden}});
  if (!config.tied_embeddings) {
    tensors.push_back({"lm_head.weight", {config.vocabulary, config.hidden}});
  }
  return tensors;
}

absl::StatusOr<CheckpointReport> CheckCheckpoint(const Checkpoint& checkpoint,
                                                 const ModelConfig& config) {
  const std::vector<DeclaredTensor> declared_tensors = DeclareTensors(config);
  CheckpointReport report;
  report.all_fp32 = true;
  absl::flat_hash_set<StringView> declared_names;
  for (const DeclaredTensor& declared : declared_tensors) {
    const StoredTensor* stored = checkpoint.Find(declared.name);
    RETURN_IF_ERROR(CheckStored(stored, declared));
    report.all_fp32 = report.all_fp32 && stored->dtype == "F32";
    declared_names.insert(declared.name);
  }
  for (const StoredTensor& stored : checkpoint.tensors()) {
    if (!declared_names.contains(stored.name) && !IsKnownToBeUnused(stored.name, config)) {
      report.extra_tensors.push_back(stored.name);
    }
  }
  return report;
}

}  // namespace cohort
