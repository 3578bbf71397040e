// The dense layers of a decode step of 1 to 8 tokens in one kernel. Between kernels of their own
// memory idles: five times a layer until the last block has ended and the first loads of the next
// kernel are back. Here one block per multiprocessor stays for the whole step, and its copying warp
// never waits for data: weights of the next products, of the next layer too, come while others
// still compute.
//
// A block is one warp that copies weights and eight that compute, as in stream.cuh and with its
// tiles. All blocks go through the same parts of each layer: QKV with rope and the store of keys
// and values, attention, the output product, gate and up with SiLU, down. A block does its share of
// a part, if it has one, and then counts itself at the part's counter in global memory (release);
// who needs the part's result waits until all blocks with a share have counted (acquire). There is
// no barrier of all blocks. Both norms are computed by every block for itself, from the sums that
// the product before left and from its own copy of the residual rows: a few kilobytes, and one wait
// less.
//
// Why nothing is overwritten too early: a part is finished only when the part before is, because
// each block with a share has waited for it. A buffer is written again one layer later, or, as the
// sums of the output product and of down, which share one, two parts later; every block counts
// itself at QKV and at gate and up, behind its norm, so all have read them by then. Why it ends:
// every block does the same parts in the same order and waits only for parts before its own; all
// blocks run at the same time, because there is one per multiprocessor. A wait that lasts longer
// than kSpinBoundNanoseconds traps, which ends the whole grid with an error.
//
// The order of every sum is that of the kernels that the step is otherwise made of (stream.cuh,
// attention_decode.cuh, norm.cu), and so are the bits. The last block to leave sets the counters to
// zero for the next launch.
//
// Shared memory: StepShared (persistent_step.cuh), 212 KB: 7 stages of weights (116 KB), the
// residual rows, and 64 KB that hold x and the sums of the warps, or attention's keys and values.
// (The idea: Hazy Research's and Mirage's megakernels; counters in place of grid barriers: the
// former.) Not yet run on a GPU.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/persistent_step.cuh"
#include "kernels/cuda/persistent_step.h"

