// The set of operations a model is written in. The public half checks shapes and dtypes once
// (violations are bugs: CHECK); the Do...() of cpu/ and cuda/ only compute. Calls enqueue and
// return; errors of the device come out of Device::Synchronize().
//
// "act" below is the activation dtype, fp32 or bf16. Every sum is accumulated in fp32, and each
// output element is rounded once to the dtype of its tensor unless a step says otherwise. Casts
// follow the Hugging Face reference implementation of Qwen2. A tensor of zero rows or zero columns
// is legal everywhere.
//
// Order of summation: on the CPU every output element is summed in one order that depends on its
// own row and the device's instruction set alone. Results are equal to the bit whatever rows are
// computed beside them, in whatever chunks and on how many threads (--deterministic promises it).
// A backend that hands products to a library may sum another batch in another order.
#ifndef COHORT_KERNELS_OPS_H_
#define COHORT_KERNELS_OPS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/random_fill.h"
#include "kernels/sampling.h"
#include "kernels/tensor.h"

namespace cohort {

// A matrix as MatMul multiplies with it; quantised layouts add fields beside `data`.
struct Weight {
  TensorView data;  // [out, in], act
};

// cos and sin of position * inverse_frequency[i], already multiplied by the attention factor and
// rounded to the activation dtype (kept as fp32 numbers).
struct RopeTable {
  TensorView cosine;       // [rows, head_dim / 2] fp32
  TensorView sine;         // [rows, head_dim / 2] fp32
  bool keys_only = false;  // queries stay as they are: DualChunkAttention rotates them
};

// The rows of one step: any mixture of prefill chunks and decodes. Row r of sequence s sits at
// position positions[r]; it sees the keys of positions 0..positions[r] of its sequence. The rows of
// a sequence lie together at ascending positions, sequence after sequence.
// All arrays live in device memory; numbers are known to the host.
struct BatchView {
  int64_t tokens = 0;  // rows of this step
  int64_t sequences = 0;
  TensorView positions;           // [tokens] int32, absolute positions
  TensorView sequence_of_token;   // [tokens] int32, index into block_table's rows
  TensorView block_table;         // [sequences, max blocks] int32, ids of KV blocks in order
  TensorView rope_rows = {};      // [tokens] int32, the row of the rope table that rotates a token
  TensorView logit_factors = {};  // [tokens] fp32, positive; only DualChunkAttention reads them
  TensorView first_rows = {};     // [sequences + 1] int32, where the rows of each sequence begin
  int64_t leading_decodes = 0;    // so many of the first sequences have one row each
  int64_t longest_chunk = 0;      // no sequence has more rows
};

// The paged key-value memory of one layer on this rank. Position p of a sequence is slot
// p % block_size of block block_table[sequence][p / block_size]. Keys are stored after rope.
struct KvView {
  TensorView keys;    // [blocks, kv_heads, block_size, head_dim] act
  TensorView values;  // [blocks, kv_heads, block_size, head_dim] act
  int64_t block_size() const { return keys.shape[2]; }
  int64_t kv_heads() const { return keys.shape[1]; }
  int64_t head_dim() const { return keys.shape[3]; }
};

// Where the rows of a layer with experts go: the router's choice.
struct Routing {
  TensorView ids;      // [tokens, k] int32: experts of the whole model; others are nowhere
  TensorView weights;  // [tokens, k] fp32
};

// Some consecutive experts of one layer, whole or a slice of their columns.
struct ExpertWeights {
  TensorView gate_up;  // [experts, 2 * columns, hidden] act: gate, up
  TensorView down;     // [experts, hidden, columns] act
  int64_t first = 0;   // id of the first of them

