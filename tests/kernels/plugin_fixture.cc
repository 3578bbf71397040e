#include "tests/kernels/plugin_fixture.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace cohort {
namespace {

using D = CohortCudaDevice;
using T = CohortCudaTensor;

CohortCudaError Allocate(D* device, uint64_t bytes, void** memory) {
  CohortCudaError error{};
  if (device->is_out_of_memory) {
    error.code = kCohortCudaOutOfMemory;
    std::snprintf(error.message, sizeof(error.message), "cannot allocate %d bytes",
                  static_cast<int>(bytes));
    return error;
  }
  *memory = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  return error;
}

void SetDeviceEntries(CohortCudaTable& table) {
  table.memory_info = [](D* device, uint64_t* free_bytes, uint64_t* total_bytes) {
    *free_bytes = 5;
    *total_bytes = 9;
    return std::exchange(device->error, CohortCudaError{});
  };
  table.host_memory_allocate = Allocate;
  table.host_memory_free = table.memory_free;
  table.enqueue_copy_from_host = table.copy_from_host;
  table.enqueue_copy_to_host = table.copy_from_host;
  table.host_memory_pin = [](int32_t index, const void*, uint64_t bytes) {
    CohortCudaError error{};
    if (bytes == 0) {
      error.code = kCohortCudaInvalidArgument;
      std::snprintf(error.message, sizeof(error.message), "nothing to pin for cuda:%d", index);
    }
    return error;
  };
  table.host_memory_unpin = [](int32_t, const void* memory) {
    ++*static_cast<int*>(const_cast<void*>(memory));
  };
  table.copy_queue_create = [](D* device, CohortCudaCopyQueue** queue) {
    *queue = new CohortCudaCopyQueue{device};
    return CohortCudaError{};
  };
  table.copy_queue_destroy = [](CohortCudaCopyQueue* queue) {
    queue->device->verb = "copy_queue_destroy";
    delete queue;
  };
  table.copy_queue_enqueue = [](CohortCudaCopyQueue*, const void* source, void* destination,
                                uint64_t bytes) { std::memcpy(destination, source, bytes); };
  table.mark_create = [](D* device, CohortCudaCopyQueue* queue, CohortCudaMark** mark) {
    *mark = new CohortCudaMark{device};
    device->number = queue != nullptr ? 1 : 0;
    return CohortCudaError{};
  };
  table.mark_destroy = [](CohortCudaMark* mark) { delete mark; };
  table.mark_set = [](CohortCudaMark* mark) { mark->device->verb = "mark_set"; };
  table.mark_wait = [](CohortCudaMark* mark, int64_t timeout_us) {
    mark->device->number = timeout_us;
    return std::exchange(mark->device->error, CohortCudaError{});
  };
  table.recording_begin = [](D* device) {
    device->verb = "recording_begin";
    return CohortCudaError{};
  };
  table.recording_end = [](D* device, CohortCudaRecording** recording) {
    const CohortCudaError error = std::exchange(device->error, CohortCudaError{});
    *recording = error.code == kCohortCudaOk ? new CohortCudaRecording{device} : nullptr;
    return error;
  };
  table.recording_enqueue = [](CohortCudaRecording* recording) {
    recording->device->verb = "recording_enqueue";
  };
  table.recording_kernels = [](const CohortCudaRecording*, CohortCudaRecordedKernels* kernels) {
    *kernels = {.count = 7, .pairs = 6, .programmatic = 5};
  };
  table.recording_destroy = [](CohortCudaRecording* recording) { delete recording; };
}

void SetLocalSampling(CohortCudaTable* table) {
  using Slice = CohortCudaVocabularySlice;
  using MassRequest = CohortCudaMassRequest;
  table->local_candidates = [](D* d, const T* logits, const CohortCudaCandidateRequest* requests,
                               const Slice* slice, const T* out) {
    d->Note("local_candidates", logits, out);
    d->NoteEdits(requests, logits->dims[0]);
    d->candidate_request = requests[logits->dims[0] - 1];
    d->slice = *slice;
  };
  table->local_masses = [](D* d, const T* logits, const MassRequest* requests, const Slice* slice,
                           const T* out) {
    d->Note("local_masses", logits, out);
    d->NoteEdits(requests, out->dims[0]);
    d->mass_request = requests[0];
    d->slice = *slice;
  };
  table->local_pick = [](D* d, const T* logits, const MassRequest* requests, const Slice* slice,
                         const T* out) {
    d->Note("local_pick", logits, out);
    d->NoteEdits(requests, out->dims[0]);
    d->mass_request = requests[0];
    d->slice = *slice;
  };
  table->edit_logits = [](D* d, const T* logits, const CohortCudaLogitEdits* edits,
                          int64_t first_id, const T* out) {
    d->Note("edit_logits", logits, out);
    d->NoteEdits(edits, logits->dims[0]);
    d->number = first_id;
  };
  table->recorded_candidates = [](D* d, const T* logits, const T* sampling, int32_t candidates,
                                  const Slice* slice, const T* out) {
    d->Note("recorded_candidates", logits, sampling, out);
    d->number = candidates;
    d->slice = *slice;
  };
  table->choose_recorded = [](D* d, const T* records, int64_t ranks, const T* sampling,
                              int64_t valid_ids, const T* tokens) {
    d->Note("choose_recorded", records, sampling, tokens);
    d->number = 1000 * ranks + valid_ids;
  };
  table->recorded_masses = [](D* d, const T* logits, const CohortCudaRecordedRows* rows,
                              const Slice* slice, const T* out) {
    d->Note("recorded_masses", logits, &rows->records, &rows->sampling, &rows->tokens, out);
    d->number = rows->ranks;
    d->slice = *slice;
  };
  table->recorded_picks = [](D* d, const T* logits, const CohortCudaRecordedRows* rows,
                             const T* masses, int64_t rank, const Slice* slice, const T* out) {
    d->Note("recorded_picks", logits, &rows->records, &rows->sampling, &rows->tokens, masses, out);
    d->number = 1000 * rows->ranks + rank;
    d->slice = *slice;
  };
  table->sample_undecided = [](D* d, const T* logits, const T* sampling, int64_t valid_ids,
                               const T* tokens) {
    d->Note("sample_undecided", logits, sampling, tokens);
    d->number = valid_ids;
  };
  table->take_picks = [](D* d, const T* picks, const T* tokens) {
    d->Note("take_picks", picks, tokens);
  };
}

}  // namespace

