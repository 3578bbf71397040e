// The operations on the CPU. Each output element is summed in one fixed order that depends on the
// element's own row alone, so results are equal to the bit for every batch, chunk and thread count.
#ifndef COHORT_KERNELS_CPU_OPS_H_
#define COHORT_KERNELS_CPU_OPS_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/ops.h"

namespace cohort {

// Multiply-adds below which a thread costs more than it brings.
inline constexpr int64_t kGrainWork = 1 << 16;

inline int64_t RoundedUp(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

class CpuOps : public Ops {
 public:
  CpuOps(ThreadPool* threads, InstructionSet instruction_set);  // the pool outlives this

 protected:
  // pointwise.cc
  void DoEmbed(TensorView ids, TensorView table, int64_t first_row, TensorView out) override;
  void DoRmsNorm(TensorView x, TensorView gamma, float eps, TensorView out) override;
  void DoAddRmsNorm(TensorView residual, TensorView x, TensorView gamma, float eps,
                    TensorView out) override;
  void DoSiluMultiply(TensorView gate_up, TensorView out) override;
  void DoFillRandom(const RandomFill& fill, TensorView out) override;
  void DoGatherRows(TensorView x, TensorView rows, TensorView out) override;
  // gemm.cc
  void DoMatMul(TensorView x, const Weight& w, const TensorView* bias, TensorView out) override;
  void DoProjectGateUp(TensorView x, const Weight& w, TensorView gate_up, TensorView out) override;
  // experts.cc
  void DoRouteTopK(TensorView logits, bool normalize, const Routing& routing) override;
  void DoRoutedFfn(TensorView x, const Routing& routing, const ExpertWeights& experts,
                   const ExpertScratch& scratch, TensorView out) override;
  void DoCountIds(TensorView ids, TensorView counts) override;
  void DoAddGated(TensorView x, TensorView gate, TensorView out) override;
  // attention.cc
  void DoRopeAndStoreKv(TensorView qkv, int64_t query_heads, const RopeTable& rope,
                        const BatchView& batch, const KvView& kv) override;
  void DoPagedAttention(TensorView queries, absl::Span<const int32_t> kv_head_of_query,
                        const BatchView& batch, const KvView& kv, float scale,
                        TensorView out) override;
  void DoDualChunkAttention(TensorView queries, absl::Span<const int32_t> kv_head_of_query,
                            const DualChunks& chunks, const BatchView& batch, const KvView& kv,
                            float scale, TensorView out) override;
  void DoProjectQkv(TensorView x, const Weight& w, const TensorView* bias, TensorView qkv,
                    int64_t query_heads, const RopeTable& rope, const BatchView& batch,
                    const KvView& kv) override;
  // sampling.cc
  void DoLocalCandidates(TensorView logits, absl::Span<const CandidateRequest> requests,
                         const VocabularySlice& slice, TensorView out) override;
  void DoLocalMasses(TensorView logits, absl::Span<const MassRequest> requests,
                     const VocabularySlice& slice, TensorView out) override;
  void DoLocalPick(TensorView logits, absl::Span<const MassRequest> requests,
                   const VocabularySlice& slice, TensorView out) override;
  void DoRecordedCandidates(TensorView logits, TensorView sampling, int32_t candidates,
                            const VocabularySlice& slice, TensorView out) override;
  void DoChooseRecorded(TensorView records, int64_t ranks, TensorView sampling, int64_t valid_ids,
                        TensorView tokens) override;
  void DoRecordedMasses(TensorView logits, const RecordedRows& rows, const VocabularySlice& slice,
                        TensorView out) override;
  void DoRecordedPicks(TensorView logits, const RecordedRows& rows, TensorView masses, int64_t rank,
                       const VocabularySlice& slice, TensorView out) override;
  void DoTakePicks(TensorView picks, TensorView tokens) override;
  void DoSampleUndecided(TensorView logits, TensorView sampling, int64_t valid_ids,
                         TensorView tokens) override;
  void DoSelectIds(TensorView sources, TensorView last_tokens, TensorView ids) override;
  void DoStoreTokens(TensorView tokens, TensorView slots, TensorView last_tokens) override;
  void DoEditLogits(TensorView logits, absl::Span<const LogitEdits> edits, int64_t first_id,
                    TensorView out) override;
  void DoSample(TensorView logits, absl::Span<const SamplingRow> rows, int64_t valid_ids,
                TensorView out) override;

 private:
  // Where a token's keys and values go, and its row of the rope table.
  struct TokenPlace {
    int64_t block = 0;
    int64_t offset = 0;  // elements from the block's first one, in KV head 0
    const float* cosine = nullptr;
    const float* sine = nullptr;
  };
  // heads_[first, first + count) read KV head kv_head.
  struct HeadGroup {
    int64_t kv_head = 0;
    int64_t first = 0;
    int64_t count = 0;
  };
  // Tokens at consecutive positions of one sequence.
  struct TokenRun {
    int64_t token = 0;
    int64_t tokens = 0;
    const int32_t* blocks = nullptr;
  };

  // A row and one of its experts.
  struct ExpertPair {
    int64_t row = 0;
    float weight = 0;
  };
  // pairs_[first, first + rows) are those of an expert, counted from the first of this device.
  struct ExpertHit {
    int64_t expert = 0;
    int64_t first = 0;
    int64_t rows = 0;
  };

  // gemm.cc
  TensorView ProductRows(const TensorView& x);
  TensorView CopyProductRows(const TensorView& x, int64_t count,
                             absl::FunctionRef<int64_t(int64_t)> row_of);
  MatMulOperands Operands(const TensorView& x, const Weight& w, const TensorView* bias,
                          const TensorView& out);
  // experts.cc
  void GroupByExpert(const Routing& routing, const ExpertWeights& experts);
  void GateUpOfExperts(const TensorView& x, const ExpertWeights& experts,
                       const ExpertScratch& scratch);
  void DownOfExperts(const TensorView& activated, const ExpertWeights& experts,
                     const TensorView& out);
  void AddDownOfExpert(const TensorView& rows, const ExpertHit& hit, const ExpertWeights& experts,
                       int64_t begin, int64_t end, const TensorView& out) const;
  // attention.cc
  void PlaceTokens(const RopeTable& rope, const BatchView& batch, const KvView& kv);
  template <class T>
  void RopeAndStoreHead(const TensorView& qkv, int64_t token, int64_t head, int64_t query_heads,
                        const RopeTable& rope, const KvView& kv) const;
  // `chunks` null: plain attention.
  void Attend(const TensorView& queries, absl::Span<const int32_t> kv_head_of_query,
              const DualChunks* chunks, const BatchView& batch, const KvView& kv, float scale,
              const TensorView& out);
  void GroupHeads(absl::Span<const int32_t> kv_head_of_query, int64_t kv_heads, int64_t limit);
  // Runs of at most `limit` tokens, each within one chunk of `chunk_length` positions.
  void CollectRuns(const BatchView& batch, const KvView& kv, int64_t limit, int64_t chunk_length);

  ThreadPool& threads_;
  const KernelTable& kernels_;

  // Scratch of one call each. It grows to the largest step and is kept.
  std::vector<float> product_rows_;
  std::vector<TokenPlace> places_;  // [tokens]
  std::vector<int32_t> heads_;      // query heads, KV head by KV head
  std::vector<HeadGroup> head_groups_;
  std::vector<TokenRun> runs_;
  std::vector<ExpertPair> pairs_;   // expert by expert
  std::vector<ExpertHit> hits_;     // experts with at least one pair, ascending
  std::vector<int64_t> next_pair_;  // [experts]
};

// Calls f.operator()<T>() with the C++ type of an activation dtype.
template <class F>
void WithActivationType(DType dtype, F&& f) {
  if (dtype == DType::kBF16) {
    f.template operator()<BFloat16>();
  } else {
    f.template operator()<float>();
  }
}

}  // namespace cohort

#endif  // COHORT_KERNELS_CPU_OPS_H_
