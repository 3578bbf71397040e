// The operations of kernels/ops.h as calls into the plugin's table. Owned by PluginDevice.
#ifndef COHORT_KERNELS_PLUGIN_OPS_H_
#define COHORT_KERNELS_PLUGIN_OPS_H_

#include <optional>
#include <vector>

#include "kernels/cuda_plugin.h"
#include "kernels/ops.h"

namespace cohort {

// A tensor as the boundary writes it.
CohortCudaTensor ToPlugin(const TensorView& view);

class PluginOps : public Ops {
 public:
  // persistent_steps: as in DeviceOptions.
  PluginOps(const CohortCudaTable* table, CohortCudaDevice* device,
            std::optional<bool> persistent_steps)
      : table_(table), device_(device), persistent_steps_(persistent_steps) {}

 protected:
  void DoEmbed(TensorView ids, TensorView table, int64_t first_row, TensorView out) override;
  void DoRmsNorm(TensorView x, TensorView gamma, float eps, TensorView out) override;
  void DoAddRmsNorm(TensorView residual, TensorView x, TensorView gamma, float eps,
                    TensorView out) override;
  void DoMatMul(TensorView x, const Weight& w, const TensorView* bias, TensorView out) override;
  void DoRopeAndStoreKv(TensorView qkv, int64_t query_heads, const RopeTable& rope,
                        const BatchView& batch, const KvView& kv) override;
  void DoPagedAttention(TensorView queries, absl::Span<const int32_t> kv_head_of_query,
                        const BatchView& batch, const KvView& kv, float scale,
                        TensorView out) override;
  void DoDualChunkAttention(TensorView queries, absl::Span<const int32_t> kv_head_of_query,
                            const DualChunks& chunks, const BatchView& batch, const KvView& kv,
                            float scale, TensorView out) override;
  void DoPrefetchWeights(const NextWeights& next) override;
  void DoProjectQkv(TensorView x, const Weight& w, const TensorView* bias, TensorView qkv,
                    int64_t query_heads, const RopeTable& rope, const BatchView& batch,
                    const KvView& kv) override;
  void DoProjectGateUp(TensorView x, const Weight& w, TensorView gate_up, TensorView out) override;
  void DoDenseLayers(const DenseStep& step) override;
  void DoSiluMultiply(TensorView gate_up, TensorView out) override;
  void DoRouteTopK(TensorView logits, bool normalize, const Routing& routing) override;
  void DoRoutedFfn(TensorView x, const Routing& routing, const ExpertWeights& experts,
                   const ExpertScratch& scratch, TensorView out) override;
  void DoCountIds(TensorView ids, TensorView counts) override;
  void DoAddGated(TensorView x, TensorView gate, TensorView out) override;
  void DoFillRandom(const RandomFill& fill, TensorView out) override;
  void DoGatherRows(TensorView x, TensorView rows, TensorView out) override;
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
  // plugin_sampling.cc
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

 private:
  // Edits as the boundary writes them; valid until all are converted anew. Room for all of them is
  // made first.
  template <class Request>
  void MakeRoomForEdits(absl::Span<const Request> requests);
  CohortCudaLogitEdits ConvertEdits(const LogitEdits& edits);
  absl::Span<const CohortCudaMassRequest> ConvertRequests(absl::Span<const MassRequest> requests);

  const CohortCudaTable* table_;
  CohortCudaDevice* device_;  // owned by the device
  std::optional<bool> persistent_steps_;
  // Of a call; kept, so that no step allocates.
  std::vector<CohortCudaLogitEdit> edits_;
  std::vector<CohortCudaLogitEdits> row_edits_;
  std::vector<CohortCudaCandidateRequest> candidate_requests_;
  std::vector<CohortCudaMassRequest> mass_requests_;
  std::vector<CohortCudaSamplingRow> sampling_rows_;
  std::vector<CohortCudaDenseLayer> dense_layers_;
};

}  // namespace cohort

#endif  // COHORT_KERNELS_PLUGIN_OPS_H_
