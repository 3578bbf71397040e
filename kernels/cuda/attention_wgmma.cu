// Attention of chunks with Hopper's warpgroup products (FlashAttention-3's structure, arXiv
// 2407.08608): compute 9.0, plain attention; attention_prefill.cu has the rest.
//
// An item of work is kRows rows, (token, head) pairs: consecutive tokens of one sequence with all
// heads of one group, token by token, so that the group reads keys and values once, over the tiles
// of kKeys keys that they see, or one range of these. There are as many blocks as multiprocessors;
// each takes an item after the other. Warpgroup 0 finds them and copies (attention_wgmma_copy.cuh),
// and runs ahead into the next item; warpgroups 1 and 2 compute 64 rows each. Of a tile, S [64,
// keys] = Q K^T comes from shared memory, the running softmax in registers makes weights of it, and
// O [64, head size] += P V takes those from registers. While a consumer computes the softmax of a
// tile, its own product P V of the tile before is under way, and the other consumer's two products:
// a named barrier lets them issue in turn.
//
// A consumer's thread holds the rows 16 (warp % 4) + lane / 4 and + 8 of its warpgroup, and two of
// every eight columns (wgmma.cuh). Shared memory: SharedMemory of attention_wgmma.cuh.
//
// What is left when every block has had as many items as every other: the keys of these are split
// into ranges, items of their own, which leave O, maxima and sums in device memory; the consumer
// that arrives last at (tokens, group, 64 rows) adds the ranges in order. So a short chunk behind
// many keys has work for all blocks, and a long one has a short last round.
//
// Rounding: weights are rounded to bf16 for the product with V, their sum is not. A row's result
// depends on the row alone, and where keys are split on where. Not yet run on a GPU.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/attention_wgmma.cuh"
#include "kernels/cuda/attention_wgmma_copy.cuh"
#include "kernels/cuda/launch.h"

namespace cohort::cuda {
namespace wgmma_attention {
namespace {

constexpr int kProducerRegisters = 40;
constexpr int kConsumerRegisters = 232;
constexpr unsigned kAll = 0xffffffffu;
// Named barriers: a consumer's turn to issue, and all threads of a consumer.
constexpr int kTurn = 1;
constexpr int kConsumer = kTurn + kConsumers;

// The running softmax of a thread's two rows.
struct Softmax {
  float maximum[2] = {-INFINITY, -INFINITY};  // of the scaled logits, to base 2
  float sum[2] = {0, 0};                      // over this thread's columns only
};

using Logits = float[kKeys / 2];
using Weights = uint32_t[kKeys / 16][4];  // first operands of the products with V
template <class S>
using Out = float[S::kHeadDim / 2];

// What a consumer keeps through all items.
template <class S>
class Consumer {
 public:
  __device__ explicit Consumer(const Arguments& a) : a_(a) {
    scale_ = __fmul_rn(a.attention.scale, kLog2E);
    if (group() == 1) {
      NamedBarrierArrive(kTurn, kConsumers * kWarpgroupThreads);  // consumer 0 begins
    }
  }
  __device__ void Run() {
    while (true) {
      BarrierWait(shared_.QueriesFull(), queries_parity_);
      queries_parity_ ^= 1;
      const Work work = *shared_.CurrentWork();
      if (work.tiles == 0) {
        break;
      }
      // Found anew: to hand it over would cost the producer registers.
      Take({work, GroupOf(a_, work.index), 0});
    }
    if (group() == 0) {
      NamedBarrier(kTurn, kConsumers * kWarpgroupThreads);  // what is left of the turns
    }
  }

 private:
  __device__ void Take(const Item& item) {
    Out<S> out = {};
    Softmax softmax;
    TakeKeys(item, softmax, out);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      softmax.sum[h] = __fadd_rn(softmax.sum[h], __shfl_xor_sync(kAll, softmax.sum[h], 1));
      softmax.sum[h] = __fadd_rn(softmax.sum[h], __shfl_xor_sync(kAll, softmax.sum[h], 2));
    }
    if (item.ranges == 1 || MergeRanges(item, softmax, out)) {
      StoreRows(item, softmax, out);
    }
  }

