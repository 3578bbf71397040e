#include "runtime/weight_loader.h"

#include <algorithm>
#include <utility>

namespace cohort {
namespace {

Range Heads(Range heads, int64_t head_dim) {
  return {heads.begin * head_dim, heads.end * head_dim};
}

// Some rows of a stored tensor.
struct RowCut {
  std::string name;
  Range rows;
};

int64_t TotalRows(const std::vector<RowCut>& cuts) {
  int64_t total = 0;
  for (const RowCut& cut : cuts) {
    total += cut.rows.size();
  }
  return total;
}

// Plans, allocates, then copies: so that the total is known before the first byte.
class Loader {
 public:
  Loader(const ModelConfig& config, const ShardPlan& plan, DType dtype, Device& device,
         bool host_embedding)
      : config_(config),
        plan_(plan),
        dtype_(dtype),
        device_(device),
        host_embedding_(host_embedding) {}

  absl::StatusOr<ModelWeights> Allocate();
  absl::Status Fill(WeightSource& source, const WeightProgress& progress);

 private:
  absl::StatusOr<LayerWeights> AllocateLayer(int64_t layer);
  absl::Status AllocateAttention(const std::string& prefix, LayerWeights& weights);
  // The dense FFN or the shared expert, whose tensors' names begin with `prefix`.
  absl::Status AllocateFfn(const std::string& prefix, int64_t stored_columns, Range columns,
                           LayerWeights& weights);
  absl::Status AllocateExperts(const std::string& prefix, LayerWeights& weights);
  absl::StatusOr<Tensor> Embedding();
  absl::StatusOr<Tensor> Vector(const std::string& name);
  // Rows of one stored tensor, or of several below each other: [rows] or [rows, hidden].
  absl::StatusOr<Tensor> StackedVectors(const std::vector<RowCut>& cuts);
  absl::StatusOr<Tensor> Stacked(const std::vector<RowCut>& cuts);
  // Columns of a stored [hidden, columns] matrix.
  absl::StatusOr<Tensor> Columns(const std::string& name, int64_t stored_columns, Range columns);
  void AddRows(const std::vector<RowCut>& cuts, int64_t stored_columns, TensorView destination);
  void AddPiece(const WeightSlice& slice, TensorView destination);

