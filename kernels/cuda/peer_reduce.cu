// All-reduce over peer memory, with the residual addition and the norm behind it.
//
// A block has the rows blockIdx.x, + gridDim.x, ... of the message on every rank, and its threads
// stride over a row in packs of 16 bytes. It only ever waits for the block of the same number of
// its peers: with at most kMaxPeerBlocks blocks all run at once, and none waits for a later one.
//
// One shot: a block stores its rows into the slot of every peer, raises its flag there
// (st.release.sys), waits for theirs (ld.acquire.sys) and adds up in rank order what has come: the
// same bits on every rank. Two shots, for messages where sending everything everywhere costs more
// than a second exchange: row r goes to rank r % world alone, which sends the sum to all. Slots and
// flags count in an epoch that lies in device memory, so a recorded launch goes on where the last
// one stopped. Stores to peers are 16 bytes of their own; no atomic crosses the link.
//
// Every wait looks at the host's abort word and at the clock; the one who gives up says what it
// waited for (PeerReport), and this kernel and all later ones return with their output unspecified.
// Shared memory: the group, the block's sum and one word. Sources of the idea: TensorRT-LLM's and
// FlashInfer's fused one-shot all-reduce, vLLM's flags.
#include <algorithm>
#include <cstring>

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/peer_reduce.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/rows.cuh"

namespace cohort::cuda {
namespace {

constexpr int kMinThreads = 128;
constexpr int kMaxThreads = 512;
constexpr uint32_t kPollsBetweenLooks = 32;

template <class X>
constexpr int kVecOf = 16 / sizeof(X);

__device__ PeerControl* ControlOf(const PeerGroup& group, int rank) {
  return reinterpret_cast<PeerControl*>(group.buffer[rank]);
}

template <class X, int kVec>
__device__ Pack<X, kVec> LoadPeerPack(const X* source) {
  const uint4 bits = LoadRelaxedSystem16(source);
  Pack<X, kVec> pack;
  memcpy(&pack, &bits, sizeof(bits));
  return pack;
}
template <class X, int kVec>
__device__ void StorePeerPack(X* destination, const Pack<X, kVec>& pack) {
  uint4 bits;
  memcpy(&bits, &pack, sizeof(bits));
  StoreRelaxedSystem16(destination, bits);
}

// The reduction that a block is in.
template <class X>
struct Round {
  const PeerGroup& group;
  uint32_t epoch;
  Rows<const X> x;
  int64_t rows;
  int64_t columns;

