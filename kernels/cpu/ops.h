// The operations on the CPU. Each output element is summed in one fixed order that depends on the
// element's own row alone, so results are equal to the bit for every batch, chunk and thread count.
#ifndef COHORT_KERNELS_CPU_OPS_H_
#define COHORT_KERNELS_CPU_OPS_H_

#include <cstdint>
#include <vector>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/ops.h"

namespace cohort {

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
  void DoGatherRows(TensorView x, TensorView rows, TensorView out) override;
  // gemm.cc
  void DoMatMul(TensorView x, const Weight& w, const TensorView* bias, TensorView out) override;
  // attention.cc
  void DoRopeAndStoreKv(TensorView qkv, int64_t query_heads, const RopeTable& rope,
                        const BatchView& batch, const KvView& kv) override;
  void DoPagedAttention(TensorView queries, absl::Span<const int32_t> kv_head_of_query,
                        const BatchView& batch, const KvView& kv, float scale,
                        TensorView out) override;
  // sampling.cc
  void DoLocalCandidates(TensorView logits, absl::Span<const CandidateRequest> requests,
                         const VocabularySlice& slice, TensorView out) override;
  void DoLocalMasses(TensorView logits, absl::Span<const MassRequest> requests,
                     const VocabularySlice& slice, TensorView out) override;
  void DoLocalPick(TensorView logits, absl::Span<const MassRequest> requests,
                   const VocabularySlice& slice, TensorView out) override;
  void DoEditLogits(TensorView logits, absl::Span<const LogitEdits> edits, int64_t first_id,
                    TensorView out) override;
  void DoSample(TensorView logits, absl::Span<const SamplingRow> rows, int64_t valid_ids,
                TensorView out) override;
  void DoLogProbability(TensorView logits, TensorView targets, TensorView out) override;

 private:
  TensorView ProductRows(const TensorView& x, const ProductKernels& kernels);

  ThreadPool& threads_;
  const KernelTable& kernels_;
  const bool has_avx2_;
  std::vector<float> product_rows_;  // of ProductRows(); grows to the largest step
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
