// The verbs of sampling as calls into the plugin's table.
#include <cstddef>

#include "kernels/plugin_ops.h"

namespace cohort {
namespace {

CohortCudaVocabularySlice ToPlugin(const VocabularySlice& slice) {
  return {slice.first_id, slice.valid_ids};
}

CohortCudaRecordedRows ToPlugin(const RecordedRows& rows) {
  return {ToPlugin(rows.records), rows.ranks, ToPlugin(rows.sampling), ToPlugin(rows.tokens)};
}

CohortCudaSamplingRow ToPlugin(const SamplingRow& row) {
  return {row.temperature,    row.top_p, row.top_k,   row.min_p,
          row.sequence_index, row.seed,  row.position};
}

const LogitEdits& EditsOf(const LogitEdits& edits) { return edits; }
template <class Request>
const LogitEdits& EditsOf(const Request& request) {
  return request.edits;
}

}  // namespace

template <class Request>
void PluginOps::MakeRoomForEdits(absl::Span<const Request> requests) {
  size_t count = 0;
  for (const Request& request : requests) {
    count += EditsOf(request).ids.size();
  }
  edits_.clear();
  edits_.reserve(count);
}

CohortCudaLogitEdits PluginOps::ConvertEdits(const LogitEdits& edits) {
  const size_t begin = edits_.size();
  for (const LogitEdit& edit : edits.ids) {
    edits_.push_back({edit.id, edit.is_repeated ? 1 : 0, edit.bias, edit.penalty});
  }
  return {edits_.data() + begin,    static_cast<int64_t>(edits.ids.size()),
          edits.allowed.data(),     static_cast<int64_t>(edits.allowed.size()),
          edits.repetition_penalty, edits.only_allowed ? 1 : 0};
}

absl::Span<const CohortCudaMassRequest> PluginOps::ConvertRequests(
    absl::Span<const MassRequest> requests) {
  MakeRoomForEdits(requests);
  mass_requests_.clear();
  for (const MassRequest& request : requests) {
    mass_requests_.push_back({ConvertEdits(request.edits), request.row, request.temperature,
                              request.largest, request.lowest, request.wanted});
  }
  return mass_requests_;
}

void PluginOps::DoLocalCandidates(TensorView logits, absl::Span<const CandidateRequest> requests,
                                  const VocabularySlice& slice, TensorView out) {
  MakeRoomForEdits(requests);
  candidate_requests_.clear();
  for (const CandidateRequest& request : requests) {
    candidate_requests_.push_back(
        {ConvertEdits(request.edits), request.candidates, request.temperature, request.target});
  }
  const CohortCudaTensor plugin_logits = ToPlugin(logits);
  const CohortCudaVocabularySlice plugin_slice = ToPlugin(slice);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->local_candidates(device_, &plugin_logits, candidate_requests_.data(), &plugin_slice,
                           &plugin_out);
}

void PluginOps::DoLocalMasses(TensorView logits, absl::Span<const MassRequest> requests,
                              const VocabularySlice& slice, TensorView out) {
  const CohortCudaTensor plugin_logits = ToPlugin(logits);
  const CohortCudaVocabularySlice plugin_slice = ToPlugin(slice);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->local_masses(device_, &plugin_logits, ConvertRequests(requests).data(), &plugin_slice,
                       &plugin_out);
}

void PluginOps::DoLocalPick(TensorView logits, absl::Span<const MassRequest> requests,
                            const VocabularySlice& slice, TensorView out) {
  const CohortCudaTensor plugin_logits = ToPlugin(logits);
  const CohortCudaVocabularySlice plugin_slice = ToPlugin(slice);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->local_pick(device_, &plugin_logits, ConvertRequests(requests).data(), &plugin_slice,
                     &plugin_out);
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

void PluginOps::DoRecordedMasses(TensorView logits, const RecordedRows& rows,
                                 const VocabularySlice& slice, TensorView out) {
  const CohortCudaTensor plugin_logits = ToPlugin(logits);
  const CohortCudaRecordedRows plugin_rows = ToPlugin(rows);
  const CohortCudaVocabularySlice plugin_slice = ToPlugin(slice);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->recorded_masses(device_, &plugin_logits, &plugin_rows, &plugin_slice, &plugin_out);
}

void PluginOps::DoRecordedPicks(TensorView logits, const RecordedRows& rows, TensorView masses,
                                int64_t rank, const VocabularySlice& slice, TensorView out) {
  const CohortCudaTensor plugin_logits = ToPlugin(logits);
  const CohortCudaRecordedRows plugin_rows = ToPlugin(rows);
  const CohortCudaTensor plugin_masses = ToPlugin(masses);
  const CohortCudaVocabularySlice plugin_slice = ToPlugin(slice);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->recorded_picks(device_, &plugin_logits, &plugin_rows, &plugin_masses, rank, &plugin_slice,
                         &plugin_out);
}

void PluginOps::DoTakePicks(TensorView picks, TensorView tokens) {
  const CohortCudaTensor plugin_picks = ToPlugin(picks);
  const CohortCudaTensor plugin_tokens = ToPlugin(tokens);
  table_->take_picks(device_, &plugin_picks, &plugin_tokens);
}

void PluginOps::DoSampleUndecided(TensorView logits, TensorView sampling, int64_t valid_ids,
                                  TensorView tokens) {
  const CohortCudaTensor plugin_logits = ToPlugin(logits);
  const CohortCudaTensor plugin_sampling = ToPlugin(sampling);
  const CohortCudaTensor plugin_tokens = ToPlugin(tokens);
  table_->sample_undecided(device_, &plugin_logits, &plugin_sampling, valid_ids, &plugin_tokens);
}

void PluginOps::DoEditLogits(TensorView logits, absl::Span<const LogitEdits> edits,
                             int64_t first_id, TensorView out) {
  MakeRoomForEdits(edits);
  row_edits_.clear();
  for (const LogitEdits& of_row : edits) {
    row_edits_.push_back(ConvertEdits(of_row));
  }
  const CohortCudaTensor plugin_logits = ToPlugin(logits);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->edit_logits(device_, &plugin_logits, row_edits_.data(), first_id, &plugin_out);
}

void PluginOps::DoSample(TensorView logits, absl::Span<const SamplingRow> rows, int64_t valid_ids,
                         TensorView out) {
  sampling_rows_.clear();
  for (const SamplingRow& row : rows) {
    sampling_rows_.push_back(ToPlugin(row));
  }
  const CohortCudaTensor plugin_logits = ToPlugin(logits);
  const CohortCudaTensor plugin_out = ToPlugin(out);
  table_->sample(device_, &plugin_logits, sampling_rows_.data(), valid_ids, &plugin_out);
}

}  // namespace cohort