  __device__ X* Slot(int rank) const {
    return reinterpret_cast<X*>(group.buffer[rank] + sizeof(PeerControl) +
                                int64_t{epoch % kPeerSlots} * kPeerSlotBytes);
  }
  // One shot: row `row` as `source` has sent it to `rank`.
  __device__ X* Sent(int rank, int source, int64_t row) const {
    return Slot(rank) + (source * rows + row) * columns;
  }
  // Two shots: likewise, for the rows of rank row % world; and the sum of any row.
  __device__ X* SentPart(int rank, int source, int64_t row) const {
    const int64_t part = (rows + group.world - 1) / group.world;
    return Slot(rank) + (source * part + row / group.world) * columns;
  }
  __device__ X* Sum(int rank, int64_t row) const {
    const int64_t part = (rows + group.world - 1) / group.world;
    return Slot(rank) + (group.world * part + row) * columns;
  }
};

__device__ void Report(const PeerGroup& group, int peer, int phase, uint32_t epoch) {
  if (atomicExch(&ControlOf(group, group.rank)->failed, 1u) != 0) {
    return;
  }
  PeerReport* report = group.report;
  report->peer = static_cast<uint32_t>(peer);
  report->phase = static_cast<uint32_t>(phase);
  report->epoch = epoch;
  StoreReleaseSystem(&report->failed, 1);
}

// Whether the flag has come.
__device__ bool AwaitFlag(const PeerGroup& group, const uint32_t* flag, uint32_t epoch) {
  uint64_t begin = 0;
  for (uint32_t polls = 1;; ++polls) {
    if (static_cast<int32_t>(LoadAcquireSystem(flag) - epoch) >= 0) {
      return true;
    }
    if (polls % kPollsBetweenLooks != 0) {
      continue;
    }
    const uint64_t now = GlobalTimer();
    begin = begin == 0 ? now : begin;
    if (LoadAcquireSystem(&group.report->abort) != 0 || now - begin > group.bound_nanoseconds) {
      return false;
    }
  }
}

// Tells all peers that what this block stored there in `phase` is complete, and waits for the same
// from them. False, in all threads, when that was given up.
__device__ bool ExchangeFlags(const PeerGroup& group, int phase, uint32_t epoch) {
  __shared__ uint32_t has_failed;
  if (threadIdx.x == 0) {
    has_failed = 0;
  }
  __syncthreads();  // the stores of all threads come before the flags
  const int peer = static_cast<int>(threadIdx.x);
  if (peer < group.world && peer != group.rank) {
    StoreReleaseSystem(&ControlOf(group, peer)->flag[phase][group.rank][blockIdx.x], epoch);
    if (!AwaitFlag(group, &ControlOf(group, group.rank)->flag[phase][peer][blockIdx.x], epoch)) {
      Report(group, peer, phase, epoch);
      has_failed = 1;
    }
  }
  __syncthreads();
  const bool is_complete = has_failed == 0;
  __syncthreads();  // before the next call clears the word
  return is_complete;
}

// The sum of the packs at `column` of the rows that part_of(source) points at, in rank order.
template <class X, int kVec, class PartOf>
__device__ Pack<X, kVec> SumPacks(const PeerGroup& group, const X* own, int64_t column,
                                  PartOf part_of) {
  Pack<X, kVec> parts[kMaxPeers];
#pragma unroll
  for (int source = 0; source < kMaxPeers; ++source) {
    if (source < group.world) {
      parts[source] = source == group.rank ? LoadPack<kVec>(own + column)
                                           : LoadPeerPack<X, kVec>(part_of(source) + column);
    }
  }
  Pack<X, kVec> result;
#pragma unroll
  for (int i = 0; i < kVec; ++i) {
    float sum = ToFloat(parts[0].item[i]);
#pragma unroll
    for (int source = 1; source < kMaxPeers; ++source) {
      if (source < group.world) {
        sum += ToFloat(parts[source].item[i]);
      }
    }
    result.item[i] = FromFloat<X>(sum);
  }
  return result;
}

// What becomes of a row of sums: it is stored where the message was.
template <class X>
struct Store {
  Rows<X> out;

  template <class SumAt>
  __device__ void operator()(int64_t row, int64_t columns, SumAt sum_at) const {
    constexpr int kVec = kVecOf<X>;
    for (int64_t column = threadIdx.x * kVec; column < columns; column += blockDim.x * kVec) {
      StorePack<kVec>(out[row] + column, sum_at(column));
    }
  }
};

// Or it is added to the residual, and that normalised; as AddRmsNorm does it. A thread meets the
// same elements in both passes.
template <class X, class T>
struct AddRmsNormOf {
  Rows<T> residual;
  const T* gamma;
  float eps;
  Rows<T> out;

