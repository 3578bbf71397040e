#include "kernels/ops.h"

#include <algorithm>
#include <cmath>

#include "kernels/ops_checks.h"

namespace cohort {
namespace {

constexpr int64_t kMaxHeadDim = 256;

void CheckNorm(const TensorView& x, const TensorView& gamma, float eps, const TensorView& out) {
  CheckRank(x, 2, "RmsNorm x");
  CheckActivation(x, "RmsNorm x");
  CheckDType(gamma, x.dtype, "RmsNorm gamma");
  CheckShape(gamma, Shape{x.columns()}, "RmsNorm gamma");
  CHECK(x.columns() <= 1 || gamma.row_stride == 1) << "RmsNorm gamma is strided";
  CheckDType(out, x.dtype, "RmsNorm out");
  CheckShape(out, x.shape, "RmsNorm out");
  CHECK(std::isfinite(eps) && eps >= 0) << "RmsNorm eps is " << eps;
}

void CheckBatch(const BatchView& batch, int64_t tokens) {
  CHECK_EQ(batch.tokens, tokens) << "rows of the batch";
  CHECK(batch.leading_decodes >= 0 && batch.leading_decodes <= batch.sequences &&
        batch.leading_decodes <= tokens)
      << batch.leading_decodes << " decodes of " << batch.sequences << " sequences";
  CHECK(batch.longest_chunk >= 0 && batch.longest_chunk <= tokens)
      << "a chunk of " << batch.longest_chunk << " rows of " << tokens;
  CheckIndices(batch.first_rows, batch.sequences + 1, "batch first_rows");
  CheckIndices(batch.positions, tokens, "batch positions");
  CheckIndices(batch.sequence_of_token, tokens, "batch sequence_of_token");
  CheckRank(batch.block_table, 2, "batch block_table");
  CheckDType(batch.block_table, DType::kI32, "batch block_table");
  CHECK_EQ(batch.block_table.rows(), batch.sequences) << "rows of block_table";
}

void CheckKv(const KvView& kv, DType dtype) {
  CheckRank(kv.keys, 4, "KV keys");
  CheckDType(kv.keys, dtype, "KV keys");
  CheckDType(kv.values, dtype, "KV values");
  CheckShape(kv.values, kv.keys.shape, "KV values");
  CHECK_GT(kv.block_size(), 0) << "KV block size";
  CHECK(kv.head_dim() % 2 == 0 && kv.head_dim() <= kMaxHeadDim)
      << "head_dim " << kv.head_dim() << " is odd or above " << kMaxHeadDim;
}

void CheckMatMul(const TensorView& x, const Weight& w, const TensorView* bias,
                 const TensorView& out) {
  CheckRank(x, 2, "MatMul x");
  CheckActivation(x, "MatMul x");
  CheckRank(w.data, 2, "MatMul w");
  CheckDType(w.data, x.dtype, "MatMul w");
  CHECK_EQ(x.columns(), w.data.columns()) << "MatMul inner dimension";
  CheckShape(out, Shape{x.rows(), w.data.rows()}, "MatMul out");
  CHECK(out.dtype == x.dtype || out.dtype == DType::kF32)
      << "MatMul out holds " << NameOf(out.dtype) << ", x " << NameOf(x.dtype);
  if (bias != nullptr) {
    CheckDType(*bias, x.dtype, "MatMul bias");
    CheckShape(*bias, Shape{out.columns()}, "MatMul bias");
    CHECK(out.columns() <= 1 || bias->row_stride == 1) << "MatMul bias is strided";
  }
}

void CheckRopeTable(const RopeTable& rope, const KvView& kv) {
  CheckRank(rope.cosine, 2, "rope cosine");
  CheckDType(rope.cosine, DType::kF32, "rope cosine");
  CheckDType(rope.sine, DType::kF32, "rope sine");
  CheckShape(rope.sine, rope.cosine.shape, "rope sine");
  CHECK_EQ(rope.cosine.columns(), kv.head_dim() / 2) << "columns of the rope table";
}

void CheckAttention(const TensorView& queries, absl::Span<const int32_t> kv_head_of_query,
                    const BatchView& batch, const KvView& kv, float scale, const TensorView& out) {
  CheckRank(queries, 2, "PagedAttention queries");
  CheckActivation(queries, "PagedAttention queries");
  CheckKv(kv, queries.dtype);
  CheckBatch(batch, queries.rows());
  const int64_t query_heads = static_cast<int64_t>(kv_head_of_query.size());
  CHECK_EQ(queries.columns(), query_heads * kv.head_dim()) << "PagedAttention columns";
  for (const int32_t kv_head : kv_head_of_query) {
    CHECK(kv_head >= 0 && kv_head < kv.kv_heads())
        << "KV head " << kv_head << " of " << kv.kv_heads();
  }
  CHECK(std::isfinite(scale)) << "PagedAttention scale is " << scale;
  CheckDType(out, queries.dtype, "PagedAttention out");
  CheckShape(out, queries.shape, "PagedAttention out");
}

void CheckDualChunks(const DualChunks& chunks, const BatchView& batch, const KvView& kv) {
  CHECK(chunks.chunk_length >= 1 && chunks.chunk_length < chunks.chunk_size)
      << "chunks of " << chunks.chunk_length << " with distances up to " << chunks.chunk_size;
  CheckRopeTable(chunks.rope, kv);
  CHECK_EQ(chunks.rope.cosine.rows(), std::min(chunks.chunk_size, 2 * chunks.chunk_length - 1) + 1)
      << "rows of the rope table of dual chunks";
  CheckDType(batch.logit_factors, DType::kF32, "batch logit_factors");
  CheckShape(batch.logit_factors, Shape{batch.tokens}, "batch logit_factors");
}

void CheckRope(const TensorView& qkv, int64_t query_heads, const RopeTable& rope,
               const BatchView& batch, const KvView& kv) {
  CheckRank(qkv, 2, "RopeAndStoreKv qkv");
  CheckActivation(qkv, "RopeAndStoreKv qkv");
  CheckKv(kv, qkv.dtype);
  CheckBatch(batch, qkv.rows());
  CHECK_GE(query_heads, 0);
  CHECK_EQ(qkv.columns(), (query_heads + 2 * kv.kv_heads()) * kv.head_dim())
      << "RopeAndStoreKv columns";
  CheckRopeTable(rope, kv);
  CheckIndices(batch.rope_rows, batch.tokens, "batch rope_rows");
}

void CheckSilu(const TensorView& gate_up, const TensorView& out) {
  CheckRank(out, 2, "SiluMultiply out");
  CheckActivation(out, "SiluMultiply out");
  CheckDType(gate_up, out.dtype, "SiluMultiply gate_up");
  CheckShape(gate_up, Shape{out.rows(), 2 * out.columns()}, "SiluMultiply gate_up");
}

void CheckDenseLayer(const DenseStep& step, const DenseLayer& layer) {
  CheckNorm(step.residual, layer.attention_norm, step.eps, step.normed);
  CheckNorm(step.residual, layer.ffn_norm, step.eps, step.normed);
  CheckMatMul(step.normed, layer.qkv, layer.qkv_bias, step.qkv);
  CheckRope(step.qkv, step.query_heads(), step.rope, step.batch, layer.kv);
  CheckAttention(step.queries(), step.kv_head_of_query, step.batch, layer.kv, step.scale,
                 step.attended);
  CheckMatMul(step.attended, layer.attention_out, nullptr, step.partial);
  CheckMatMul(step.normed, layer.gate_up, nullptr, step.gate_up);
  CheckMatMul(step.activated, layer.down, nullptr, step.partial);
}

void CheckRouting(const Routing& routing, int64_t tokens) {
  CheckRank(routing.ids, 2, "routing ids");
  CheckDType(routing.ids, DType::kI32, "routing ids");
  CheckDType(routing.weights, DType::kF32, "routing weights");
  CheckShape(routing.weights, routing.ids.shape, "routing weights");
  CHECK_EQ(routing.ids.rows(), tokens) << "rows of the routing";
}

void CheckExperts(const ExpertWeights& experts, const TensorView& x) {
  CheckRank(experts.down, 3, "experts' down");
  CheckDType(experts.gate_up, x.dtype, "experts' gate_up");
  CheckDType(experts.down, x.dtype, "experts' down");
  CheckShape(experts.down, Shape{experts.count(), x.columns(), experts.columns()}, "experts' down");
  CheckShape(experts.gate_up, Shape{experts.count(), 2 * experts.columns(), x.columns()},
             "experts' gate_up");
  CHECK_GE(experts.first, 0) << "first expert";
}

void CheckScratch(const ExpertScratch& scratch, int64_t pairs, int64_t columns, DType dtype) {
  CheckDType(scratch.gate_up, dtype, "experts' scratch");
  CheckDType(scratch.activated, dtype, "experts' scratch");
  CHECK_GE(scratch.activated.rows(), pairs) << "pairs of the experts' scratch";
  CheckShape(scratch.activated, Shape{scratch.activated.rows(), columns}, "experts' scratch");
  CheckShape(scratch.gate_up, Shape{scratch.activated.rows(), 2 * columns}, "experts' scratch");
}

}  // namespace

void Ops::Embed(TensorView ids, TensorView table, int64_t first_row, TensorView out) {
  CheckRank(table, 2, "Embed table");
  CheckActivation(table, "Embed table");
  CheckRank(out, 2, "Embed out");
  CheckIndices(ids, out.rows(), "Embed ids");
  CHECK_EQ(out.columns(), table.columns()) << "Embed hidden size";
  CHECK(out.dtype == table.dtype || out.dtype == DType::kF32)
      << "Embed out holds " << NameOf(out.dtype) << ", the table " << NameOf(table.dtype);
  CHECK_GE(first_row, 0) << "Embed first_row";
  if (out.rows() > 0 && out.columns() > 0) {
    DoEmbed(ids, table, first_row, out);
  }
}

void Ops::RmsNorm(TensorView x, TensorView gamma, float eps, TensorView out) {
  CheckNorm(x, gamma, eps, out);
  if (x.rows() > 0 && x.columns() > 0) {
    DoRmsNorm(x, gamma, eps, out);
  }
}

void Ops::AddRmsNorm(TensorView residual, TensorView x, TensorView gamma, float eps,
                     TensorView out) {
  CheckNorm(residual, gamma, eps, out);
  CheckShape(x, residual.shape, "AddRmsNorm x");
  CHECK(x.dtype == residual.dtype || x.dtype == DType::kF32)
      << "AddRmsNorm x holds " << NameOf(x.dtype) << ", the residual " << NameOf(residual.dtype);
  if (residual.rows() > 0 && residual.columns() > 0) {
    DoAddRmsNorm(residual, x, gamma, eps, out);
  }
}

void Ops::MatMul(TensorView x, const Weight& w, const TensorView* bias, TensorView out) {
  CheckMatMul(x, w, bias, out);
  if (out.rows() > 0 && out.columns() > 0) {
    DoMatMul(x, w, bias, out);
  }
}

void Ops::RopeAndStoreKv(TensorView qkv, int64_t query_heads, const RopeTable& rope,
                         const BatchView& batch, const KvView& kv) {
  CheckRope(qkv, query_heads, rope, batch, kv);
  if (qkv.rows() > 0 && qkv.columns() > 0) {
    DoRopeAndStoreKv(qkv, query_heads, rope, batch, kv);
  }
}

void Ops::ProjectQkv(TensorView x, const Weight& w, const TensorView* bias, TensorView qkv,
                     int64_t query_heads, const RopeTable& rope, const BatchView& batch,
                     const KvView& kv) {
  CheckMatMul(x, w, bias, qkv);
  CheckRope(qkv, query_heads, rope, batch, kv);
  if (qkv.rows() > 0 && qkv.columns() > 0) {
    DoProjectQkv(x, w, bias, qkv, query_heads, rope, batch, kv);
  }
}

void Ops::DoProjectQkv(TensorView x, const Weight& w, const TensorView* bias, TensorView qkv,
                       int64_t query_heads, const RopeTable& rope, const BatchView& batch,
                       const KvView& kv) {
  DoMatMul(x, w, bias, qkv);
  DoRopeAndStoreKv(qkv, query_heads, rope, batch, kv);
}

void Ops::PagedAttention(TensorView queries, absl::Span<const int32_t> kv_head_of_query,
                         const BatchView& batch, const KvView& kv, float scale, TensorView out) {
  CheckAttention(queries, kv_head_of_query, batch, kv, scale, out);
  if (queries.rows() > 0 && queries.columns() > 0) {
    DoPagedAttention(queries, kv_head_of_query, batch, kv, scale, out);
  }
}

void Ops::ProjectGateUp(TensorView x, const Weight& w, TensorView gate_up, TensorView out) {
  CheckMatMul(x, w, nullptr, gate_up);
  CheckSilu(gate_up, out);
  if (out.rows() > 0 && out.columns() > 0) {
    DoProjectGateUp(x, w, gate_up, out);
  }
}

void Ops::DoProjectGateUp(TensorView x, const Weight& w, TensorView gate_up, TensorView out) {
  DoMatMul(x, w, nullptr, gate_up);
  DoSiluMultiply(gate_up, out);
}

void Ops::DenseLayers(const DenseStep& step) {
  CHECK(!step.layers.empty()) << "DenseLayers without a layer";
  CheckNorm(step.residual, step.final_norm, step.eps, step.normed);
  CheckDType(step.partial, DType::kF32, "DenseLayers partial");
  CheckShape(step.partial, step.residual.shape, "DenseLayers partial");
  CheckSilu(step.gate_up, step.activated);
  for (const DenseLayer& layer : step.layers) {
    CheckDenseLayer(step, layer);
  }
  if (step.residual.rows() > 0) {
    DoDenseLayers(step);
  }
}

// Of the public operations, which know about empty tensors.
void Ops::DoDenseLayers(const DenseStep& s) {
  RmsNorm(s.residual, s.layers.front().attention_norm, s.eps, s.normed);
  for (size_t i = 0; i < s.layers.size(); ++i) {
    const DenseLayer& layer = s.layers[i];
    const bool is_last = i + 1 == s.layers.size();
    ProjectQkv(s.normed, layer.qkv, layer.qkv_bias, s.qkv, s.query_heads(), s.rope, s.batch,
               layer.kv);
    PrefetchWeights({.product = layer.attention_out.data, .gate_up = layer.gate_up.data});
    PagedAttention(s.queries(), s.kv_head_of_query, s.batch, layer.kv, s.scale, s.attended);
    MatMul(s.attended, layer.attention_out, nullptr, s.partial);
    AddRmsNorm(s.residual, s.partial, layer.ffn_norm, s.eps, s.normed);
    ProjectGateUp(s.normed, layer.gate_up, s.gate_up, s.activated);
    MatMul(s.activated, layer.down, nullptr, s.partial);
    AddRmsNorm(s.residual, s.partial, is_last ? s.final_norm : s.layers[i + 1].attention_norm,
               s.eps, s.normed);
  }
}

void Ops::DualChunkAttention(TensorView queries, absl::Span<const int32_t> kv_head_of_query,
                             const DualChunks& chunks, const BatchView& batch, const KvView& kv,
                             float scale, TensorView out) {
  CheckAttention(queries, kv_head_of_query, batch, kv, scale, out);
  CheckDualChunks(chunks, batch, kv);
  if (queries.rows() > 0 && queries.columns() > 0) {
    DoDualChunkAttention(queries, kv_head_of_query, chunks, batch, kv, scale, out);
  }
}

void Ops::SiluMultiply(TensorView gate_up, TensorView out) {
  CheckSilu(gate_up, out);
  if (out.rows() > 0 && out.columns() > 0) {
    DoSiluMultiply(gate_up, out);
  }
}

void Ops::RouteTopK(TensorView logits, bool normalize, const Routing& routing) {
  CheckRank(logits, 2, "RouteTopK logits");
  CheckActivation(logits, "RouteTopK logits");
  CheckRouting(routing, logits.rows());
  CHECK(routing.ids.columns() >= 1 && routing.ids.columns() <= logits.columns())
      << "RouteTopK chooses " << routing.ids.columns() << " of " << logits.columns() << " experts";
  if (logits.rows() > 0) {
    DoRouteTopK(logits, normalize, routing);
  }
}

void Ops::RoutedFfn(TensorView x, const Routing& routing, const ExpertWeights& experts,
                    const ExpertScratch& scratch, TensorView out) {
  CheckRank(x, 2, "RoutedFfn x");
  CheckActivation(x, "RoutedFfn x");
  CheckRouting(routing, x.rows());
  CheckExperts(experts, x);
  const int64_t pairs = x.rows() * std::min(routing.ids.columns(), experts.count());
  CheckScratch(scratch, pairs, experts.columns(), x.dtype);
  CheckDType(out, DType::kF32, "RoutedFfn out");
  CheckShape(out, x.shape, "RoutedFfn out");
  if (out.rows() > 0 && out.columns() > 0) {
    DoRoutedFfn(x, routing, experts, scratch, out);
  }
}

void Ops::CountIds(TensorView ids, TensorView counts) {
  CheckRank(ids, 2, "CountIds ids");
  CheckDType(ids, DType::kI32, "CountIds ids");
  CheckIndices(counts, counts.rows(), "CountIds counts");
  if (ids.rows() > 0 && ids.columns() > 0) {
    DoCountIds(ids, counts);
  }
}

void Ops::AddGated(TensorView x, TensorView gate, TensorView out) {
  CheckRank(out, 2, "AddGated out");
  CheckDType(out, DType::kF32, "AddGated out");
  CheckDType(x, DType::kF32, "AddGated x");
  CheckShape(x, out.shape, "AddGated x");
  CheckActivation(gate, "AddGated gate");
  CheckShape(gate, Shape{out.rows(), 1}, "AddGated gate");
  if (out.rows() > 0 && out.columns() > 0) {
    DoAddGated(x, gate, out);
  }
}

void Ops::FillRandom(const RandomFill& fill, TensorView out) {
  CheckRank(out, 2, "FillRandom out");
  CheckActivation(out, "FillRandom out");
  CHECK(fill.first_row >= 0 && fill.first_column >= 0 &&
        fill.first_column + out.columns() <= fill.stored_columns)
      << "FillRandom of columns from " << fill.first_column << " on";
  CHECK(fill.width == 0 || fill.center == 0) << "FillRandom center " << fill.center;
  if (out.rows() > 0 && out.columns() > 0) {
    DoFillRandom(fill, out);
  }
}

void Ops::GatherRows(TensorView x, TensorView rows, TensorView out) {
  CheckRank(x, 2, "GatherRows x");
  CheckRank(out, 2, "GatherRows out");
  CheckDType(out, x.dtype, "GatherRows out");
  CheckIndices(rows, out.rows(), "GatherRows rows");
  CHECK_EQ(out.columns(), x.columns()) << "GatherRows columns";
  if (out.rows() > 0 && out.columns() > 0) {
    DoGatherRows(x, rows, out);
  }
}

}  // namespace cohort
