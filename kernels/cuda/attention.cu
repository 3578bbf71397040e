// Chooses the kernels of attention.
#include <algorithm>
#include <climits>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/entries.h"

namespace cohort::cuda {
namespace {

constexpr int64_t kMaxHeadDim = 256;

bool IsTaken(CohortCudaDevice* device, const AttentionCall& call) {
  const int64_t head_dim = call.kv->keys.dims[3];
  if (call.query_heads <= kMaxQueryHeads && head_dim <= kMaxHeadDim &&
      call.kv->keys.dims[1] <= SHRT_MAX && call.batch->sequences <= INT_MAX) {
    return true;
  }
  Stick(device,
        MakeError(kCohortCudaInvalidArgument,
                  "attention: %lld query heads of size %lld over %lld KV heads, at most "
                  "%d of %lld over %d are supported on one CUDA rank",
                  static_cast<long long>(call.query_heads), static_cast<long long>(head_dim),
                  static_cast<long long>(call.kv->keys.dims[1]), kMaxQueryHeads,
                  static_cast<long long>(kMaxHeadDim), SHRT_MAX));
  return false;
}

// Whether 16 bytes of every vector can be copied at once.
bool IsAligned(const AttentionCall& call) {
  constexpr int kVec = 8;
  const int64_t head_dim = call.kv->keys.dims[3];
  return CutsIntoPacks(head_dim, kVec,
                       {call.queries, call.out, &call.kv->keys, &call.kv->values}) &&
         (call.chunks == nullptr ||
          CutsIntoPacks(head_dim / 2, kVec, {&call.chunks->rope.cosine, &call.chunks->rope.sine}));
}

}  // namespace

bool SuitsTensorCores(const CohortCudaDevice& device, const AttentionCall& call) {
  const int64_t head_dim = call.kv->keys.dims[3];
  // Logits are compared before they are scaled, so the scale has to keep their order.
  return device.compute >= 80 && call.query_heads <= kMaxQueryHeads &&
         call.queries->dtype == kCohortCudaBF16 && (head_dim == 64 || head_dim == 128) &&
         call.kv->keys.dims[2] % kSlabKeys == 0 && call.scale > 0 && IsAligned(call);
}

int GroupHeads(const int32_t* kv_head_of_query, int64_t query_heads, HeadGroups* groups) {
  int count = 0;
  for (int64_t head = 0; head < query_heads; ++head) {
    const int16_t kv_head = static_cast<int16_t>(kv_head_of_query[head]);
    HeadGroup* const last = count > 0 ? &groups->item[count - 1] : nullptr;
    if (last != nullptr && last->kv_head == kv_head && last->count < kGroupHeads) {
      ++last->count;
    } else {
      groups->item[count++] = {kv_head, static_cast<uint8_t>(head), 1};
    }
  }
  return count;
}

namespace {

void Attend(CohortCudaDevice* device, const AttentionCall& call) {
  if (call.batch->tokens == 0 || call.query_heads == 0 || !IsTaken(device, call)) {
    return;
  }
  Activate(device);
  if (!SuitsTensorCores(*device, call)) {
    PlainAttention(device, call);
    return;
  }
  TensorCoreAttention arguments = {RowsOf<const BFloat16>(*call.queries),
                                   RowsOf<BFloat16>(*call.out),
                                   PagedKvOf<const BFloat16>(*call.kv),
                                   BatchOf(*call.batch),
                                   ChunksOf(call.chunks, *call.batch),
                                   call.scale,
                                   {}};
  const int groups = GroupHeads(call.kv_head_of_query, call.query_heads, &arguments.groups);
  if (call.batch->leading_decodes > 0) {
    DecodeAttention(device, call, arguments, groups);
  }
  if (call.batch->tokens == call.batch->leading_decodes) {
    return;
  }
  if (device->has_wgmma && call.chunks == nullptr) {
    PrefillAttentionWgmma(device, call, arguments, groups);
  } else {
    PrefillAttention(device, call, arguments, groups);
  }
}

std::size_t CounterBytes(int multiprocessors) {
  return (static_cast<std::size_t>(multiprocessors) * sizeof(uint32_t) + 255) / 256 * 256;
}

}  // namespace

std::size_t AttentionWorkspaceBytes(int multiprocessors) {
  return CounterBytes(multiprocessors) +
         std::max(DecodeRangeBytes(multiprocessors), PrefillRangeBytes(multiprocessors));
}

AttentionWorkspace AttentionWorkspaceOf(CohortCudaDevice* device) {
  auto* const memory = static_cast<unsigned char*>(device->attention_workspace);
  return {reinterpret_cast<uint32_t*>(memory),
          reinterpret_cast<float*>(memory + CounterBytes(device->multiprocessors))};
}

void PagedAttention(CohortCudaDevice* device, const CohortCudaTensor* queries,
                    const int32_t* kv_head_of_query, int64_t query_heads,
                    const CohortCudaBatch* batch, const CohortCudaKv* kv, float scale,
                    const CohortCudaTensor* out) noexcept {
  Attend(device, {queries, out, kv_head_of_query, query_heads, batch, kv, nullptr, scale});
  device->next_weights = {};  // they were for this attention, whether or not a kernel took them
}

void DualChunkAttention(CohortCudaDevice* device, const CohortCudaTensor* queries,
                        const int32_t* kv_head_of_query, int64_t query_heads,
                        const CohortCudaDualChunks* chunks, const CohortCudaBatch* batch,
                        const CohortCudaKv* kv, float scale, const CohortCudaTensor* out) noexcept {
  Attend(device, {queries, out, kv_head_of_query, query_heads, batch, kv, chunks, scale});
  device->next_weights = {};
}

}  // namespace cohort::cuda
