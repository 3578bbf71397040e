#include "kernels/plugin_ops.h"

#include <algorithm>
#include <cstddef>
#include <vector>

namespace cohort {
namespace {

static_assert(static_cast<int>(DType::kF32) == kCohortCudaF32);
static_assert(static_cast<int>(DType::kBF16) == kCohortCudaBF16);
static_assert(static_cast<int>(DType::kI32) == kCohortCudaI32);
static_assert(Shape::kMaxRank == kCohortCudaMaxRank);

CohortCudaBatch ToPlugin(const BatchView& batch) {
  return {batch.tokens,
          batch.sequences,
          ToPlugin(batch.positions),
          ToPlugin(batch.sequence_of_token),
          ToPlugin(batch.block_table),
          ToPlugin(batch.rope_rows),
          ToPlugin(batch.logit_factors),
          ToPlugin(batch.first_rows),
          batch.leading_decodes,
          batch.longest_chunk};
}

CohortCudaRope ToPlugin(const RopeTable& rope) {
  return {ToPlugin(rope.cosine), ToPlugin(rope.sine), rope.keys_only ? 1 : 0};
}

CohortCudaRouting ToPlugin(const Routing& routing) {
  return {ToPlugin(routing.ids), ToPlugin(routing.weights)};
}

CohortCudaVocabularySlice ToPlugin(const VocabularySlice& slice) {
  return {slice.first_id, slice.valid_ids};
}

CohortCudaKv ToPlugin(const KvView& kv) { return {ToPlugin(kv.keys), ToPlugin(kv.values)}; }

CohortCudaSamplingRow ToPlugin(const SamplingRow& row) {
  return {row.temperature,    row.top_p, row.top_k,   row.min_p,
          row.sequence_index, row.seed,  row.position};
}

}  // namespace

CohortCudaTensor ToPlugin(const TensorView& view) {
  CohortCudaTensor tensor{};
  tensor.data = view.data;
  tensor.dtype = static_cast<int32_t>(view.dtype);
  tensor.rank = view.shape.rank();
  for (int axis = 0; axis < view.shape.rank(); ++axis) {
    tensor.dims[axis] = view.shape[axis];
  }
  tensor.row_stride = view.row_stride;
  return tensor;
}

void PluginOps::DoEmbed(TensorView ids, TensorView table, int64_t first_row, TensorView out) {
  const CohortCudaTensor plugin_ids = ToPlugin(ids);
  const CohortCudaTensor plugin_table = ToPlugin(table);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->embed(device_, &plugin_ids, &plugin_table, first_row, &plugin_out);
}

void PluginOps::DoRmsNorm(TensorView x, TensorView gamma, float eps, TensorView out) {
  const CohortCudaTensor plugin_x = ToPlugin(x);
  const CohortCudaTensor plugin_gamma = ToPlugin(gamma);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->rms_norm(device_, &plugin_x, &plugin_gamma, eps, &plugin_out);
}

void PluginOps::DoAddRmsNorm(TensorView residual, TensorView x, TensorView gamma, float eps,
                             TensorView out) {
  const CohortCudaTensor plugin_residual = ToPlugin(residual);
  const CohortCudaTensor plugin_x = ToPlugin(x);
  const CohortCudaTensor plugin_gamma = ToPlugin(gamma);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->add_rms_norm(device_, &plugin_residual, &plugin_x, &plugin_gamma, eps, &plugin_out);
}

void PluginOps::DoMatMul(TensorView x, const Weight& w, const TensorView* bias, TensorView out) {
  const CohortCudaTensor plugin_x = ToPlugin(x);
  const CohortCudaTensor plugin_weight = ToPlugin(w.data);
  const CohortCudaTensor plugin_bias = bias != nullptr ? ToPlugin(*bias) : CohortCudaTensor{};
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->mat_mul(device_, &plugin_x, &plugin_weight, bias != nullptr ? &plugin_bias : nullptr,
                  &plugin_out);
}

void PluginOps::DoRopeAndStoreKv(TensorView qkv, int64_t query_heads, const RopeTable& rope,
                                 const BatchView& batch, const KvView& kv) {
  const CohortCudaTensor plugin_qkv = ToPlugin(qkv);
  const CohortCudaRope plugin_rope = ToPlugin(rope);
  const CohortCudaBatch plugin_batch = ToPlugin(batch);
  const CohortCudaKv plugin_kv = ToPlugin(kv);
  table_->rope_and_store_kv(device_, &plugin_qkv, query_heads, &plugin_rope, &plugin_batch,
                            &plugin_kv);
}

void PluginOps::DoPagedAttention(TensorView queries, absl::Span<const int32_t> kv_head_of_query,
                                 const BatchView& batch, const KvView& kv, float scale,
                                 TensorView out) {
  const CohortCudaTensor plugin_queries = ToPlugin(queries);
  const CohortCudaBatch plugin_batch = ToPlugin(batch);
  const CohortCudaKv plugin_kv = ToPlugin(kv);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->paged_attention(device_, &plugin_queries, kv_head_of_query.data(),
                          static_cast<int64_t>(kv_head_of_query.size()), &plugin_batch, &plugin_kv,
                          scale, &plugin_out);
}

void PluginOps::DoSiluMultiply(TensorView gate_up, TensorView out) {
  const CohortCudaTensor plugin_gate_up = ToPlugin(gate_up);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->silu_multiply(device_, &plugin_gate_up, &plugin_out);
}

void PluginOps::DoDualChunkAttention(TensorView queries, absl::Span<const int32_t> kv_head_of_query,
                                     const DualChunks& chunks, const BatchView& batch,
                                     const KvView& kv, float scale, TensorView out) {
  const CohortCudaTensor plugin_queries = ToPlugin(queries);
  const CohortCudaDualChunks plugin_chunks = {chunks.chunk_size, chunks.chunk_length,
                                              ToPlugin(chunks.rope)};
  const CohortCudaBatch plugin_batch = ToPlugin(batch);
  const CohortCudaKv plugin_kv = ToPlugin(kv);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->dual_chunk_attention(device_, &plugin_queries, kv_head_of_query.data(),
                               static_cast<int64_t>(kv_head_of_query.size()), &plugin_chunks,
                               &plugin_batch, &plugin_kv, scale, &plugin_out);
}

void PluginOps::DoProjectQkv(TensorView x, const Weight& w, const TensorView* bias, TensorView qkv,
                             int64_t query_heads, const RopeTable& rope, const BatchView& batch,
                             const KvView& kv) {
  if (table_->project_qkv == nullptr) {
    Ops::DoProjectQkv(x, w, bias, qkv, query_heads, rope, batch, kv);
    return;
  }
  const CohortCudaTensor plugin_x = ToPlugin(x);
  const CohortCudaTensor plugin_weight = ToPlugin(w.data);
  const CohortCudaTensor plugin_bias = bias != nullptr ? ToPlugin(*bias) : CohortCudaTensor{};
  const CohortCudaTensor plugin_qkv = ToPlugin(qkv);
  const CohortCudaRope plugin_rope = ToPlugin(rope);
  const CohortCudaBatch plugin_batch = ToPlugin(batch);
  const CohortCudaKv plugin_kv = ToPlugin(kv);
  table_->project_qkv(device_, &plugin_x, &plugin_weight, bias != nullptr ? &plugin_bias : nullptr,
                      &plugin_qkv, query_heads, &plugin_rope, &plugin_batch, &plugin_kv);
}

void PluginOps::DoProjectGateUp(TensorView x, const Weight& w, TensorView gate_up, TensorView out) {
  const CohortCudaTensor plugin_x = ToPlugin(x);
  const CohortCudaTensor plugin_weight = ToPlugin(w.data);
  const CohortCudaTensor plugin_gate_up = ToPlugin(gate_up);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->project_gate_up(device_, &plugin_x, &plugin_weight, &plugin_gate_up, &plugin_out);
}

void PluginOps::DoRouteTopK(TensorView logits, bool normalize, const Routing& routing) {
  const CohortCudaTensor plugin_logits = ToPlugin(logits);
  const CohortCudaRouting plugin_routing = ToPlugin(routing);
  table_->route_top_k(device_, &plugin_logits, normalize ? 1 : 0, &plugin_routing);
}

void PluginOps::DoRoutedFfn(TensorView x, const Routing& routing, const ExpertWeights& experts,
                            const ExpertScratch& scratch, TensorView out) {
  const CohortCudaTensor plugin_x = ToPlugin(x);
  const CohortCudaRouting plugin_routing = ToPlugin(routing);
  const CohortCudaExperts plugin_experts = {ToPlugin(experts.gate_up), ToPlugin(experts.down),
                                            experts.first};
  const CohortCudaExpertScratch plugin_scratch = {ToPlugin(scratch.gate_up),
                                                  ToPlugin(scratch.activated)};
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->routed_ffn(device_, &plugin_x, &plugin_routing, &plugin_experts, &plugin_scratch,
                     &plugin_out);
}

void PluginOps::DoCountIds(TensorView ids, TensorView counts) {
  const CohortCudaTensor plugin_ids = ToPlugin(ids);
  const CohortCudaTensor plugin_counts = ToPlugin(counts);
  table_->count_ids(device_, &plugin_ids, &plugin_counts);
}

void PluginOps::DoAddGated(TensorView x, TensorView gate, TensorView out) {
  const CohortCudaTensor plugin_x = ToPlugin(x);
  const CohortCudaTensor plugin_gate = ToPlugin(gate);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->add_gated(device_, &plugin_x, &plugin_gate, &plugin_out);
}

void PluginOps::DoRecordedCandidates(TensorView logits, TensorView sampling, int32_t candidates,
                                     const VocabularySlice& slice, TensorView out) {
  const CohortCudaTensor plugin_logits = ToPlugin(logits);
  const CohortCudaTensor plugin_sampling = ToPlugin(sampling);
  const CohortCudaVocabularySlice plugin_slice = ToPlugin(slice);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->recorded_candidates(device_, &plugin_logits, &plugin_sampling, candidates, &plugin_slice,
                              &plugin_out);
}

void PluginOps::DoChooseRecorded(TensorView records, int64_t ranks, TensorView sampling,
                                 int64_t valid_ids, TensorView tokens) {
  const CohortCudaTensor plugin_records = ToPlugin(records);
  const CohortCudaTensor plugin_sampling = ToPlugin(sampling);
  const CohortCudaTensor plugin_tokens = ToPlugin(tokens);
  table_->choose_recorded(device_, &plugin_records, ranks, &plugin_sampling, valid_ids,
                          &plugin_tokens);
}

void PluginOps::DoSelectIds(TensorView sources, TensorView last_tokens, TensorView ids) {
  const CohortCudaTensor plugin_sources = ToPlugin(sources);
  const CohortCudaTensor plugin_last_tokens = ToPlugin(last_tokens);
  const CohortCudaTensor plugin_ids = ToPlugin(ids);
  table_->select_ids(device_, &plugin_sources, &plugin_last_tokens, &plugin_ids);
}

void PluginOps::DoStoreTokens(TensorView tokens, TensorView slots, TensorView last_tokens) {
  const CohortCudaTensor plugin_tokens = ToPlugin(tokens);
  const CohortCudaTensor plugin_slots = ToPlugin(slots);
  const CohortCudaTensor plugin_last_tokens = ToPlugin(last_tokens);
  table_->store_tokens(device_, &plugin_tokens, &plugin_slots, &plugin_last_tokens);
}

void PluginOps::DoGatherRows(TensorView x, TensorView rows, TensorView out) {
  const CohortCudaTensor plugin_x = ToPlugin(x);
  const CohortCudaTensor plugin_rows = ToPlugin(rows);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->gather_rows(device_, &plugin_x, &plugin_rows, &plugin_out);
}

absl::Span<float> PluginOps::CopyRow(const TensorView& logits, int64_t row) {
  row_.resize(static_cast<size_t>(logits.columns()));
  table_->copy_to_host(device_, static_cast<const float*>(logits.data) + row * logits.row_stride,
                       row_.data(), row_.size() * sizeof(float));
  return absl::MakeSpan(row_);
}

void PluginOps::CopyBack(absl::Span<const int32_t> words, const TensorView& out, int64_t row) {
  table_->copy_from_host(device_, words.data(),
                         static_cast<int32_t*>(out.data) + row * out.row_stride,
                         words.size() * sizeof(int32_t));
}

void PluginOps::DoLocalCandidates(TensorView logits, absl::Span<const CandidateRequest> requests,
                                  const VocabularySlice& slice, TensorView out) {
  std::vector<int32_t> record(static_cast<size_t>(out.columns()));
  for (size_t i = 0; i < requests.size(); ++i) {
    const int64_t row = static_cast<int64_t>(i);
    const bool is_wanted = requests[i].candidates > 0;
    const absl::Span<float> on_host = is_wanted ? CopyRow(logits, row) : absl::Span<float>();
    Summarise(on_host, requests[i], slice, &scratch_, record.data());
    CopyBack(record, out, row);
  }
}

void PluginOps::DoLocalMasses(TensorView logits, absl::Span<const MassRequest> requests,
                              const VocabularySlice& slice, TensorView out) {
  for (size_t i = 0; i < requests.size(); ++i) {
    int32_t words[2];
    SumMasses(CopyRow(logits, requests[i].row), requests[i], slice, &scratch_, words);
    CopyBack(words, out, static_cast<int64_t>(i));
  }
}

void PluginOps::DoLocalPick(TensorView logits, absl::Span<const MassRequest> requests,
                            const VocabularySlice& slice, TensorView out) {
  for (size_t i = 0; i < requests.size(); ++i) {
    int32_t words[2];
    PickByMass(CopyRow(logits, requests[i].row), requests[i], slice, &scratch_, words);
    CopyBack(words, out, static_cast<int64_t>(i));
  }
}

void PluginOps::DoEditLogits(TensorView logits, absl::Span<const LogitEdits> edits,
                             int64_t first_id, TensorView out) {
  std::vector<float> edited(static_cast<size_t>(logits.columns()));
  for (size_t i = 0; i < edits.size(); ++i) {
    const int64_t row = static_cast<int64_t>(i);
    CopyEdited(CopyRow(logits, row), edits[i], first_id, absl::MakeSpan(edited));
    table_->copy_from_host(device_, edited.data(),
                           static_cast<float*>(out.data) + row * out.row_stride,
                           edited.size() * sizeof(float));
  }
}

void PluginOps::DoSample(TensorView logits, absl::Span<const SamplingRow> rows, int64_t valid_ids,
                         TensorView out) {
  const auto has_min_p = [](const SamplingRow& row) { return row.min_p > 0; };
  if (std::any_of(rows.begin(), rows.end(), has_min_p)) {
    for (size_t i = 0; i < rows.size(); ++i) {
      const int64_t row = static_cast<int64_t>(i);
      const int32_t token = SampleRow(
          CopyRow(logits, row).subspan(0, static_cast<size_t>(valid_ids)), rows[i], &scratch_);
      CopyBack({&token, 1}, out, row);
    }
    return;
  }
  const CohortCudaTensor plugin_logits = ToPlugin(logits);
  std::vector<CohortCudaSamplingRow> plugin_rows;
  plugin_rows.reserve(rows.size());
  for (const SamplingRow& row : rows) {
    plugin_rows.push_back(ToPlugin(row));
  }
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->sample(device_, &plugin_logits, plugin_rows.data(), valid_ids, &plugin_out);
}

}  // namespace cohort