  int64_t count() const { return down.shape[0]; }
  int64_t columns() const { return down.shape[2]; }
};

// Weights that the operations behind the next attention read, in their order. Views without data:
// no such operation.
struct NextWeights {
  TensorView product = {};  // by MatMul
  TensorView gate_up = {};  // by ProjectGateUp
};

// A layer with a dense FFN.
struct DenseLayer {
  TensorView attention_norm;             // [hidden] act
  Weight qkv;                            // [columns of DenseStep::qkv, hidden]
  const TensorView* qkv_bias = nullptr;  // null or [columns of DenseStep::qkv] act
  Weight attention_out;                  // [hidden, columns of DenseStep::attended]
  TensorView ffn_norm;                   // [hidden] act
  Weight gate_up;                        // [columns of DenseStep::gate_up, hidden]
  Weight down;                           // [hidden, columns of DenseStep::activated]
  KvView kv;
};

// The layers of a step, whole: no rank has a part of them only.
struct DenseStep {
  absl::Span<const DenseLayer> layers;  // at least one
  TensorView final_norm;                // [hidden] act
  float eps = 0;
  RopeTable rope;
  BatchView batch;
  absl::Span<const int32_t> kv_head_of_query;
  float scale = 1;
  // Memory, unspecified afterwards but for `normed`.
  TensorView residual;   // [tokens, hidden] act: the embedded tokens
  TensorView normed;     // [tokens, hidden] act: what the last norm gives
  TensorView partial;    // [tokens, hidden] fp32
  TensorView qkv;        // [tokens, (query_heads + 2 kv_heads) * head_dim] act
  TensorView attended;   // [tokens, query_heads * head_dim] act
  TensorView gate_up;    // [tokens, 2 * columns] act
  TensorView activated;  // [tokens, columns] act

  int64_t query_heads() const { return static_cast<int64_t>(kv_head_of_query.size()); }
  TensorView queries() const { return qkv.Columns(0, attended.columns()); }
};

// What a step keeps per pair of a row and one of its experts.
struct ExpertScratch {
  TensorView gate_up;    // [pairs, 2 * columns] act
  TensorView activated;  // [pairs, columns] act
};

// The rotations of dual chunk attention (arXiv 2402.17463). Keys lie in the KV memory as the row
// position % chunk_length rotates them.
struct DualChunks {
  int64_t chunk_size = 0;    // the longest distance that appears
  int64_t chunk_length = 0;  // positions of a chunk, below chunk_size
  RopeTable rope;            // rows 0..min(chunk_size, 2 * chunk_length - 1)
};

// What a recorded step knows of its rows of logits after ChooseRecorded.
struct RecordedRows {
  TensorView records;  // [n, ranks * words] int32, dense, rank by rank inside a row
  int64_t ranks = 1;
  TensorView sampling;  // [n, kSamplingWords] int32
  TensorView tokens;    // [n] int32, kUndecided where the records did not suffice
};

class Ops {
 public:
  virtual ~Ops() = default;

  // out[t] = table[ids[t] - first_row] when that row is on this rank, else zeros (the sum over
  // ranks is then the embedding, exactly). ids [tokens] int32; table [rows, hidden] act; out
  // [tokens, hidden] act|fp32.
  void Embed(TensorView ids, TensorView table, int64_t first_row, TensorView out);

  // out = round(round(x / sqrt(mean(x^2) + eps)) * gamma): the normalised row is rounded to act
  // before the multiplication. x, out [tokens, hidden] act; gamma [hidden] act.
  void RmsNorm(TensorView x, TensorView gamma, float eps, TensorView out);

  // residual = round(residual + round(x)); out = RmsNorm(residual). residual, out [tokens, hidden]
  // act; x [tokens, hidden] act or fp32 (a reduced partial sum), rounded to act first.
  void AddRmsNorm(TensorView residual, TensorView x, TensorView gamma, float eps, TensorView out);

  // out = x w^T + bias, the bias added to the fp32 sum before the single rounding.
  // x [tokens, in] act (rows may be strided); w [out, in] act; bias null or [out] act; out [tokens,
  // out] act or fp32.
  void MatMul(TensorView x, const Weight& w, const TensorView* bias, TensorView out);

  // qkv [tokens, (query_heads + 2 kv_heads) * head_dim] act: rotates the queries in place (half
  // rotation, each product rounded to act, then their sum) unless the table is for keys only, and
  // writes rotated keys and values to `kv`.
  void RopeAndStoreKv(TensorView qkv, int64_t query_heads, const RopeTable& rope,
                      const BatchView& batch, const KvView& kv);

  // out[t, h] = softmax(scale * q[t, h] . keys) values over positions 0..positions[t]; logits,
  // softmax and the weighted sum in fp32; a backend may round the weights of that sum to act, their
  // total not. queries [tokens, query_heads * head_dim] act, rows may be
  // strided; kv_head_of_query [query_heads] int32 (host memory); out [tokens, query_heads *
  // head_dim] act.
  void PagedAttention(TensorView queries, absl::Span<const int32_t> kv_head_of_query,
                      const BatchView& batch, const KvView& kv, float scale, TensorView out);