  __device__ int thread() const { return static_cast<int>(threadIdx.x) % kWarpgroupThreads; }
  __device__ int lane() const { return static_cast<int>(threadIdx.x) % 32; }
  __device__ int group() const { return static_cast<int>(threadIdx.x) / kWarpgroupThreads - 1; }
  // Row h of the thread, in the item.
  __device__ int Row(int h) const {
    return group() * kGroupRows + thread() / 32 * 16 + lane() / 4 + h * 8;
  }

  // One arrival for each warp, whose reads are done.
  __device__ void Release(uint64_t* empty) const {
    __syncwarp();
    if (lane() == 0) {
      BarrierArrive(empty);
    }
  }

  // The tiles of the item. Rows behind the last are computed like the last, with zeros as queries.
  __device__ void TakeKeys(const Item& item, Softmax& softmax, Out<S>& out) {
    const int32_t visible[2] = {shared_.Visible()[Row(0)], shared_.Visible()[Row(1)]};
    const int32_t all_see = __shfl_sync(kAll, visible[0], 0);  // the warp's first row sees least
    Logits logits;
    Weights weights;
    float keep[2];
    BarrierWait(shared_.KeysFull(keys_.slot), keys_.parity);
    WgmmaKeep(logits);
    MultiplyKeys(logits);
    WgmmaWait<0>();
    WgmmaKeep(logits);
    int32_t tile = item.first_tile;
    const int32_t end = tile + item.tiles;
    FinishKeys(tile + 1 == end);
    TakeLogits(tile, visible, all_see, logits, softmax, keep);
    Pack(logits, weights);
    for (++tile; tile < end; ++tile) {
      BarrierWait(shared_.KeysFull(keys_.slot), keys_.parity);
      NamedBarrier(kTurn + group(), kConsumers * kWarpgroupThreads);
      WgmmaKeep(logits);
      WgmmaKeep(out);
      Keep(weights);
      MultiplyKeys(logits);
      BarrierWait(shared_.ValuesFull(values_.slot), values_.parity);
      AddValues(weights, out);
      NamedBarrierArrive(kTurn + (group() ^ 1), kConsumers * kWarpgroupThreads);
      WgmmaWait<1>();
      WgmmaKeep(logits);
      FinishKeys(tile + 1 == end);
      TakeLogits(tile, visible, all_see, logits, softmax, keep);
      WgmmaWait<0>();
      WgmmaKeep(out);
      Keep(weights);
      FinishValues();
      Scale(keep, out);
      Pack(logits, weights);
    }
    BarrierWait(shared_.ValuesFull(values_.slot), values_.parity);
    WgmmaKeep(out);
    Keep(weights);
    AddValues(weights, out);
    WgmmaWait<0>();
    WgmmaKeep(out);
    Keep(weights);
    FinishValues();
  }

  __device__ void FinishKeys(bool is_last) {
    Release(shared_.KeysEmpty(keys_.slot));
    keys_.Advance();
    if (is_last) {
      Release(shared_.QueriesEmpty());
    }
  }
  __device__ void FinishValues() {
    Release(shared_.ValuesEmpty(values_.slot));
    values_.Advance();
  }

  // S = Q K^T, under way afterwards.
  __device__ void MultiplyKeys(Logits& logits) const {
    WgmmaFence();
    const uint64_t queries = SharedMatrixKMajor(shared_.Queries() + group() * kGroupRows * 128);
    const uint64_t keys = SharedMatrixKMajor(shared_.Keys(keys_.slot));
#pragma unroll
    for (int step = 0; step < S::kHeadDim / 16; ++step) {
      const uint64_t at = step / 4 * (S::kHalfBytes >> 4) + step % 4 * kKMajorStep;
      WgmmaBf16<kKeys>(logits, queries + at, keys + at, step > 0);
    }
    WgmmaCommit();
  }
  // O += P V, under way afterwards.
  __device__ void AddValues(const Weights& weights, Out<S>& out) const {
    WgmmaFence();
    const uint64_t values = SharedMatrixMnMajor(shared_.Values(values_.slot), S::kHalfBytes);
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) {
      WgmmaBf16<S::kHeadDim, true>(out, weights[step], values + step * kMnMajorStep, true);
    }
    WgmmaCommit();
  }

