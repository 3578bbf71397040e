// The kernel of decode attention: a block is the four warps of attention_decode.cuh, and its item
// is (blockIdx.x, blockIdx.y, blockIdx.z) = (sequence, group, range). Blocks without a range, and
// the others behind their keys, bring weights of the next products into L2 (prefetch.cuh). Shared
// memory: DecodeShared of attention_decode.cuh, 96 KB. Not yet run on a GPU.
#include "kernels/cuda/attention_decode.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/prefetch.cuh"

namespace cohort::cuda {
namespace {

constexpr int kMaxSplits = 32;
constexpr int kMaxHeadDim = 128;
// Splits are made only while all of them together are at most two blocks per multiprocessor.
constexpr int kBlocksPerProcessor = 2;

template <int kHeadDim>
using BlockShared = DecodeShared<kHeadDim, 3 * 128 / kHeadDim, 0>;

template <int kHeadDim, bool kHasChunks>
__global__ void __launch_bounds__(kDecodeThreads, 2)
    DecodeAttentionKernel(DecodeArguments a, NextPrefetches next) {
  WaitForPredecessor();
  LaunchSuccessor();
  const BlockShared<kHeadDim> shared{DynamicShared()};
  const DecodeItem item = {blockIdx.x, static_cast<int>(blockIdx.y), static_cast<int>(gridDim.y),
                           static_cast<int>(blockIdx.z), static_cast<int>(gridDim.z)};
  AttendItem<kHasChunks>(shared, a, a.attention.kv, item, [&] { PrefetchNext(next); });
}

template <int kHeadDim>
void LaunchDecode(CohortCudaDevice* device, const DecodeArguments& arguments,
                  const NextPrefetches& next, dim3 grid) {
  const LaunchShape shape = {.grid = grid,
                             .block = kDecodeThreads,
                             .shared_bytes = BlockShared<kHeadDim>::kBytes,
                             .programmatic = true};
  if (arguments.attention.chunks.length == 0) {
    Launch(device, "DecodeAttention", shape, DecodeAttentionKernel<kHeadDim, false>, arguments,
           next);
  } else {
    Launch(device, "DecodeAttention", shape, DecodeAttentionKernel<kHeadDim, true>, arguments,
           next);
  }
}

}  // namespace

std::size_t DecodeRangeBytes(int multiprocessors) {
  return static_cast<std::size_t>(kBlocksPerProcessor) * static_cast<std::size_t>(multiprocessors) *
         kRangeFloats<kMaxHeadDim> * sizeof(float);
}

int DecodeSplits(int multiprocessors, int64_t items) {
  const int64_t room = kBlocksPerProcessor * int64_t{multiprocessors} / items;
  return room < 1 ? 1 : room > kMaxSplits ? kMaxSplits : static_cast<int>(room);
}

DecodeArguments DecodeArgumentsOf(CohortCudaDevice* device, const TensorCoreAttention& attention) {
  const AttentionWorkspace workspace = AttentionWorkspaceOf(device);
  return {attention, workspace.counters, workspace.ranges};
}

void DecodeAttention(CohortCudaDevice* device, const AttentionCall& call,
                     const TensorCoreAttention& arguments, int groups) {
  const int64_t sequences = call.batch->leading_decodes;
  const int splits = DecodeSplits(device->multiprocessors, sequences * groups);
  const dim3 grid(static_cast<unsigned>(sequences), static_cast<unsigned>(groups),
                  static_cast<unsigned>(splits));
  const DecodeArguments with_workspace = DecodeArgumentsOf(device, arguments);
  const NextPrefetches next = TakeNextPrefetches(device, call.batch->tokens);
  if (call.kv->keys.dims[3] == 128) {
    LaunchDecode<128>(device, with_workspace, next, grid);
  } else {
    LaunchDecode<64>(device, with_workspace, next, grid);
  }
}

}  // namespace cohort::cuda