namespace cohort::cuda {
namespace {

// --- The copying warp ---

__device__ int BlockOf(const StepProduct& product) {
  const int blocks = static_cast<int>(gridDim.x);
  return (static_cast<int>(blockIdx.x) + blocks - product.first_block) % blocks;
}

__device__ bool HasShare(const StepProduct& product) {
  return BlockOf(product) < product.operands.plan.blocks;
}

__device__ StreamOperands OperandsOf(const StepProduct& product, const BFloat16* weight) {
  StreamOperands operands = product.operands;
  operands.weight.data = weight;
  return operands;
}

// The chunks of this block's items: `stage` counts on.
template <class Shared>
__device__ void CopyProduct(const Shared& shared, const StepProduct& product,
                            const BFloat16* weight, int* stage) {
  if (!HasShare(product)) {
    return;
  }
  const StreamOperands operands = OperandsOf(product, weight);
  const StreamPlan& plan = operands.plan;
  const int block = BlockOf(product);
  const int end = plan.ChunksBefore(plan.FirstItem(block + 1));
  for (int chunk = plan.ChunksBefore(plan.FirstItem(block)); chunk < end; ++chunk) {
    for (int half = 0; half < kStreamChunkStages; ++half, ++*stage) {
      if (*stage >= Shared::kRing) {
        BarrierWait(shared.Empty(*stage), static_cast<uint32_t>(*stage / Shared::kRing - 1) & 1);
      }
      CopyStage(operands, shared, chunk / plan.chunks, chunk % plan.chunks, half, *stage, 0);
    }
  }
}

template <class Shared>
__device__ void CopyWeights(const StepArguments& a, const Shared& shared) {
  int stage = 0;
  for (int i = 0; i < a.layer_count; ++i) {
    const StepLayer& layer = a.layers[i];
    CopyProduct(shared, a.qkv, layer.qkv, &stage);
    CopyProduct(shared, a.attention_out, layer.attention_out, &stage);
    CopyProduct(shared, a.gate_up, layer.gate_up, &stage);
    CopyProduct(shared, a.down, layer.down, &stage);
  }
  WaitForPredecessor();
}

// --- The computing warps ---

__device__ void Meet() { NamedBarrier(kStreamMathBarrier, kStreamMathThreads); }

// Until `blocks` blocks have counted themselves; then these warps see what they wrote.
__device__ void Await(const uint32_t* counter, int blocks) {
  if (threadIdx.x == 0) {
    constexpr uint32_t kLooks = 64;  // for one at the clock, which is slower
    uint64_t begin = 0;
    for (uint32_t looks = 1; LoadAcquire(counter) < static_cast<uint32_t>(blocks); ++looks) {
      if (looks % kLooks == 0) {
        begin = begin == 0 ? GlobalTimer() : begin;
        if (GlobalTimer() - begin > kSpinBoundNanoseconds) {
          __trap();
        }
      }
    }
  }
  Meet();
}

__device__ void Count(uint32_t* counter) {
  Meet();
  if (threadIdx.x == 0) {
    AddRelease(counter, 1);
  }
}

// This block's share of a product; load as in MultiplyItem.
template <class Shared, class Epilogue, class Place, class Load>
__device__ void Multiply(const Shared& shared, const StepProduct& product, const BFloat16* weight,
                         const Epilogue& epilogue, const Place& place, int* chunks,
                         const Load& load) {
  const StreamPlan& plan = product.operands.plan;
  const int block = BlockOf(product);
  MultiplyItems(OperandsOf(product, weight), shared, plan.FirstItem(block),
                plan.FirstItem(block + 1), epilogue, place, chunks, load);
}

// The same with the normed rows.
template <class Shared, class Epilogue, class Place>
__device__ void MultiplyNormed(const StepArguments& a, const Shared& shared,
                               const StepProduct& product, const BFloat16* weight,
                               const Epilogue& epilogue, const Place& place, int* chunks) {
  if (!HasShare(product)) {
    return;
  }
  Multiply(shared, product, weight, epilogue, place, chunks, [&](int chunk, int, int groups) {
    return LoadTokens<1>(a.tokens, groups, [&](int token) {
      return shared.NormedRow(a.hidden, token) + chunk * kStreamChunkColumns * 2;
    });
  });
}

// The same with rows that other blocks wrote. Each warp brings its own columns of x, some chunks
// ahead: lane l 16 bytes of token l / 4.
template <class Shared, class Epilogue, class Place>
__device__ void MultiplyStored(const Shared& shared, const StepProduct& product,
                               const BFloat16* weight, const Rows<BFloat16>& x,
                               const Epilogue& epilogue, const Place& place, int* chunks) {
  const StreamOperands& operands = product.operands;
  const StreamPlan& plan = operands.plan;
  const int block = BlockOf(product);
  const int first = plan.ChunksBefore(plan.FirstItem(block));
  const int count = plan.ChunksBefore(plan.FirstItem(block + 1)) - first;
  const int token = static_cast<int>(threadIdx.x) % 32 / 4;
  const int column =
      static_cast<int>(threadIdx.x) / 32 * 32 + static_cast<int>(threadIdx.x) % 4 * 8;
  const auto copy = [&](int i) {  // the i-th chunk of this block
    const int from = (first + i) % plan.chunks * kStreamChunkColumns + column;
    if (i < count && token < operands.tokens && from < operands.columns) {
      CopyAsync16(shared.XRow(i, token) + column * 2, x[token] + from, true);
    }
    CopyAsyncCommit();
  };
  for (int i = 0; i < Shared::kXRing - 1; ++i) {
    copy(i);
  }
  int next = 0;
  Multiply(shared, product, weight, epilogue, place, chunks, [&](int, int, int groups) {
    CopyAsyncWait<Shared::kXRing - 2>();
    __syncwarp();  // the chunk is there for all lanes, and the place before is free
    const int i = next++;
    copy(i + Shared::kXRing - 1);
    return LoadTokens<1>(operands.tokens, groups,
                         [&](int of_token) { return shared.XRow(i, of_token); });
  });
  CopyAsyncWait<0>();
}

// A layer's short vectors on their way into L2: all blocks will wait for them.
__device__ void PrefetchVectors(const StepArguments& a, int index) {
  constexpr int kLine = 128 / static_cast<int>(sizeof(BFloat16));
  const StepLayer& layer = a.layers[index];
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread * kLine; i < a.hidden; i += kStreamMathThreads * kLine) {
    PrefetchL2(layer.attention_norm + i);
    PrefetchL2(layer.ffn_norm + i);
  }
  if (layer.qkv_bias != nullptr) {
    for (int i = thread * kLine; i < a.qkv.operands.rows; i += kStreamMathThreads * kLine) {
      PrefetchL2(layer.qkv_bias + i);
    }
  }
}

// Each thread meets the same packs of a row as a thread of norm.cu does.
constexpr int kVec = 8;
constexpr int kStride = kStreamMathThreads * kVec;

__device__ int FirstColumn() { return static_cast<int>(threadIdx.x) * kVec; }

template <class Shared>
__device__ void LoadResidual(const StepArguments& a, const Shared& shared) {
  for (int column = FirstColumn(); column < a.hidden; column += kStride) {
    for (int token = 0; token < a.tokens; ++token) {
      StorePack<kVec>(shared.ResidualRow(a.hidden, token) + column,
                      LoadPack<kVec>(a.residual[token] + column));
    }
  }
}

// Tokens whose sums are under way to a thread at a time: more cost registers that attention needs.
constexpr int kTokensAtOnce = 2;

// Adds what the product before left, where there is one, to this thread's columns of the residual
// rows from `first` on; then each warp's sums of their squares.
template <bool kHasProduct, class Shared>
__device__ void AddToResidual(const StepArguments& a, const Shared& shared, int first) {
  float squares[kTokensAtOnce] = {};
  for (int column = FirstColumn(); column < a.hidden; column += kStride) {
    Pack<float, kVec> added[kTokensAtOnce];
    if constexpr (kHasProduct) {
#pragma unroll
      for (int i = 0; i < kTokensAtOnce; ++i) {
        if (first + i < a.tokens) {
          added[i] = LoadPack<kVec>(a.partial[first + i] + column);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kTokensAtOnce; ++i) {
      if (first + i < a.tokens) {
        BFloat16* const row = shared.ResidualRow(a.hidden, first + i) + column;
        auto values = LoadPack<kVec>(row);
        if constexpr (kHasProduct) {
          AddRounded(&values, added[i]);
          StorePack<kVec>(row, values);
        }
        AddSquares(values, &squares[i]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kTokensAtOnce; ++i) {
    const float sum = WarpSum(squares[i]);
    if (threadIdx.x % 32 == 0) {
      shared.Squares(first + i)[threadIdx.x / 32] = sum;
    }
  }
}

// The normed residual rows, for all computing warps. kHasProduct: see AddToResidual.
template <bool kHasProduct, class Shared>
__device__ void Normalise(const StepArguments& a, const Shared& shared, const BFloat16* gamma) {
  static_assert(kStepTokens % kTokensAtOnce == 0);
#pragma unroll 1
  for (int first = 0; first < a.tokens; first += kTokensAtOnce) {
    AddToResidual<kHasProduct>(a, shared, first);
  }
  Meet();
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll 1
  for (int token = 0; token < a.tokens; ++token) {
    const float sum = WarpSum(lane < kStreamMathWarps ? shared.Squares(token)[lane] : 0.0f);
    const float scale = NormScale(sum, a.eps, a.hidden);
    auto* const out = reinterpret_cast<BFloat16*>(shared.NormedRow(a.hidden, token));
    for (int column = FirstColumn(); column < a.hidden; column += kStride) {
      StorePack<kVec>(out + column,
                      NormedPack(LoadPack<kVec>(shared.ResidualRow(a.hidden, token) + column),
                                 LoadPack<kVec>(gamma + column), scale));
    }
  }
  Meet();
}

// How many blocks have a share of the attention of a layer.
__device__ int AttentionItems(const StepArguments& a) {
  return a.tokens * a.attention_groups * a.attention_splits;
}
__device__ int AttentionBlocks(const StepArguments& a) {
  return min(AttentionItems(a), static_cast<int>(gridDim.x));
}

// By the first four warps.
template <class Shared>
__device__ void Attend(const StepArguments& a, const Shared& shared, const StepLayer& layer) {
  if (threadIdx.x >= kDecodeThreads) {
    return;
  }
  const auto memory = shared.Attention();
  PagedKv<const BFloat16> kv = a.attention.attention.kv;
  kv.keys = layer.keys;
  kv.values = layer.values;
  const int items = AttentionItems(a);
  for (int i = static_cast<int>(blockIdx.x); i < items; i += static_cast<int>(gridDim.x)) {
    const int of_all = i / a.attention_splits;  // (sequence, group)
    const DecodeItem item = {of_all / a.attention_groups, of_all % a.attention_groups,
                             a.attention_groups, i % a.attention_splits, a.attention_splits};
    AttendItem<false>(memory, a.attention, kv, item, [] {});
    memory.Sync();  // before the next item's keys come
  }
}

template <class Shared>
__device__ void ComputeLayer(const StepArguments& a, const Shared& shared, int index, int* chunks) {
  const StepLayer& layer = a.layers[index];
  const StepCounters counters{a.counters};
  const int blocks = static_cast<int>(gridDim.x);
  const int token = min(StreamElement<1>().token, a.tokens - 1);
  RopeEpilogue rope = a.rope;
  rope.bias = layer.qkv_bias;
  rope.kv.keys = layer.keys;
  rope.kv.values = layer.values;
  MultiplyNormed(a, shared, a.qkv, layer.qkv, rope, *shared.RopePlace(token), chunks);
  Count(counters.Of(index, kQkvPart));
  if (index + 1 < a.layer_count) {
    PrefetchVectors(a, index + 1);
  }
  if (static_cast<int>(blockIdx.x) < AttentionBlocks(a)) {
    Await(counters.Of(index, kQkvPart), blocks);
    Attend(a, shared, layer);
    Count(counters.Of(index, kAttentionPart));
  }
  if (HasShare(a.attention_out)) {
    Await(counters.Of(index, kAttentionPart), AttentionBlocks(a));
    MultiplyStored(shared, a.attention_out, layer.attention_out, a.attended,
                   BiasEpilogue<float>{nullptr, a.partial, a.hidden}, a.partial[token], chunks);
    Count(counters.Of(index, kOutPart));
  }
  Await(counters.Of(index, kOutPart), a.attention_out.operands.plan.blocks);
  Normalise<true>(a, shared, layer.ffn_norm);
  MultiplyNormed(a, shared, a.gate_up, layer.gate_up, GateUpEpilogue{a.activated},
                 a.activated[token], chunks);
  Count(counters.Of(index, kGateUpPart));
  if (HasShare(a.down)) {
    Await(counters.Of(index, kGateUpPart), blocks);
    MultiplyStored(shared, a.down, layer.down, a.activated,
                   BiasEpilogue<float>{nullptr, a.partial, a.hidden}, a.partial[token], chunks);
    Count(counters.Of(index, kDownPart));
  }
}

// The last norm, of row t by block t.
template <class Shared>
__device__ void StoreNormed(const StepArguments& a, const Shared& shared) {
  for (int token = static_cast<int>(blockIdx.x); token < a.tokens;
       token += static_cast<int>(gridDim.x)) {
    const auto* const row = reinterpret_cast<const BFloat16*>(shared.NormedRow(a.hidden, token));
    for (int column = FirstColumn(); column < a.hidden; column += kStride) {
      StorePack<kVec>(a.normed[token] + column, LoadPack<kVec>(row + column));
    }
  }
}

// The last block to come here is the last to look at the counters.
template <class Shared>
__device__ void Leave(const StepArguments& a, const Shared& shared) {
  const StepCounters counters{a.counters};
  Meet();
  if (threadIdx.x == 0) {
    const uint32_t before = FetchAddAcquireRelease(counters.Left(), 1);
    *shared.IsLast() = before + 1 == gridDim.x ? 1 : 0;
  }
  Meet();
  if (*shared.IsLast() != 0) {
    for (int i = static_cast<int>(threadIdx.x); i < kStepCounters; i += kStreamMathThreads) {
      counters.begin[i] = 0;
    }
  }
}

template <class Shared>
__device__ void ComputeStep(const StepArguments& a, const Shared& shared) {
  PrefetchVectors(a, 0);
  WaitForPredecessor();
  const StepCounters counters{a.counters};
  if (static_cast<int>(threadIdx.x) < a.tokens) {
    *shared.RopePlace(static_cast<int>(threadIdx.x)) =
        a.rope.PlaceOf(static_cast<int>(threadIdx.x));
  }
  int chunks = 0;
  LoadResidual(a, shared);
  Normalise<false>(a, shared, a.layers[0].attention_norm);
  for (int i = 0; i < a.layer_count; ++i) {
    ComputeLayer(a, shared, i, &chunks);
    const bool is_last = i + 1 == a.layer_count;
    if (!is_last || static_cast<int>(blockIdx.x) < a.tokens) {
      Await(counters.Of(i, kDownPart), a.down.operands.plan.blocks);
      Normalise<true>(a, shared, is_last ? a.final_norm : a.layers[i + 1].attention_norm);
    }
  }
  StoreNormed(a, shared);
  Leave(a, shared);
}

template <int kHeadDim>
__global__ void __launch_bounds__(kStreamThreads, 1)
    PersistentStepKernel(const __grid_constant__ StepArguments a) {
  const StepShared<kHeadDim> shared{DynamicShared()};
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < StepShared<kHeadDim>::kRing; ++stage) {
      BarrierInit(shared.Full(stage), 1);
      BarrierInit(shared.Empty(stage), kStreamMathWarps);
    }
    BarrierInitFence();
  }
  __syncthreads();
  if (threadIdx.x >= kStreamMathThreads) {
    CopyWeights(a, shared);
  } else {
    ComputeStep(a, shared);
  }
}

template <int kHeadDim>
void LaunchHeads(CohortCudaDevice* device, const StepArguments& arguments) {
  const LaunchShape shape = {.grid = static_cast<unsigned>(device->multiprocessors),
                             .block = kStreamThreads,
                             .shared_bytes = StepShared<kHeadDim>::kBytes,
                             .programmatic = true};
  Launch(device, "PersistentStep", shape, PersistentStepKernel<kHeadDim>, arguments);
}

}  // namespace

void LaunchPersistentStep(CohortCudaDevice* device, const StepArguments& arguments) {
  if (arguments.rope.half * 2 == 128) {
    LaunchHeads<128>(device, arguments);
  } else {
    LaunchHeads<64>(device, arguments);
  }
}

}  // namespace cohort::cuda