  // Turns logits into weights relative to the row's largest so far; `keep` is the factor of what
  // was summed before. A row of which this range has no key yet has the maximum -inf.
  __device__ void TakeLogits(int32_t tile, const int32_t (&visible)[2], int32_t all_see,
                             Logits& logits, Softmax& softmax, float (&keep)[2]) const {
    const int32_t first = tile * kKeys;
    if (first + kKeys > all_see) {
      const int32_t column = first + lane() % 4 * 2;
#pragma unroll
      for (int i = 0; i < kKeys / 2; ++i) {
        const int32_t position = column + i / 4 * 8 + i % 2;
        logits[i] = position < visible[i / 2 % 2] ? logits[i] : -INFINITY;
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float largest = logits[h * 2];
#pragma unroll
      for (int i = 0; i < kKeys / 4; ++i) {
        largest = fmaxf(largest, logits[i / 2 * 4 + h * 2 + i % 2]);
      }
      largest = fmaxf(largest, __shfl_xor_sync(kAll, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(kAll, largest, 2));
      const float maximum = fmaxf(softmax.maximum[h], __fmul_rn(largest, scale_));
      const float reference = maximum == -INFINITY ? 0.0f : maximum;
      keep[h] = Exp2Approximate(__fsub_rn(softmax.maximum[h], reference));
      softmax.maximum[h] = maximum;
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kKeys / 4; ++i) {
        float& weight = logits[i / 2 * 4 + h * 2 + i % 2];
        weight = Exp2Approximate(__fmaf_rn(weight, scale_, -reference));
        sum = __fadd_rn(sum, weight);
      }
      softmax.sum[h] = __fmaf_rn(softmax.sum[h], keep[h], sum);
    }
  }

  static __device__ void Scale(const float (&keep)[2], Out<S>& out) {
    if (!__any_sync(kAll, keep[0] != 1.0f || keep[1] != 1.0f)) {
      return;
    }
#pragma unroll
    for (int i = 0; i < S::kHeadDim / 2; ++i) {
      out[i] = __fmul_rn(out[i], keep[i / 2 % 2]);
    }
  }

  static __device__ void Keep(Weights& weights) {
#pragma unroll
    for (auto& step : weights) {
      WgmmaKeep(step);
    }
  }

  static __device__ void Pack(const Logits& logits, Weights& weights) {
#pragma unroll
    for (int i = 0; i < kKeys / 4; ++i) {
      weights[i / 4][i % 4] = PackBFloat16(logits[i * 2], logits[i * 2 + 1]);
    }
  }

  // Leaves the range's result. In the last consumer to come here `out` and `softmax` are then those
  // of all ranges, and the answer is true.
  __device__ bool MergeRanges(const Item& item, Softmax& softmax, Out<S>& out) const {
    constexpr int kRowFloats = S::kHeadDim + 2;
    const int64_t range_floats = int64_t{kRows} * kRowFloats;
    const int32_t pair = (item.index - a_.whole) / a_.splits;
    const int32_t split = (item.index - a_.whole) % a_.splits;
    float* const ranges = a_.ranges + pair * a_.splits * range_floats;
    float* const own = ranges + split * range_floats;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float* const row = own + Row(h) * kRowFloats;
#pragma unroll
      for (int i = 0; i < S::kHeadDim / 8; ++i) {
        *reinterpret_cast<float2*>(row + i * 8 + lane() % 4 * 2) =
            make_float2(out[i * 4 + h * 2], out[i * 4 + h * 2 + 1]);
      }
      if (lane() % 4 == 0) {
        *reinterpret_cast<float2*>(row + S::kHeadDim) =
            make_float2(softmax.maximum[h], softmax.sum[h]);
      }
    }
    if (!IsLastToArrive(pair * kConsumers + group(), item.ranges)) {
      return false;
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      AddRanges(ranges + Row(h) * kRowFloats, range_floats, item.ranges, h, softmax, out);
    }
    return true;
  }