  // A hint for the next attention, which may leave memory idle: a backend may bring a part of these
  // weights nearer meanwhile. Changes no result.
  void PrefetchWeights(const NextWeights& next) { DoPrefetchWeights(next); }

  // PagedAttention with queries that are rotated here, each as RopeAndStoreKv would: the query at
  // position p, r = p % chunk_length, by row r for the keys of its own chunk, by row
  // min(r + chunk_length, chunk_size) for those of the chunk before, and by the table's last row
  // for those of older chunks. Its logits are scaled by scale * logit_factors[token] (rounded to
  // fp32); one softmax over all keys. In the first chunk the result is PagedAttention's, to the
  // bit.
  void DualChunkAttention(TensorView queries, absl::Span<const int32_t> kv_head_of_query,
                          const DualChunks& chunks, const BatchView& batch, const KvView& kv,
                          float scale, TensorView out);

  // out = round(round(silu(gate)) * up). gate_up [tokens, 2 * columns] act, gate first; out
  // [tokens, columns] act.
  void SiluMultiply(TensorView gate_up, TensorView out);

  // MatMul into `qkv`, then RopeAndStoreKv: x [tokens, hidden] act, w [columns of qkv, hidden] act,
  // bias null or [columns of qkv] act. Afterwards only the queries of `qkv` are specified.
  void ProjectQkv(TensorView x, const Weight& w, const TensorView* bias, TensorView qkv,
                  int64_t query_heads, const RopeTable& rope, const BatchView& batch,
                  const KvView& kv);

  // MatMul into `gate_up`, then SiluMultiply into `out`: x [tokens, hidden] act, w [columns of
  // gate_up, hidden] act. Afterwards `gate_up` is unspecified.
  void ProjectGateUp(TensorView x, const Weight& w, TensorView gate_up, TensorView out);

  // The step through all of its layers: RmsNorm of the residual, then of each layer ProjectQkv,
  // PagedAttention, MatMul and AddRmsNorm, ProjectGateUp, MatMul and AddRmsNorm with the next
  // layer's norm, at last the final one.
  void DenseLayers(const DenseStep& step);

  // The k most probable experts of every row, k the columns of `routing`: softmax in fp32 over all
  // of them, then the largest in descending order, the lower id first among equals; with
  // `normalize` the chosen weights are divided by their sum; rounded to the dtype of the logits. A
  // row with a NaN, or without a finite logit, gets weights of NaN. logits [tokens, experts] act,
  // rows may be strided; 1 <= k <= experts.
  void RouteTopK(TensorView logits, bool normalize, const Routing& routing);

  // out[t] = the sum over row t's experts among `experts`, ascending, of weight * down(round(round(
  // silu(gate)) * up)); zeros where it has none. x [tokens, hidden] act; out [tokens, hidden] fp32;
  // scratch for min(k, experts) pairs of every row, unspecified afterwards. An id occurs once in
  // its row.
  void RoutedFfn(TensorView x, const Routing& routing, const ExpertWeights& experts,
                 const ExpertScratch& scratch, TensorView out);

  // counts[id] += 1 for every id that is one of counts' places. ids [n, k] int32; counts [m] int32,
  // which wraps around.
  void CountIds(TensorView ids, TensorView counts);

  // out += round(sigmoid(gate)) * x. x, out [tokens, hidden] fp32; gate [tokens, 1] act, rows may
  // be strided.
  void AddGated(TensorView x, TensorView gate, TensorView out);

  // out[r, c] = round(RandomFillAt(fill, r, c)). out [rows, columns] act, in device memory or in
  // the host memory of the device.
  void FillRandom(const RandomFill& fill, TensorView out);

  // out[i] = x[rows[i]]. rows [n] int32 in device memory; x [tokens, columns]; out [n, columns] of
  // x's dtype.
  void GatherRows(TensorView x, TensorView rows, TensorView out);

  // One CandidateRecord (candidates.h) per row of this rank's columns after the edits of its
  // request. logits [n, columns] fp32, left unchanged; out [n, words] int32 in device memory, rows
  // may be strided, with room for every request's candidates. A request for no candidates gives an
  // empty record.
  void LocalCandidates(TensorView logits, absl::Span<const CandidateRequest> requests,
                       const VocabularySlice& slice, TensorView out);