  template <class SumAt>
  __device__ void operator()(int64_t row, int64_t columns, SumAt sum_at) const {
    constexpr int kVec = kVecOf<X>;
    float squares = 0;
    for (int64_t column = threadIdx.x * kVec; column < columns; column += blockDim.x * kVec) {
      auto values = LoadPack<kVec>(residual[row] + column);
      const Pack<X, kVec> added = sum_at(column);
#pragma unroll
      for (int i = 0; i < kVec; ++i) {
        values.item[i] = FromFloat<T>(ToFloat(values.item[i]) + Rounded<T>(ToFloat(added.item[i])));
        const float value = ToFloat(values.item[i]);
        squares += value * value;
      }
      StorePack<kVec>(residual[row] + column, values);
    }
    const float scale = 1.0f / sqrtf(BlockSum(squares) / static_cast<float>(columns) + eps);
    for (int64_t column = threadIdx.x * kVec; column < columns; column += blockDim.x * kVec) {
      const auto values = LoadPack<kVec>(residual[row] + column);
      const auto weights = LoadPack<kVec>(gamma + column);
      Pack<T, kVec> result;
#pragma unroll
      for (int i = 0; i < kVec; ++i) {
        result.item[i] =
            FromFloat<T>(Rounded<T>(ToFloat(values.item[i]) * scale) * ToFloat(weights.item[i]));
      }
      StorePack<kVec>(out[row] + column, result);
    }
  }
};

template <class X, class Finish>
__device__ void ReduceInOneShot(const Round<X>& round, const Finish& finish) {
  constexpr int kVec = kVecOf<X>;
  const PeerGroup& group = round.group;
  for (int64_t row = blockIdx.x; row < round.rows; row += gridDim.x) {
    for (int64_t column = threadIdx.x * kVec; column < round.columns; column += blockDim.x * kVec) {
      const auto pack = LoadPack<kVec>(round.x[row] + column);
      for (int peer = 0; peer < group.world; ++peer) {
        if (peer != group.rank) {
          StorePeerPack<X, kVec>(round.Sent(peer, group.rank, row) + column, pack);
        }
      }
    }
  }
  LaunchSuccessor();
  if (!ExchangeFlags(group, 0, round.epoch)) {
    return;
  }
  for (int64_t row = blockIdx.x; row < round.rows; row += gridDim.x) {
    finish(row, round.columns, [&](int64_t column) {
      return SumPacks<X, kVec>(group, round.x[row], column,
                               [&](int source) { return round.Sent(group.rank, source, row); });
    });
  }
}

template <class X, class Finish>
__device__ void ReduceInTwoShots(const Round<X>& round, const Finish& finish) {
  constexpr int kVec = kVecOf<X>;
  const PeerGroup& group = round.group;
  for (int64_t row = blockIdx.x; row < round.rows; row += gridDim.x) {
    const int owner = static_cast<int>(row % group.world);
    if (owner == group.rank) {
      continue;
    }
    X* sent = round.SentPart(owner, group.rank, row);
    for (int64_t column = threadIdx.x * kVec; column < round.columns; column += blockDim.x * kVec) {
      StorePeerPack<X, kVec>(sent + column, LoadPack<kVec>(round.x[row] + column));
    }
  }
  LaunchSuccessor();
  if (!ExchangeFlags(group, 0, round.epoch)) {
    return;
  }
  for (int64_t row = blockIdx.x; row < round.rows; row += gridDim.x) {
    if (row % group.world != group.rank) {
      continue;
    }
    for (int64_t column = threadIdx.x * kVec; column < round.columns; column += blockDim.x * kVec) {
      const auto sum = SumPacks<X, kVec>(group, round.x[row], column, [&](int source) {
        return round.SentPart(group.rank, source, row);
      });
      for (int peer = 0; peer < group.world; ++peer) {
        StorePeerPack<X, kVec>(round.Sum(peer, row) + column, sum);
      }
    }
  }
  if (!ExchangeFlags(group, 1, round.epoch)) {
    return;
  }
  for (int64_t row = blockIdx.x; row < round.rows; row += gridDim.x) {
    finish(row, round.columns, [&](int64_t column) {
      return LoadPeerPack<X, kVec>(round.Sum(group.rank, row) + column);
    });
  }
}

template <class X, class Finish, bool kIsTwoShot>
__global__ void __launch_bounds__(kMaxThreads, 1)
    PeerReduceKernel(PeerGroup parameter, Rows<const X> x, int64_t rows, int64_t columns,
                     Finish finish) {
  // Indexed by the peer, which parameters are not without a copy in local memory.
  __shared__ PeerGroup group;
  if (threadIdx.x == 0) {
    group = parameter;
  }
  WaitForPredecessor();
  __syncthreads();
  PeerControl* control = ControlOf(group, group.rank);
  // Does not change before all blocks have come to the end.
  const uint32_t epoch = LoadAcquire(&control->epoch) + 1;
  if (__syncthreads_or(LoadAcquire(&control->failed) != 0)) {
    return;
  }
  const Round<X> round = {group, epoch, x, rows, columns};
  if constexpr (kIsTwoShot) {
    ReduceInTwoShots(round, finish);
  } else {
    ReduceInOneShot(round, finish);
  }
  __syncthreads();
  if (threadIdx.x == 0 && FetchAddAcquireRelease(&control->finished_blocks, 1) == gridDim.x - 1) {
    control->finished_blocks = 0;
    StoreRelease(&control->epoch, epoch);
  }
}

template <class X, class Finish>
void LaunchReduce(CohortCudaDevice* device, const PeerGroup& group, bool is_two_shot,
                  int32_t blocks, const CohortCudaTensor& x, const Finish& finish) {
  const int64_t rows = x.rank > 1 ? x.dims[0] : 1;
  const int64_t columns = x.rank > 1 ? x.dims[1] : x.dims[0];
  const int64_t packs = (columns / kVecOf<X> + 31) / 32 * 32;
  LaunchShape shape;
  shape.grid = static_cast<unsigned>(std::min<int64_t>(rows, blocks));
  shape.block = static_cast<unsigned>(std::clamp<int64_t>(packs, kMinThreads, kMaxThreads));
  shape.programmatic = true;
  const Rows<const X> message = {static_cast<const X*>(x.data), columns};
  if (is_two_shot) {
    Launch(device, "PeerReduce", shape, PeerReduceKernel<X, Finish, true>, group, message, rows,
           columns, finish);
  } else {
    Launch(device, "PeerReduce", shape, PeerReduceKernel<X, Finish, false>, group, message, rows,
           columns, finish);
  }
}

int64_t ElementBytes(const CohortCudaTensor& tensor) {
  return tensor.dtype == kCohortCudaBF16 ? 2 : 4;
}

}  // namespace

bool FitsPeers(const CohortCudaTensor& x) {
  const int64_t rows = x.rank > 1 ? x.dims[0] : 1;
  const int64_t columns = x.rank > 1 ? x.dims[1] : x.dims[0];
  const int64_t row_bytes = columns * ElementBytes(x);
  return x.rank <= 2 && rows > 0 && columns > 0 && row_bytes % 16 == 0 &&
         row_bytes <= kMaxPeerRowBytes && rows * row_bytes <= kMaxPeerBytes &&
         reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
}

void PeerAllReduce(CohortCudaDevice* device, const PeerGroup& group, bool is_two_shot,
                   int32_t blocks, const CohortCudaTensor& x) {
  WithActivation(x.dtype, [&](auto tag) {
    using X = typename decltype(tag)::type;
    const int64_t columns = x.rank > 1 ? x.dims[1] : x.dims[0];
    LaunchReduce<X>(device, group, is_two_shot, blocks, x,
                    Store<X>{{static_cast<X*>(x.data), columns}});
  });
}

void PeerAllReduceAddRmsNorm(CohortCudaDevice* device, const PeerGroup& group, bool is_two_shot,
                             int32_t blocks, const CohortCudaTensor& x,
                             const CohortCudaTensor& residual, const CohortCudaTensor& gamma,
                             float eps, const CohortCudaTensor& out) {
  const auto launch = [&]<class X, class T>() {
    LaunchReduce<X>(device, group, is_two_shot, blocks, x,
                    AddRmsNormOf<X, T>{RowsOf<T>(residual), static_cast<const T*>(gamma.data), eps,
                                       RowsOf<T>(out)});
  };
  if (residual.dtype == kCohortCudaF32) {
    launch.template operator()<float, float>();
  } else if (x.dtype == kCohortCudaF32) {
    launch.template operator()<float, BFloat16>();
  } else {
    launch.template operator()<BFloat16, BFloat16>();
  }
}

}  // namespace cohort::cuda