CohortCudaTable MakeTable() {
  CohortCudaTable table{};
  table.version = kCohortCudaTableVersion;
  table.bytes = sizeof(table);
  table.device_destroy = [](D* device) { device->is_destroyed = true; };
  table.memory_allocate = Allocate;
  table.memory_free = [](int32_t index, void* memory) {
    EXPECT_EQ(index, 3);
    std::free(memory);
  };
  table.copy_from_host = [](D*, const void* source, void* destination, uint64_t bytes) {
    std::memcpy(destination, source, bytes);
  };
  table.copy_to_host = table.copy_from_host;
  SetDeviceEntries(table);
  table.synchronize = [](D* device) { return std::exchange(device->error, CohortCudaError{}); };
  table.embed = [](D* d, const T* ids, const T* rows, int64_t first_row, const T* out) {
    d->Note("embed", ids, rows, out);
    d->number = first_row;
  };
  table.rms_norm = [](D* d, const T* x, const T* gamma, float eps, const T* out) {
    d->Note("rms_norm", x, gamma, out);
    d->real = eps;
  };
  table.add_rms_norm = [](D* d, const T* residual, const T* x, const T* gamma, float eps,
                          const T* out) {
    d->Note("add_rms_norm", residual, x, gamma, out);
    d->real = eps;
  };
  table.mat_mul = [](D* d, const T* x, const T* weight, const T* bias, const T* out) {
    d->Note("mat_mul", x, weight, out);
    if (bias != nullptr) {
      d->tensors.push_back(*bias);
    }
  };
  table.rope_and_store_kv = [](D* d, const T* qkv, int64_t query_heads, const CohortCudaRope* rope,
                               const CohortCudaBatch* batch, const CohortCudaKv* kv) {
    d->Note("rope_and_store_kv", qkv, &rope->cosine, &rope->sine, &batch->positions,
            &batch->sequence_of_token, &batch->block_table, &batch->rope_rows, &kv->keys,
            &kv->values);
    d->number = query_heads;
  };
  table.paged_attention = [](D* d, const T* queries, const int32_t* heads, int64_t query_heads,
                             const CohortCudaBatch* batch, const CohortCudaKv* kv, float scale,
                             const T* out) {
    d->Note("paged_attention", queries, &batch->positions, &batch->sequence_of_token,
            &batch->block_table, &kv->keys, &kv->values, out);
    d->heads.assign(heads, heads + query_heads);
    d->real = scale;
  };
  table.dense_layers = [](D* d, const CohortCudaDenseStep* step, int32_t always) -> int32_t {
    const CohortCudaDenseLayer& last = step->layers[step->layer_count - 1];
    d->Note("dense_layers", &last.attention_norm, &last.qkv, &last.qkv_bias, &last.attention_out,
            &last.ffn_norm, &last.gate_up, &last.down, &last.kv.keys, &last.kv.values,
            &step->final_norm, &step->rope.cosine, &step->batch.positions, &step->residual,
            &step->normed, &step->partial, &step->qkv, &step->attended, &step->activated);
    d->heads.assign(step->kv_head_of_query, step->kv_head_of_query + step->query_heads);
    d->number = 10 * step->layer_count + always;
    d->real = step->eps + step->scale;
    return d->takes_dense_layers ? 1 : 0;
  };
  table.project_qkv = [](D* d, const T* x, const T* weight, const T*, const T* qkv, int64_t,
                         const CohortCudaRope*, const CohortCudaBatch*,
                         const CohortCudaKv*) { d->Note("project_qkv", x, weight, qkv); };
  table.project_gate_up = [](D* d, const T* x, const T* weight, const T* gate_up, const T* out) {
    d->Note("project_gate_up", x, weight, gate_up, out);
  };
  table.prefetch_weights = [](D* d, const CohortCudaNextWeights* next) {
    d->Note("prefetch_weights", &next->product, &next->gate_up);
  };
  table.dual_chunk_attention = [](D* d, const T* queries, const int32_t* heads, int64_t query_heads,
                                  const CohortCudaDualChunks* chunks, const CohortCudaBatch* batch,
                                  const CohortCudaKv* kv, float scale, const T* out) {
    d->Note("dual_chunk_attention", queries, &chunks->rope.cosine, &chunks->rope.sine,
            &batch->logit_factors, &kv->keys, &kv->values, out);
    d->heads.assign(heads, heads + query_heads);
    d->number = 100 * chunks->chunk_size + chunks->chunk_length;
    d->real = scale;
  };
  table.silu_multiply = [](D* d, const T* x, const T* out) { d->Note("silu_multiply", x, out); };
  table.gather_rows = [](D* d, const T* x, const T* rows, const T* out) {
    d->Note("gather_rows", x, rows, out);
  };
  table.sample = [](D* d, const T* logits, const CohortCudaSamplingRow* rows, int64_t valid_ids,
                    const T* out) {
    d->Note("sample", logits, out);
    d->sampling_rows.assign(rows, rows + logits->dims[0]);
    d->number = valid_ids;
  };
  SetLocalSampling(&table);
  return table;
}

}  // namespace cohort