  // Row h from the ranges' rows, `stride` floats apart.
  __device__ void AddRanges(const float* rows, int64_t stride, int ranges, int h, Softmax& softmax,
                            Out<S>& out) const {
    float maximum = -INFINITY;
    for (int range = 0; range < ranges; ++range) {
      maximum = fmaxf(maximum, rows[range * stride + S::kHeadDim]);
    }
    float sum = 0;
#pragma unroll
    for (int i = 0; i < S::kHeadDim / 8; ++i) {
      out[i * 4 + h * 2] = 0;
      out[i * 4 + h * 2 + 1] = 0;
    }
    for (int range = 0; range < ranges; ++range) {
      const float* const row = rows + range * stride;
      const float weight = Exp2Approximate(__fsub_rn(row[S::kHeadDim], maximum));
      sum = __fmaf_rn(row[S::kHeadDim + 1], weight, sum);
#pragma unroll
      for (int i = 0; i < S::kHeadDim / 8; ++i) {
        const float2 pair = *reinterpret_cast<const float2*>(row + i * 8 + lane() % 4 * 2);
        float& low = out[i * 4 + h * 2];
        float& high = out[i * 4 + h * 2 + 1];
        low = __fmaf_rn(pair.x, weight, low);
        high = __fmaf_rn(pair.y, weight, high);
      }
    }
    softmax.sum[h] = sum;
  }

  // Whether this consumer is the last of `count` that come here; then it sees what the others
  // wrote.
  __device__ bool IsLastToArrive(int32_t counter, int count) const {
    __shared__ bool is_last[kConsumers];
    NamedBarrier(kConsumer + group(), kWarpgroupThreads);
    if (thread() == 0) {
      uint32_t* const arrived = a_.arrived + counter;
      is_last[group()] = FetchAddAcquireRelease(arrived, 1) == static_cast<uint32_t>(count - 1);
      if (is_last[group()]) {
        *arrived = 0;  // for the next launch
      }
    }
    NamedBarrier(kConsumer + group(), kWarpgroupThreads);
    return is_last[group()];
  }

  // Divides, rounds and writes the rows. The four lanes of a row exchange pairs of columns until
  // each has 16 bytes.
  __device__ void StoreRows(const Item& item, const Softmax& softmax, const Out<S>& out) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float factor = __fdiv_rn(1.0f, softmax.sum[h]);
      const int row = Row(h);
      BFloat16* const to =
          a_.attention.out[item.Token(row)] + item.Head(row) * S::kHeadDim + lane() % 4 * 8;
#pragma unroll
      for (int i = 0; i < S::kChunks; i += 4) {
        uint32_t pairs[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const int at = (i + k) * 4 + h * 2;
          pairs[k] = PackBFloat16(__fmul_rn(out[at], factor), __fmul_rn(out[at + 1], factor));
        }
        TransposeInQuad(pairs);
        if (row < item.rows()) {
          *reinterpret_cast<uint4*>(to + i * 8) =
              make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
        }
      }
    }
  }

  // Of four neighbouring lanes: item k of lane l becomes item l of lane k.
  __device__ void TransposeInQuad(uint32_t (&items)[4]) const {
#pragma unroll
    for (int bit = 1; bit < 4; bit *= 2) {
      const bool is_high = (lane() & bit) != 0;
#pragma unroll
      for (int low = 0; low < 4; ++low) {
        if ((low & bit) == 0) {
          uint32_t& a = items[low];
          uint32_t& b = items[low | bit];
          const uint32_t got = __shfl_xor_sync(kAll, is_high ? a : b, bit);
          a = is_high ? got : a;
          b = is_high ? b : got;
        }
      }
    }
  }

  const Arguments& a_;
  SharedMemory<S> shared_;
  RingPlace keys_;
  RingPlace values_;
  uint32_t queries_parity_ = 0;
  float scale_;
};