  const ModelConfig& config_;
  const ShardPlan& plan_;
  DType dtype_;
  Device& device_;
  bool host_embedding_;
  int64_t sparse_layers_ = 0;  // so far
  std::vector<WeightPiece> pieces_;
};

void Loader::AddPiece(const WeightSlice& slice, TensorView destination) {
  WeightPiece& piece = pieces_.emplace_back();
  piece.slice = slice;
  piece.destination = destination;
}

absl::StatusOr<Tensor> Loader::Vector(const std::string& name) {
  return StackedVectors({{name, {0, config_.hidden}}});
}

absl::StatusOr<Tensor> Loader::StackedVectors(const std::vector<RowCut>& cuts) {
  ASSIGN_OR_RETURN(Tensor tensor, device_.Allocate({TotalRows(cuts)}, dtype_));
  AddRows(cuts, 1, tensor.view());
  return tensor;
}

absl::StatusOr<Tensor> Loader::Stacked(const std::vector<RowCut>& cuts) {
  ASSIGN_OR_RETURN(Tensor tensor, device_.Allocate({TotalRows(cuts), config_.hidden}, dtype_));
  AddRows(cuts, config_.hidden, tensor.view());
  return tensor;
}

void Loader::AddRows(const std::vector<RowCut>& cuts, int64_t stored_columns,
                     TensorView destination) {
  int64_t row = 0;
  for (const RowCut& cut : cuts) {
    AddPiece({cut.name, stored_columns, cut.rows, {0, stored_columns}},
             destination.Rows(row, cut.rows.size()));
    row += cut.rows.size();
  }
}

absl::StatusOr<Tensor> Loader::Columns(const std::string& name, int64_t stored_columns,
                                       Range columns) {
  ASSIGN_OR_RETURN(Tensor tensor, device_.Allocate({config_.hidden, columns.size()}, dtype_));
  AddPiece({name, stored_columns, {0, config_.hidden}, columns}, tensor.view());
  return tensor;
}

absl::Status Loader::AllocateAttention(const std::string& prefix, LayerWeights& weights) {
  const Range queries = Heads(plan_.query_heads(), config_.head_dim);
  const Range keys = Heads(plan_.kv_heads(), config_.head_dim);
  ASSIGN_OR_RETURN(weights.qkv, Stacked({{prefix + "q_proj.weight", queries},
                                         {prefix + "k_proj.weight", keys},
                                         {prefix + "v_proj.weight", keys}}));
  if (config_.qkv_bias) {
    ASSIGN_OR_RETURN(weights.qkv_bias, StackedVectors({{prefix + "q_proj.bias", queries},
                                                       {prefix + "k_proj.bias", keys},
                                                       {prefix + "v_proj.bias", keys}}));
  }
  ASSIGN_OR_RETURN(weights.attention_out, Columns(prefix + "o_proj.weight",
                                                  config_.query_heads * config_.head_dim, queries));
  return absl::OkStatus();
}

absl::Status Loader::AllocateFfn(const std::string& prefix, int64_t stored_columns, Range columns,
                                 LayerWeights& weights) {
  ASSIGN_OR_RETURN(weights.gate_up, Stacked({{prefix + "gate_proj.weight", columns},
                                             {prefix + "up_proj.weight", columns}}));
  ASSIGN_OR_RETURN(weights.down, Columns(prefix + "down_proj.weight", stored_columns, columns));
  return absl::OkStatus();
}

absl::Status Loader::AllocateExperts(const std::string& prefix, LayerWeights& weights) {
  const int64_t hidden = config_.hidden;
  const int64_t experts = plan_.experts().size();
  const Range columns = plan_.expert_columns();
  ASSIGN_OR_RETURN(weights.router, Stacked({{prefix + "gate.weight", {0, config_.experts}},
                                            {prefix + "shared_expert_gate.weight", {0, 1}}}));
  ASSIGN_OR_RETURN(weights.expert_gate_up,
                   device_.Allocate({experts, 2 * columns.size(), hidden}, dtype_));
  ASSIGN_OR_RETURN(weights.expert_down,
                   device_.Allocate({experts, hidden, columns.size()}, dtype_));
  for (int64_t i = 0; i < experts; ++i) {
    const std::string expert = absl::StrCat(prefix, "experts.", plan_.experts().begin + i, ".");
    const TensorView gate_up(weights.expert_gate_up.view().Rows(i, 1).data, dtype_,
                             Shape{2 * columns.size(), hidden});
    AddRows({{expert + "gate_proj.weight", columns}, {expert + "up_proj.weight", columns}}, hidden,
            gate_up);
    AddPiece({expert + "down_proj.weight", config_.expert_columns, {0, hidden}, columns},
             TensorView(weights.expert_down.view().Rows(i, 1).data, dtype_,
                        Shape{hidden, columns.size()}));
  }
  return absl::OkStatus();
}

absl::StatusOr<LayerWeights> Loader::AllocateLayer(int64_t layer) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  const std::string ffn = prefix + "mlp.";
  LayerWeights weights;
  ASSIGN_OR_RETURN(weights.attention_norm, Vector(prefix + "input_layernorm.weight"));
  RETURN_IF_ERROR(AllocateAttention(prefix + "self_attn.", weights));
  ASSIGN_OR_RETURN(weights.ffn_norm, Vector(prefix + "post_attention_layernorm.weight"));
  if (config_.IsSparse(layer)) {
    weights.sparse_index = sparse_layers_++;
    RETURN_IF_ERROR(AllocateExperts(ffn, weights));
    RETURN_IF_ERROR(AllocateFfn(ffn + "shared_expert.", config_.shared_expert_columns,
                                plan_.shared_expert_columns(), weights));
  } else {
    RETURN_IF_ERROR(AllocateFfn(ffn, config_.ffn_columns, plan_.ffn_columns(), weights));
  }
  return weights;
}

absl::StatusOr<Tensor> Loader::Embedding() {
  const RowCut cut{"model.embed_tokens.weight", plan_.vocabulary()};
  if (!host_embedding_) {
    return Stacked({cut});
  }
  ASSIGN_OR_RETURN(Tensor tensor, device_.AllocateHost({cut.rows.size(), config_.hidden}, dtype_));
  AddRows({cut}, config_.hidden, tensor.view());
  return tensor;
}

absl::StatusOr<ModelWeights> Loader::Allocate() {
  ModelWeights weights;
  weights.is_tied = config_.tied_embeddings;
  ASSIGN_OR_RETURN(weights.embedding, Embedding());
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    ASSIGN_OR_RETURN(LayerWeights layer_weights, AllocateLayer(layer));
    weights.layers.push_back(std::move(layer_weights));
  }
  ASSIGN_OR_RETURN(weights.final_norm, Vector("model.norm.weight"));
  if (!weights.is_tied) {
    ASSIGN_OR_RETURN(weights.untied_head, Stacked({{"lm_head.weight", plan_.vocabulary()}}));
  }
  return weights;
}

absl::Status Loader::Fill(WeightSource& source, const WeightProgress& progress) {
  int64_t total_bytes = 0;
  for (const WeightPiece& piece : pieces_) {
    total_bytes += piece.slice.elements() * SizeOf(dtype_);
  }
  int64_t done_bytes = 0;
  return source.Fill(pieces_, device_, [&](int64_t bytes) {
    done_bytes += bytes;
    if (progress) {
      progress(done_bytes, total_bytes);
    }
  });
}

}  // namespace

int64_t ModelWeights::bytes() const {
  int64_t bytes = embedding.bytes() + final_norm.bytes() + (is_tied ? 0 : untied_head.bytes());
  for (const LayerWeights& layer : layers) {
    for (const Tensor* tensor :
         {&layer.attention_norm, &layer.qkv, &layer.qkv_bias, &layer.attention_out, &layer.ffn_norm,
          &layer.gate_up, &layer.down, &layer.router, &layer.expert_gate_up, &layer.expert_down}) {
      bytes += tensor->view().data == nullptr ? 0 : tensor->bytes();
    }
  }
  return bytes;
}

absl::StatusOr<ModelWeights> LoadWeights(const ModelConfig& config, const ShardPlan& plan,
                                         WeightSource& source, DType dtype, Device& device,
                                         const WeightProgress& progress, bool host_embedding) {
  CHECK(!(host_embedding && config.tied_embeddings)) << "the head is the embedding";
  Loader loader(config, plan, dtype, device, host_embedding);
  ASSIGN_OR_RETURN(ModelWeights weights, loader.Allocate());
  RETURN_IF_ERROR(loader.Fill(source, progress));
  return weights;
}

}  // namespace cohort
