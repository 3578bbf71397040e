// Which decode steps the persistent kernel takes, and what it is given for them.
#include <algorithm>
#include <cstdint>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/persistent_step.cuh"

namespace cohort::cuda {
namespace {

// The kernel is chosen by itself for layers of at most so many bytes: larger ones take long against
// what is lost between kernels.
constexpr int64_t kSmallLayerBytes = int64_t{128} << 20;
// Of the residual rows, and of the normed ones, in shared memory.
constexpr int64_t kRowsBytes = StepShared<128>::kRowsBytes;
static_assert(StepShared<64>::kRowsBytes == kRowsBytes);

bool IsSmall(const CohortCudaDenseLayer& layer) {
  int64_t elements = 0;
  for (const CohortCudaTensor* weight :
       {&layer.qkv, &layer.attention_out, &layer.gate_up, &layer.down}) {
    elements += weight->dims[0] * weight->dims[1];
  }
  return elements * static_cast<int64_t>(sizeof(BFloat16)) <= kSmallLayerBytes;
}

CohortCudaTensor QueriesOf(const CohortCudaDenseStep& step) {
  CohortCudaTensor queries = step.qkv;
  queries.dims[1] = step.attended.dims[1];
  return queries;
}

AttentionCall AttentionOf(const CohortCudaDenseStep& step, const CohortCudaTensor* queries) {
  return {queries,          &step.attended, step.kv_head_of_query,
          step.query_heads, &step.batch,    &step.layers[0].kv,
          nullptr,          step.scale};
}

bool AreAlike(const CohortCudaTensor& a, const CohortCudaTensor& b) {
  return a.dtype == b.dtype && std::equal(a.dims, a.dims + kCohortCudaMaxRank, b.dims) &&
         a.row_stride == b.row_stride;
}

// Whether a kernel made for `first` can take `layer`, but for its addresses.
bool AreAlike(const CohortCudaDenseLayer& layer, const CohortCudaDenseLayer& first) {
  return AreAlike(layer.qkv, first.qkv) && AreAlike(layer.attention_out, first.attention_out) &&
         AreAlike(layer.gate_up, first.gate_up) && AreAlike(layer.down, first.down) &&
         AreAlike(layer.kv.keys, first.kv.keys) && AreAlike(layer.kv.values, first.kv.values);
}

bool IsAligned(const CohortCudaTensor& tensor) {
  return reinterpret_cast<uintptr_t>(tensor.data) % 16 == 0;
}

bool TakesLayer(const CohortCudaDevice& device, const CohortCudaDenseStep& step,
                const CohortCudaDenseLayer& layer) {
  return AreAlike(layer, step.layers[0]) && IsAligned(layer.attention_norm) &&
         IsAligned(layer.ffn_norm) && IsAligned(layer.kv.keys) && IsAligned(layer.kv.values) &&
         CanStream(device, step.normed, layer.qkv) &&
         CanStream(device, step.attended, layer.attention_out) &&
         CanStream(device, step.normed, layer.gate_up) &&
         CanStream(device, step.activated, layer.down);
}

bool TakesStep(const CohortCudaDevice& device, const CohortCudaDenseStep& step) {
  const int64_t tokens = step.residual.dims[0];
  const int64_t hidden = step.residual.dims[1];
  const CohortCudaTensor queries = QueriesOf(step);
  const int64_t row_bytes = hidden * static_cast<int64_t>(sizeof(BFloat16)) + 16;
  if (step.layer_count > kStepLayers || tokens > kStepTokens ||
      step.batch.leading_decodes != tokens || tokens * row_bytes > kRowsBytes ||
      step.query_heads < 1 || step.activated.dims[1] % 8 != 0 ||
      !SuitsTensorCores(device, AttentionOf(step, &queries)) ||
      !CutsIntoPacks(hidden, 8, {&step.residual, &step.partial, &step.normed}) ||
      !IsAligned(step.final_norm)) {
    return false;
  }
  for (int64_t i = 0; i < step.layer_count; ++i) {
    if (!TakesLayer(device, step, step.layers[i])) {
      return false;
    }
  }
  return true;
}

template <class T>
T* DataOf(const CohortCudaTensor& tensor) {
  return static_cast<T*>(tensor.data);
}

StepLayer LayerOf(const CohortCudaDenseLayer& layer) {
  return {DataOf<const BFloat16>(layer.attention_norm),
          DataOf<const BFloat16>(layer.qkv),
          DataOf<const BFloat16>(layer.qkv_bias),
          DataOf<const BFloat16>(layer.attention_out),
          DataOf<const BFloat16>(layer.ffn_norm),
          DataOf<const BFloat16>(layer.gate_up),
          DataOf<const BFloat16>(layer.down),
          DataOf<BFloat16>(layer.kv.keys),
          DataOf<BFloat16>(layer.kv.values)};
}

// `*first_block` moves on by the blocks of this product.
StepProduct ProductOf(CohortCudaDevice* device, const CohortCudaTensor& x,
                      const CohortCudaTensor& weight, int64_t units, const UnitRows& unit_rows,
                      int* first_block) {
  const StepProduct product = {MakeStreamOperands(device, x, weight, units, unit_rows),
                               *first_block % device->multiprocessors};
  *first_block += product.operands.plan.blocks;
  return product;
}

int64_t PlainUnits(const CohortCudaTensor& weight) {
  return (weight.dims[0] + kStreamUnitRows - 1) / kStreamUnitRows;
}

void FillProducts(CohortCudaDevice* device, const CohortCudaDenseStep& step,
                  StepArguments* arguments) {
  const CohortCudaDenseLayer& layer = step.layers[0];
  const int half = static_cast<int>(layer.kv.keys.dims[3] / 2);
  const int64_t columns = step.activated.dims[1];
  int first_block = 0;
  arguments->qkv = ProductOf(device, step.normed, layer.qkv, layer.qkv.dims[0] / kStreamUnitRows,
                             HeadRows(half), &first_block);
  arguments->attention_out = ProductOf(device, step.attended, layer.attention_out,
                                       PlainUnits(layer.attention_out), kPlainRows, &first_block);
  arguments->gate_up = ProductOf(device, step.normed, layer.gate_up, columns / 8,
                                 GateUpRows(static_cast<int>(columns)), &first_block);
  arguments->down = ProductOf(device, step.activated, layer.down, PlainUnits(layer.down),
                              kPlainRows, &first_block);
}

void FillAttention(CohortCudaDevice* device, const CohortCudaDenseStep& step,
                   StepArguments* arguments) {
  const CohortCudaTensor queries = QueriesOf(step);
  TensorCoreAttention attention = {RowsOf<const BFloat16>(queries),
                                   RowsOf<BFloat16>(step.attended),
                                   PagedKvOf<const BFloat16>(step.layers[0].kv),
                                   BatchOf(step.batch),
                                   {},
                                   step.scale,
                                   {}};
  arguments->attention_groups =
      GroupHeads(step.kv_head_of_query, step.query_heads, &attention.groups);
  arguments->attention = DecodeArgumentsOf(device, attention);
  arguments->attention_splits =
      DecodeSplits(device->multiprocessors, step.batch.tokens * arguments->attention_groups);
}

}  // namespace

int32_t DenseLayers(CohortCudaDevice* device, const CohortCudaDenseStep* step,
                    int32_t always) noexcept {
  if ((always == 0 && !IsSmall(step->layers[0])) || !TakesStep(*device, *step)) {
    return 0;
  }
  Activate(device);
  StepArguments arguments = {};
  for (int64_t i = 0; i < step->layer_count; ++i) {
    arguments.layers[i] = LayerOf(step->layers[i]);
  }
  arguments.layer_count = static_cast<int>(step->layer_count);
  arguments.tokens = static_cast<int>(step->residual.dims[0]);
  arguments.hidden = static_cast<int>(step->residual.dims[1]);
  arguments.eps = step->eps;
  FillProducts(device, *step, &arguments);
  FillAttention(device, *step, &arguments);
  arguments.rope = RopeEpilogueOf(nullptr, step->qkv, step->query_heads, step->rope, step->batch,
                                  step->layers[0].kv);
  arguments.final_norm = DataOf<const BFloat16>(step->final_norm);
  arguments.residual = RowsOf<const BFloat16>(step->residual);
  arguments.partial = RowsOf<float>(step->partial);
  arguments.attended = RowsOf<BFloat16>(step->attended);
  arguments.activated = RowsOf<BFloat16>(step->activated);
  arguments.normed = RowsOf<BFloat16>(step->normed);
  arguments.counters = device->step_counters;
  LaunchPersistentStep(device, arguments);
  return 1;
}

}  // namespace cohort::cuda
