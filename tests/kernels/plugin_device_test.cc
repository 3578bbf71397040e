#include "kernels/plugin_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

// The other side of the boundary, over host memory: it notes what arrives. The adapters are what
// is tested; the CUDA backend itself is tested through Device::Create where there is a device.
struct CohortCudaDevice {
  std::string verb;
  std::vector<CohortCudaTensor> tensors;
  std::vector<CohortCudaSamplingRow> sampling_rows;
  std::vector<CohortCudaLogitEdits> edits;  // of every row; their arrays end with the call
  std::vector<CohortCudaLogitEdit> edited_ids;
  std::vector<int32_t> allowed;
  CohortCudaCandidateRequest candidate_request{};
  CohortCudaMassRequest mass_request{};
  CohortCudaVocabularySlice slice{};
  std::vector<int32_t> heads;
  int64_t number = 0;
  float real = 0;
  bool is_out_of_memory = false;
  bool is_destroyed = false;
  CohortCudaError error{};

  template <class... Tensors>
  void Note(const char* name, const Tensors*... seen) {
    verb = name;
    tensors = {*seen...};
  }
  template <class Request>
  void NoteEdits(const Request* rows, int64_t count) {
    edits.clear();
    edited_ids.clear();
    allowed.clear();
    for (int64_t i = 0; i < count; ++i) {
      const CohortCudaLogitEdits* of_row = reinterpret_cast<const CohortCudaLogitEdits*>(rows + i);
      edits.push_back(*of_row);
      edited_ids.insert(edited_ids.end(), of_row->ids, of_row->ids + of_row->id_count);
      allowed.insert(allowed.end(), of_row->allowed, of_row->allowed + of_row->allowed_count);
    }
  }
};

// They note what becomes of them in `verb` of the device, and share its error.
struct CohortCudaMark {
  CohortCudaDevice* device = nullptr;
};
struct CohortCudaRecording {
  CohortCudaDevice* device = nullptr;
};

namespace cohort {
namespace {

using ::testing::ElementsAre;

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
  table.mark_create = [](D* device, CohortCudaMark** mark) {
    *mark = new CohortCudaMark{device};
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
  table->take_picks = [](D* d, const T* picks, const T* tokens) {
    d->Note("take_picks", picks, tokens);
  };
}

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

class PluginDeviceTest : public testing::Test {
 protected:
  // A view that must arrive unchanged; its address is never read.
  TensorView View(Shape shape, DType dtype) {
    next_address_ += 0x1000;
    return TensorView(reinterpret_cast<void*>(next_address_), dtype, shape);
  }
  // The addresses of what arrived, in order.
  std::vector<void*> Arrived() const {
    std::vector<void*> addresses;
    for (const CohortCudaTensor& tensor : other_side_.tensors) {
      addresses.push_back(tensor.data);
    }
    return addresses;
  }