template <class S>
__global__ void __launch_bounds__(kThreads, 1)
    PrefillAttentionWgmmaKernel(const __grid_constant__ Arguments a) {
  WaitForPredecessor();
  if (threadIdx.x == 0) {
    SharedMemory<S>().InitBarriers();
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroupThreads) {
    LowerRegisters<kProducerRegisters>();
    Producer<S> producer(a);
    ForEachItem(a, [&](const Item& item) { producer.Take(item); });
    producer.Finish();
  } else {
    RaiseRegisters<kConsumerRegisters>();
    Consumer<S> consumer(a);
    consumer.Run();
  }
}

// Bounds of the tiles of tokens: no group has more than the one with the most heads.
int64_t TilesOf(const CohortCudaBatch& batch, const HeadGroups& heads, int groups) {
  int largest = 1;
  for (int i = 0; i < groups; ++i) {
    largest = std::max<int>(largest, heads.item[i].count);
  }
  const int64_t tile = kRows / largest;
  const int64_t sequences = batch.sequences - batch.leading_decodes;
  const int64_t tokens = batch.tokens - batch.leading_decodes;
  const int64_t of_longest = (batch.longest_chunk + tile - 1) / tile;
  return std::min(tokens / tile + sequences, sequences * of_longest);
}

template <int kHeadDim>
void LaunchKernel(CohortCudaDevice* device, const Arguments& arguments) {
  using S = Shape<kHeadDim>;
  const int blocks = std::min<int>(arguments.items, device->multiprocessors);
  Launch(device, "PrefillAttentionWgmma",
         {.grid = static_cast<unsigned>(blocks),
          .block = kThreads,
          .shared_bytes = S::kBytes,
          .programmatic = true},
         PrefillAttentionWgmmaKernel<S>, arguments);
}

}  // namespace
}  // namespace wgmma_attention

std::size_t PrefillRangeBytes(int multiprocessors) {
  constexpr std::size_t kMaxHeadDim = 128;
  return static_cast<std::size_t>(multiprocessors) * wgmma_attention::kRows * (kMaxHeadDim + 2) *
         sizeof(float);
}

void PrefillAttentionWgmma(CohortCudaDevice* device, const AttentionCall& call,
                           const TensorCoreAttention& attention, int groups) {
  namespace wgmma = wgmma_attention;
  const int64_t pairs = wgmma::TilesOf(*call.batch, attention.groups, groups) * groups;
  if (pairs > INT32_MAX / 2) {
    Stick(device, MakeError(kCohortCudaInvalidArgument,
                            "attention: a step of %lld rows with %d groups of heads gives more "
                            "than 2^30 tiles; make the step smaller",
                            static_cast<long long>(call.batch->tokens), groups));
    return;
  }
  // From numbers that the host knows. The items with ranges are no more than the multiprocessors.
  const auto left = static_cast<int32_t>(pairs % device->multiprocessors);
  const auto whole = static_cast<int32_t>(pairs) - left;
  const int32_t splits = left > 0 ? device->multiprocessors / left : 1;
  const AttentionWorkspace workspace = AttentionWorkspaceOf(device);
  const wgmma::Arguments arguments = {
      attention,          groups,          whole, splits, whole + left * splits,
      workspace.counters, workspace.ranges};
  if (call.kv->keys.dims[3] == 128) {
    wgmma::LaunchKernel<128>(device, arguments);
  } else {
    wgmma::LaunchKernel<64>(device, arguments);
  }
}

}  // namespace cohort::cuda
