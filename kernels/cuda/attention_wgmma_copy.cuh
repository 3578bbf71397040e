// The producer of attention_wgmma.cu: one warpgroup that finds the block's items and copies
// queries, keys and values to shared memory, in the order in which they are used, as far ahead as
// there are free slots.
//
// A thread copies one column of 16 bytes of every 8th row (head size 64: 16th), by cp.async. What
// it has copied is announced one tile later, or before it has to wait for a free slot: the products
// read through the asynchronous proxy, which a thread tells of its writes when they have come.
#ifndef COHORT_KERNELS_CUDA_ATTENTION_WGMMA_COPY_CUH_H_
#define COHORT_KERNELS_CUDA_ATTENTION_WGMMA_COPY_CUH_H_

#include "kernels/cuda/attention_wgmma.cuh"

namespace cohort::cuda::wgmma_attention {

template <class S>
class Producer {
 public:
  __device__ explicit Producer(const Arguments& a) : a_(a) {}

  __device__ void Take(const Item& item) {
    const int32_t end = item.first_tile + item.tiles;
    int32_t of_values = BlockOfLane(item, item.first_tile);
    int32_t of_keys = of_values;
    CopyQueries(item);
    for (int32_t tile = item.first_tile; tile < end; ++tile) {
      // Needed for the next tile: it has come when that is copied.
      const int32_t next = tile + 1 < end ? BlockOfLane(item, tile + 1) : 0;
      CopyKeys(item, tile, of_keys);
      if (tile > item.first_tile) {
        CopyValues(item, tile - 1, of_values);
      }
      of_values = of_keys;
      of_keys = next;
    }
    CopyValues(item, end - 1, of_values);
    AnnounceAll();  // before the next item is looked for
  }
  // Tells the consumers that there is no more work.
  __device__ void Finish() {
    Acquire(shared_.QueriesEmpty(), queries_parity_ ^ 1);
    if (threadIdx.x == 0) {
      shared_.CurrentWork()->tiles = 0;
    }
    Publish(shared_.QueriesFull());
    AnnounceAll();
  }

 private:
  static constexpr int kRowsAtOnce = kWarpgroupThreads / S::kChunks;
  static constexpr int kCopies = 128 / kRowsAtOnce;

  __device__ int lane() const { return static_cast<int>(threadIdx.x) % 32; }
  __device__ int chunk() const { return static_cast<int>(threadIdx.x) % S::kChunks; }
  __device__ int first_row() const { return static_cast<int>(threadIdx.x) / S::kChunks; }
  // Of the thread's chunk of its first row in a tile; the next row's lies `kRowsAtOnce` * 128
  // further, for as many rows leave the swizzle as it is.
  __device__ int Offset() const {
    static_assert(kRowsAtOnce % 8 == 0);
    return chunk() / 8 * S::kHalfBytes + SwizzledOffset128(first_row(), chunk() % 8 * 16);
  }

  // Slab `lane` of a tile: its first position, and the block of KV memory that has it. Behind the
  // last position the table ends.
  __device__ int32_t Slab(const Item& item, int32_t tile) const {
    return min(tile * kKeys + lane() % kSlabsOfTile * kSlabKeys,
               item.last_position / kSlabKeys * kSlabKeys);
  }
  __device__ int32_t BlockOfLane(const Item& item, int32_t tile) const {
    const int32_t* const blocks = a_.attention.batch.block_table[item.tokens.sequence];
    return blocks[Slab(item, tile) / a_.attention.kv.block_size];
  }

  __device__ void CopyQueries(const Item& item) {
    Acquire(shared_.QueriesEmpty(), queries_parity_ ^ 1);
    const int own_row = static_cast<int>(threadIdx.x);
    static_assert(kRows == kWarpgroupThreads);
    if (own_row == 0) {
      *shared_.CurrentWork() = item;
    }
    shared_.Visible()[own_row] = a_.attention.batch.Position(item.Token(own_row)) + 1;
    unsigned char* const to = shared_.Queries() + Offset();
#pragma unroll 1
    for (int i = 0; i < kCopies; ++i) {
      const int row = first_row() + i * kRowsAtOnce;
      const BFloat16* const from =
          a_.attention.queries[item.Token(row)] + item.Head(row) * S::kHeadDim + chunk() * 8;
      CopyAsync16(to + i * kRowsAtOnce * 128, from, row < item.rows());
    }
    Publish(shared_.QueriesFull());
    queries_parity_ ^= 1;
  }
  __device__ void CopyKeys(const Item& item, int32_t tile, int32_t block) {
    Acquire(shared_.KeysEmpty(keys_.slot), keys_.parity ^ 1);
    const auto& kv = a_.attention.kv;
    CopyTile(item, tile, kv.keys, block * kv.key_block_stride, shared_.Keys(keys_.slot));
    Publish(shared_.KeysFull(keys_.slot));
    keys_.Advance();
  }
  __device__ void CopyValues(const Item& item, int32_t tile, int32_t block) {
    Acquire(shared_.ValuesEmpty(values_.slot), values_.parity ^ 1);
    const auto& kv = a_.attention.kv;
    CopyTile(item, tile, kv.values, block * kv.value_block_stride, shared_.Values(values_.slot));
    Publish(shared_.ValuesFull(values_.slot));
    values_.Advance();
  }

  // Each slab of the tile lies inside one block; `of_block` is where the block of lane's slab is.
  // Slots behind the last position are not read: they count as zeros.
  __device__ void CopyTile(const Item& item, int32_t tile, const BFloat16* memory, int64_t of_block,
                           unsigned char* to) const {
    const int64_t of_slab = of_block + a_.attention.kv.Inside(item.group.kv_head, Slab(item, tile));
    to += Offset();
    const BFloat16* const from = memory + first_row() % kSlabKeys * S::kHeadDim + chunk() * 8;
    const int32_t rows = item.last_position + 1 - tile * kKeys;
#pragma unroll 4
    for (int i = 0; i < kCopies; ++i) {
      const int row = first_row() + i * kRowsAtOnce;
      const int64_t slab = __shfl_sync(0xffffffffu, of_slab, i * kRowsAtOnce / kSlabKeys);
      const int inside = i * kRowsAtOnce % kSlabKeys * S::kHeadDim;
      CopyAsync16(to + i * kRowsAtOnce * 128, from + slab + inside, row < rows);
    }
  }

  // Until the slot is free.
  __device__ void Acquire(uint64_t* empty, uint32_t parity) {
    if (!__all_sync(0xffffffffu, BarrierTest(empty, parity))) {
      AnnounceAll();
      BarrierWait(empty, parity);
    }
  }
  // The copies since the last call fill what `full` guards.
  __device__ void Publish(uint64_t* full) {
    CopyAsyncCommit();
    if (pending_ != nullptr) {
      CopyAsyncWait<1>();
      Announce();
    }
    pending_ = full;
  }
  __device__ void AnnounceAll() {
    if (pending_ != nullptr) {
      CopyAsyncWait<0>();
      Announce();
    }
  }
  __device__ void Announce() {
    FenceProxyAsync();
    __syncwarp();
    if (lane() == 0) {
      BarrierArrive(pending_);
    }
    pending_ = nullptr;
  }

  const Arguments& a_;
  SharedMemory<S> shared_;
  RingPlace keys_;
  RingPlace values_;
  uint32_t queries_parity_ = 0;
  uint64_t* pending_ = nullptr;  // guards the copies under way that are not announced
};

}  // namespace cohort::cuda::wgmma_attention

#endif  // COHORT_KERNELS_CUDA_ATTENTION_WGMMA_COPY_CUH_H_