  uintptr_t next_address_ = 0x10000;
  CohortCudaTable table_ = MakeTable();
  CohortCudaDevice other_side_;
  PluginDevice device_{&table_, &other_side_, 3, "cuda:3 something"};
};

TEST_F(PluginDeviceTest, CopiesThroughTheTable) {
  const std::vector<float> numbers = {1, 2, 3, 4, 5, 6};
  absl::StatusOr<Tensor> tensor = device_.Allocate({2, 3}, DType::kF32);
  ASSERT_TRUE(tensor.ok());
  device_.CopyFromHost(numbers.data(), tensor->view());
  std::vector<float> back(6);
  device_.CopyToHost(tensor->view(), back.data());
  EXPECT_EQ(back, numbers);
  EXPECT_EQ(device_.kind(), "cuda");
}

TEST_F(PluginDeviceTest, TensorsMayOutliveTheDevice) {
  auto other_side = std::make_unique<CohortCudaDevice>();
  auto device = std::make_unique<PluginDevice>(&table_, other_side.get(), 3, "");
  absl::StatusOr<Tensor> tensor = device->Allocate({0, 3}, DType::kBF16);
  ASSERT_TRUE(tensor.ok());
  EXPECT_NE(tensor->view().data, nullptr);
  device.reset();
  EXPECT_TRUE(other_side->is_destroyed);
  other_side.reset();
}

TEST_F(PluginDeviceTest, RunningOutOfMemoryIsResourceExhausted) {
  other_side_.is_out_of_memory = true;
  const absl::Status status = device_.Allocate({2, 3}, DType::kF32).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "cannot allocate 24 bytes");
}

TEST_F(PluginDeviceTest, SynchronizeNamesTheDeviceOnce) {
  other_side_.error.code = kCohortCudaFailed;
  std::strcpy(other_side_.error.message, "RmsNorm: too bad");
  const absl::Status status = device_.Synchronize();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(status.message(), "cuda:3: RmsNorm: too bad");
  EXPECT_TRUE(device_.Synchronize().ok());
}

TEST_F(PluginDeviceTest, EnqueuesCopiesOfHostMemory) {
  absl::StatusOr<Tensor> host = device_.AllocateHost({3}, DType::kI32);
  absl::StatusOr<Tensor> tensor = device_.Allocate({3}, DType::kI32);
  ASSERT_TRUE(host.ok() && tensor.ok());
  std::iota(host->view().As<int32_t>(), host->view().As<int32_t>() + 3, 7);
  device_.EnqueueCopyFromHost(host->view().data, tensor->view());
  host->view().As<int32_t>()[1] = 0;
  device_.EnqueueCopyToHost(tensor->view(), host->view().data);
  EXPECT_EQ(host->view().As<int32_t>()[1], 8);
  other_side_.is_out_of_memory = true;
  EXPECT_EQ(device_.AllocateHost({3}, DType::kI32).status().message(), "cannot allocate 12 bytes");
}

TEST_F(PluginDeviceTest, MarksSayWhatSynchronizeWouldSay) {
  const absl::StatusOr<std::unique_ptr<Mark>> mark = device_.CreateMark();
  ASSERT_TRUE(mark.ok());
  (*mark)->Set();
  EXPECT_EQ(other_side_.verb, "mark_set");
  EXPECT_TRUE((*mark)->Wait(absl::Milliseconds(2)).ok());
  EXPECT_EQ(other_side_.number, 2000);
  other_side_.error.code = kCohortCudaDeadline;
  std::strcpy(other_side_.error.message, "not done");
  EXPECT_EQ((*mark)->Wait(-absl::Seconds(1)), absl::DeadlineExceededError("cuda:3: not done"));
  EXPECT_EQ(other_side_.number, 0);
}

TEST_F(PluginDeviceTest, RecordsWhatTheWorkEnqueues) {
  std::string during;
  const auto work = [&] { during = other_side_.verb; };
  const absl::StatusOr<std::unique_ptr<Recording>> recording = device_.Record(work);
  ASSERT_TRUE(recording.ok());
  EXPECT_EQ(during, "recording_begin");
  (*recording)->Enqueue();
  EXPECT_EQ(other_side_.verb, "recording_enqueue");
  other_side_.error.code = kCohortCudaFailed;
  EXPECT_EQ(device_.Record(work).status().code(), absl::StatusCode::kInternal);
}

TEST_F(PluginDeviceTest, RecordsStepsWhereItHasTheirOperations) {
  EXPECT_FALSE(device_.records_steps());
  table_.recorded_candidates = [](D*, const T*, const T*, int32_t, const CohortCudaVocabularySlice*,
                                  const T*) {};
  table_.choose_recorded = [](D*, const T*, int64_t, const T*, int64_t, const T*) {};
  table_.select_ids = [](D*, const T*, const T*, const T*) {};
  table_.store_tokens = table_.select_ids;
  EXPECT_TRUE(device_.records_steps());
  CohortCudaDevice other_side;
  EXPECT_FALSE(PluginDevice(&table_, &other_side, 3, "", false).records_steps());
}

TEST_F(PluginDeviceTest, TellsItsMemory) {
  const absl::StatusOr<DeviceMemory> memory = device_.memory();
  ASSERT_TRUE(memory.ok());
  EXPECT_EQ(memory->free, 5);
  EXPECT_EQ(memory->total, 9);
}

TEST_F(PluginDeviceTest, ViewsKeepShapeTypeAndStride) {
  const TensorView x(reinterpret_cast<void*>(0x1000), DType::kBF16, {3, 4}, 10);
  const CohortCudaTensor plugin = ToPlugin(x);
  EXPECT_EQ(plugin.data, x.data);
  EXPECT_EQ(plugin.rank, 2);
  EXPECT_THAT(plugin.dims, ElementsAre(3, 4, 0, 0));
  EXPECT_EQ(plugin.row_stride, 10);
  EXPECT_EQ(plugin.dtype, kCohortCudaBF16);
}

TEST_F(PluginDeviceTest, PointwiseVerbsArrive) {
  const TensorView x = View({2, 8}, DType::kF32);
  const TensorView out = View({2, 8}, DType::kF32);
  const TensorView gamma = View({8}, DType::kF32);
  const TensorView ids = View({2}, DType::kI32);
  const TensorView half = View({2, 4}, DType::kF32);
  device_.ops().Embed(ids, View({5, 8}, DType::kF32), 7, out);
  EXPECT_EQ(other_side_.verb, "embed");
  EXPECT_EQ(other_side_.number, 7);
  EXPECT_EQ(other_side_.tensors[0].data, ids.data);
  device_.ops().RmsNorm(x, gamma, 0.5f, out);
  EXPECT_EQ(other_side_.verb, "rms_norm");
  EXPECT_EQ(other_side_.real, 0.5f);
  EXPECT_THAT(Arrived(), ElementsAre(x.data, gamma.data, out.data));
  const TensorView residual = View({2, 8}, DType::kF32);
  device_.ops().AddRmsNorm(residual, x, gamma, 0.25f, out);
  EXPECT_EQ(other_side_.verb, "add_rms_norm");
  EXPECT_EQ(other_side_.real, 0.25f);
  EXPECT_THAT(Arrived(), ElementsAre(residual.data, x.data, gamma.data, out.data));
  device_.ops().SiluMultiply(x, half);
  EXPECT_EQ(other_side_.verb, "silu_multiply");
  EXPECT_THAT(Arrived(), ElementsAre(x.data, half.data));
  device_.ops().GatherRows(x, ids, out);
  EXPECT_EQ(other_side_.verb, "gather_rows");
  EXPECT_THAT(Arrived(), ElementsAre(x.data, ids.data, out.data));
}

TEST_F(PluginDeviceTest, MatMulArrivesWithAndWithoutBias) {
  const TensorView x = View({2, 8}, DType::kBF16);
  const Weight weight = {View({4, 8}, DType::kBF16)};
  const TensorView bias = View({4}, DType::kBF16);
  const TensorView out = View({2, 4}, DType::kF32);
  device_.ops().MatMul(x, weight, nullptr, out);
  EXPECT_EQ(other_side_.verb, "mat_mul");
  EXPECT_THAT(Arrived(), ElementsAre(x.data, weight.data.data, out.data));
  device_.ops().MatMul(x, weight, &bias, out);
  EXPECT_THAT(Arrived(), ElementsAre(x.data, weight.data.data, out.data, bias.data));
}

TEST_F(PluginDeviceTest, AttentionVerbsArrive) {
  const TensorView qkv = View({2, 32}, DType::kF32);
  const TensorView queries = View({2, 16}, DType::kF32);
  const TensorView out = View({2, 16}, DType::kF32);
  const RopeTable rope = {View({9, 4}, DType::kF32), View({9, 4}, DType::kF32)};
  const BatchView batch = {.tokens = 2,
                           .sequences = 1,
                           .positions = View({2}, DType::kI32),
                           .sequence_of_token = View({2}, DType::kI32),
                           .block_table = View({1, 3}, DType::kI32),
                           .rope_rows = View({2}, DType::kI32),
                           .first_rows = View({2}, DType::kI32),
                           .longest_chunk = 2};
  const KvView kv = {View({3, 1, 4, 8}, DType::kF32), View({3, 1, 4, 8}, DType::kF32)};
  device_.ops().RopeAndStoreKv(qkv, 2, rope, batch, kv);
  EXPECT_EQ(other_side_.verb, "rope_and_store_kv");
  EXPECT_EQ(other_side_.number, 2);
  EXPECT_THAT(Arrived(),
              ElementsAre(qkv.data, rope.cosine.data, rope.sine.data, batch.positions.data,
                          batch.sequence_of_token.data, batch.block_table.data,
                          batch.rope_rows.data, kv.keys.data, kv.values.data));
  device_.ops().PagedAttention(queries, {0, 0}, batch, kv, 0.5f, out);
  EXPECT_EQ(other_side_.verb, "paged_attention");
  EXPECT_THAT(other_side_.heads, ElementsAre(0, 0));
  EXPECT_EQ(other_side_.real, 0.5f);
  EXPECT_THAT(Arrived(),
              ElementsAre(queries.data, batch.positions.data, batch.sequence_of_token.data,
                          batch.block_table.data, kv.keys.data, kv.values.data, out.data));
  EXPECT_THAT(other_side_.tensors[4].dims, ElementsAre(3, 1, 4, 8));
}

TEST_F(PluginDeviceTest, DualChunkAttentionArrives) {
  const TensorView queries = View({2, 16}, DType::kF32);
  const TensorView out = View({2, 16}, DType::kF32);
  const RopeTable rope = {View({8, 4}, DType::kF32), View({8, 4}, DType::kF32)};
  const BatchView batch = {.tokens = 2,
                           .sequences = 1,
                           .positions = View({2}, DType::kI32),
                           .sequence_of_token = View({2}, DType::kI32),
                           .block_table = View({1, 3}, DType::kI32),
                           .logit_factors = View({2}, DType::kF32),
                           .first_rows = View({2}, DType::kI32),
                           .longest_chunk = 2};
  const KvView kv = {View({3, 1, 4, 8}, DType::kF32), View({3, 1, 4, 8}, DType::kF32)};
  device_.ops().DualChunkAttention(queries, {0, 0}, {9, 4, rope}, batch, kv, 0.5f, out);
  EXPECT_EQ(other_side_.verb, "dual_chunk_attention");
  EXPECT_EQ(other_side_.number, 904);
  EXPECT_THAT(other_side_.heads, ElementsAre(0, 0));
  EXPECT_EQ(other_side_.real, 0.5f);
  EXPECT_THAT(Arrived(),
              ElementsAre(queries.data, rope.cosine.data, rope.sine.data, batch.logit_factors.data,
                          kv.keys.data, kv.values.data, out.data));
}

TEST_F(PluginDeviceTest, SamplingVerbsArrive) {
  const TensorView logits = View({1, 10}, DType::kF32);
  const TensorView ids = View({1}, DType::kI32);
  device_.ops().Sample(logits,
                       {SamplingRow{.temperature = 0.5f,
                                    .top_p = 0.25f,
                                    .top_k = 6,
                                    .seed = 7,
                                    .sequence_index = 8,
                                    .position = 9}},
                       5, ids);
  EXPECT_EQ(other_side_.verb, "sample");
  EXPECT_EQ(other_side_.number, 5);
  ASSERT_EQ(other_side_.sampling_rows.size(), 1u);
  const CohortCudaSamplingRow& row = other_side_.sampling_rows[0];
  EXPECT_EQ(row.temperature, 0.5f);
  EXPECT_EQ(row.top_p, 0.25f);
  EXPECT_EQ(row.top_k, 6);
  EXPECT_EQ(row.seed, 7u);
  EXPECT_EQ(row.sequence_index, 8u);
  EXPECT_EQ(row.position, 9u);
}

TEST_F(PluginDeviceTest, VerbsOfRanksColumnsArrive) {
  const TensorView logits = View({2, 3}, DType::kF32);
  const TensorView records = View({2, 8}, DType::kI32);
  const VocabularySlice slice{.first_id = 10, .valid_ids = 12};
  const LogitEdit ids[] = {{.id = 10, .is_repeated = true, .bias = 4, .penalty = 0.5f}, {.id = 11}};
  const int32_t allowed[] = {10, 11};
  const CandidateRequest first{.edits = {.ids = {ids, 1}}, .candidates = 1};
  const CandidateRequest second{.edits = {.ids = {ids + 1, 1},
                                          .repetition_penalty = 1.5f,
                                          .only_allowed = true,
                                          .allowed = allowed},
                                .candidates = 1,
                                .temperature = 0.25f,
                                .target = 11};
  device_.ops().LocalCandidates(logits, {first, second}, slice, records);
  EXPECT_EQ(other_side_.verb, "local_candidates");
  EXPECT_THAT(Arrived(), ElementsAre(logits.data, records.data));
  ASSERT_EQ(other_side_.edited_ids.size(), 2u);
  EXPECT_EQ(other_side_.edited_ids[0].id, 10);
  EXPECT_EQ(other_side_.edited_ids[0].is_repeated, 1);
  EXPECT_EQ(other_side_.edited_ids[0].bias, 4);
  EXPECT_EQ(other_side_.edited_ids[0].penalty, 0.5f);
  EXPECT_EQ(other_side_.edited_ids[1].id, 11);
  EXPECT_THAT(other_side_.allowed, ElementsAre(10, 11));
  EXPECT_EQ(other_side_.edits[0].only_allowed, 0);
  EXPECT_EQ(other_side_.edits[1].only_allowed, 1);
  EXPECT_EQ(other_side_.edits[1].repetition_penalty, 1.5f);
  EXPECT_EQ(other_side_.candidate_request.candidates, 1);
  EXPECT_EQ(other_side_.candidate_request.temperature, 0.25f);
  EXPECT_EQ(other_side_.candidate_request.target, 11);
  EXPECT_EQ(other_side_.slice.first_id, 10);
  EXPECT_EQ(other_side_.slice.valid_ids, 12);
  device_.ops().EditLogits(logits, {first.edits, second.edits}, 10, View({2, 3}, DType::kF32));
  EXPECT_EQ(other_side_.verb, "edit_logits");
  EXPECT_EQ(other_side_.number, 10);
  EXPECT_EQ(other_side_.edited_ids.size(), 2u);
}

TEST_F(PluginDeviceTest, MassesAndRecordedVerbsArrive) {
  const TensorView logits = View({2, 3}, DType::kF32);
  const TensorView words = View({1, 2}, DType::kI32);
  const LogitEdit edit{.id = 10, .bias = 4};
  const MassRequest request{.row = 1,
                            .edits = {.ids = {&edit, 1}},
                            .temperature = 0.5f,
                            .largest = 4,
                            .lowest = 3,
                            .wanted = uint64_t{1} << 40};
  const auto expect_request = [&](const std::string& verb) {
    EXPECT_EQ(other_side_.verb, verb);
    EXPECT_THAT(Arrived(), ElementsAre(logits.data, words.data));
    EXPECT_EQ(other_side_.edited_ids.at(0).bias, 4);
    EXPECT_EQ(other_side_.mass_request.row, 1);
    EXPECT_EQ(other_side_.mass_request.temperature, 0.5f);
    EXPECT_EQ(other_side_.mass_request.largest, 4);
    EXPECT_EQ(other_side_.mass_request.lowest, 3);
    EXPECT_EQ(other_side_.mass_request.wanted, uint64_t{1} << 40);
  };
  device_.ops().LocalMasses(logits, {request}, {.first_id = 10, .valid_ids = 13}, words);
  expect_request("local_masses");
  device_.ops().LocalPick(logits, {request}, {.first_id = 10, .valid_ids = 13}, words);
  expect_request("local_pick");
  const TensorView sampling = View({2, kSamplingWords}, DType::kI32);
  const TensorView records = View({2, 11}, DType::kI32);
  device_.ops().RecordedCandidates(logits, sampling, 2, {.first_id = 10, .valid_ids = 13}, records);
  EXPECT_EQ(other_side_.verb, "recorded_candidates");
  EXPECT_EQ(other_side_.number, 2);
  EXPECT_EQ(other_side_.slice.valid_ids, 13);
  EXPECT_THAT(Arrived(), ElementsAre(logits.data, sampling.data, records.data));
  const TensorView gathered = View({2, 33}, DType::kI32);
  const TensorView tokens = View({2}, DType::kI32);
  device_.ops().ChooseRecorded(gathered, 3, sampling, 13, tokens);
  EXPECT_EQ(other_side_.verb, "choose_recorded");
  EXPECT_EQ(other_side_.number, 3013);
  EXPECT_THAT(Arrived(), ElementsAre(gathered.data, sampling.data, tokens.data));
  const RecordedRows rows{gathered, 3, sampling, tokens};
  const TensorView two = View({2, 2}, DType::kI32);
  device_.ops().RecordedMasses(logits, rows, {.first_id = 10, .valid_ids = 12}, two);
  EXPECT_EQ(other_side_.verb, "recorded_masses");
  EXPECT_EQ(other_side_.number, 3);
  EXPECT_EQ(other_side_.slice.valid_ids, 12);
  EXPECT_THAT(Arrived(),
              ElementsAre(logits.data, gathered.data, sampling.data, tokens.data, two.data));
  const TensorView masses = View({2, 6}, DType::kI32);
  device_.ops().RecordedPicks(logits, rows, masses, 2, {.first_id = 10, .valid_ids = 12}, two);
  EXPECT_EQ(other_side_.verb, "recorded_picks");
  EXPECT_EQ(other_side_.number, 3002);
  EXPECT_THAT(Arrived(), ElementsAre(logits.data, gathered.data, sampling.data, tokens.data,
                                     masses.data, two.data));
  device_.ops().TakePicks(masses, tokens);
  EXPECT_EQ(other_side_.verb, "take_picks");
  EXPECT_THAT(Arrived(), ElementsAre(masses.data, tokens.data));
}

}  // namespace
}  // namespace cohort