  // out[i] = the sum of the masses that requests[i] describes over this rank's columns, as two
  // words with the low one first. logits [n, columns] fp32 without NaN, left unchanged; out
  // [requests, 2] int32 in device memory.
  void LocalMasses(TensorView logits, absl::Span<const MassRequest> requests,
                   const VocabularySlice& slice, TensorView out);

  // out[i] = the id that requests[i].wanted finds among this rank's columns and the bits of its
  // logit before the edits; kNoToken and 0 for kOtherRank. Shapes as LocalMasses.
  void LocalPick(TensorView logits, absl::Span<const MassRequest> requests,
                 const VocabularySlice& slice, TensorView out);

  // LocalCandidates for rows without edits whose settings lie in device memory, so that a recorded
  // step can be repeated with others. sampling [n, kSamplingWords] int32 (sampling.h); out [n, >=
  // CandidateRecord::Words(candidates)] int32, rows may be strided: `candidates` of the largest
  // logits (1..kMaxCandidates), and the sum of masses at the row's temperature, 0 where it is 0.
  void RecordedCandidates(TensorView logits, TensorView sampling, int32_t candidates,
                          const VocabularySlice& slice, TensorView out);

  // tokens[i] = what CandidateChooser (candidate_choice.h) reads from the records of all ranks, or
  // kNoToken for a NaN or nothing finite, or kUndecided where the records do not suffice. records
  // [n, ranks * words] int32, dense, rank by rank inside a row; sampling as above; tokens [n]
  // int32.
  void ChooseRecorded(TensorView records, int64_t ranks, TensorView sampling, int64_t valid_ids,
                      TensorView tokens);

  // LocalMasses of the rows that are chosen by mass: those whose token is kUndecided and whose
  // settings bound the ids by nothing but min-p; 0 for all others. out [n, 2] int32.
  void RecordedMasses(TensorView logits, const RecordedRows& rows, const VocabularySlice& slice,
                      TensorView out);

  // LocalPick of these rows on rank `rank`: out [n, 2] int32 is the id and the bits of its logit
  // where its columns hold the row's part of all ranks' masses, kNoToken and 0 elsewhere. masses
  // [n, ranks * 2] int32, dense: what the ranks got of RecordedMasses.
  void RecordedPicks(TensorView logits, const RecordedRows& rows, TensorView masses, int64_t rank,
                     const VocabularySlice& slice, TensorView out);

  // tokens[i] = the one id among the ranks' picks of row i, where tokens[i] is kUndecided and there
  // is one. picks [n, ranks * 2] int32, dense; tokens [n] int32.
  void TakePicks(TensorView picks, TensorView tokens);

  // tokens[i] = what Sample() chooses of the whole row by its settings in device memory, where
  // tokens[i] is kUndecided. logits [n, vocabulary] fp32; sampling [n, kSamplingWords] int32;
  // tokens [n] int32.
  void SampleUndecided(TensorView logits, TensorView sampling, int64_t valid_ids,
                       TensorView tokens);

  // ids[i] = sources[i] where it is an id, else the token that slot -1 - sources[i] sampled last.
  // sources, ids [n] int32; last_tokens [slots] int32. A slot whose last token is none (below 0)
  // gives id 0.
  void SelectIds(TensorView sources, TensorView last_tokens, TensorView ids);

  // last_tokens[slots[i]] = tokens[i] where slots[i] >= 0. slots, tokens [n] int32; a slot comes
  // once at most.
  void StoreTokens(TensorView tokens, TensorView slots, TensorView last_tokens);

  // out[i] = logits[i] after edits[i]. logits, out [n, columns] fp32; column 0 is `first_id`.
  void EditLogits(TensorView logits, absl::Span<const LogitEdits> edits, int64_t first_id,
                  TensorView out);

  // Chooses one id per row: temperature, then top-k, then top-p over the sorted distribution, then
  // min-p, then the inverse CDF over the kept ids in ascending order of id with one Philox uniform
  // per (seed, sequence_index, position). Ids at or above `valid_ids` are never chosen. A row
  // holding a NaN (or nothing finite) gives kNoToken. logits [n, vocabulary] fp32, left unchanged;
  // rows: host memory; out [n] int32 in device memory.
  void Sample(TensorView logits, absl::Span<const SamplingRow> rows, int64_t valid_ids,
              TensorView out);

 protected:
  virtual void DoEmbed(TensorView ids, TensorView table, int64_t first_row, TensorView out) = 0;
  virtual void DoRmsNorm(TensorView x, TensorView gamma, float eps, TensorView out) = 0;
  virtual void DoAddRmsNorm(TensorView residual, TensorView x, TensorView gamma, float eps,
                            TensorView out) = 0;
  virtual void DoMatMul(TensorView x, const Weight& w, const TensorView* bias, TensorView out) = 0;
  virtual void DoRopeAndStoreKv(TensorView qkv, int64_t query_heads, const RopeTable& rope,
                                const BatchView& batch, const KvView& kv) = 0;
  virtual void DoPagedAttention(TensorView queries, absl::Span<const int32_t> kv_head_of_query,
                                const BatchView& batch, const KvView& kv, float scale,
                                TensorView out) = 0;
  virtual void DoDualChunkAttention(TensorView queries, absl::Span<const int32_t> kv_head_of_query,
                                    const DualChunks& chunks, const BatchView& batch,
                                    const KvView& kv, float scale, TensorView out) = 0;
  virtual void DoPrefetchWeights(const NextWeights& /*next*/) {}
  virtual void DoSiluMultiply(TensorView gate_up, TensorView out) = 0;
  // The coarse operations are made of the small ones; a backend overrides what it can fuse.
  virtual void DoProjectQkv(TensorView x, const Weight& w, const TensorView* bias, TensorView qkv,
                            int64_t query_heads, const RopeTable& rope, const BatchView& batch,
                            const KvView& kv);
  virtual void DoProjectGateUp(TensorView x, const Weight& w, TensorView gate_up, TensorView out);
  virtual void DoDenseLayers(const DenseStep& step);
  virtual void DoRouteTopK(TensorView logits, bool normalize, const Routing& routing) = 0;
  virtual void DoRoutedFfn(TensorView x, const Routing& routing, const ExpertWeights& experts,
                           const ExpertScratch& scratch, TensorView out) = 0;
  virtual void DoCountIds(TensorView ids, TensorView counts) = 0;
  virtual void DoAddGated(TensorView x, TensorView gate, TensorView out) = 0;
  virtual void DoFillRandom(const RandomFill& fill, TensorView out) = 0;
  virtual void DoGatherRows(TensorView x, TensorView rows, TensorView out) = 0;
  virtual void DoLocalCandidates(TensorView logits, absl::Span<const CandidateRequest> requests,
                                 const VocabularySlice& slice, TensorView out) = 0;
  virtual void DoLocalMasses(TensorView logits, absl::Span<const MassRequest> requests,
                             const VocabularySlice& slice, TensorView out) = 0;
  virtual void DoLocalPick(TensorView logits, absl::Span<const MassRequest> requests,
                           const VocabularySlice& slice, TensorView out) = 0;
  virtual void DoRecordedCandidates(TensorView logits, TensorView sampling, int32_t candidates,
                                    const VocabularySlice& slice, TensorView out) = 0;
  virtual void DoChooseRecorded(TensorView records, int64_t ranks, TensorView sampling,
                                int64_t valid_ids, TensorView tokens) = 0;
  virtual void DoRecordedMasses(TensorView logits, const RecordedRows& rows,
                                const VocabularySlice& slice, TensorView out) = 0;
  virtual void DoRecordedPicks(TensorView logits, const RecordedRows& rows, TensorView masses,
                               int64_t rank, const VocabularySlice& slice, TensorView out) = 0;
  virtual void DoTakePicks(TensorView picks, TensorView tokens) = 0;
  virtual void DoSampleUndecided(TensorView logits, TensorView sampling, int64_t valid_ids,
                                 TensorView tokens) = 0;
  virtual void DoSelectIds(TensorView sources, TensorView last_tokens, TensorView ids) = 0;
  virtual void DoStoreTokens(TensorView tokens, TensorView slots, TensorView last_tokens) = 0;
  virtual void DoEditLogits(TensorView logits, absl::Span<const LogitEdits> edits, int64_t first_id,
                            TensorView out) = 0;
  virtual void DoSample(TensorView logits, absl::Span<const SamplingRow> rows, int64_t valid_ids,
                        TensorView out) = 0;
};

}  // namespace cohort

#endif  // COHORT_KERNELS_OPS_H_
