// Collectives over NCCL.
//
// NCCL moves bytes; the sums are ours (reduce.cu), because its own add in an order that depends on
// the topology and, in bf16, round at every hop. Sizes never depend on data of the device, so every
// call can be recorded.
#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/cuda/communicator.h"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/reduce.h"

namespace cohort::cuda {
namespace {

// Up to this size, all ranks' data together, one exchange costs less than two smaller ones.
constexpr int64_t kOneShotBytes = int64_t{256} << 10;

int64_t ElementBytes(int32_t dtype) { return dtype == kCohortCudaBF16 ? 2 : 4; }

// The first error of `call` or of the group around it.
template <class Call>
ncclResult_t InGroup(Call call) {
  if (const ncclResult_t started = ncclGroupStart(); started != ncclSuccess) {
    return started;
  }
  const ncclResult_t called = call();
  const ncclResult_t ended = ncclGroupEnd();
  return called != ncclSuccess && called != ncclInProgress ? called : ended;
}

// Device memory on its way.
struct Piece {
  void* data;
  int64_t bytes;
};

// Sends send_of(peer) to every other rank and receives into receive_of(peer) from it. In a group.
template <class SendOf, class ReceiveOf>
ncclResult_t SendAndReceive(const CohortCudaCommunicator* c, ncclComm_t comm, SendOf send_of,
                            ReceiveOf receive_of) {
  for (int32_t peer = 0; peer < c->world; ++peer) {
    const Piece sent = send_of(peer);
    const Piece received = receive_of(peer);
    ncclResult_t result = ncclSuccess;
    if (peer != c->rank && sent.bytes > 0) {
      result = ncclSend(sent.data, static_cast<size_t>(sent.bytes), ncclInt8, peer, comm,
                        c->device->stream);
    }
    if (peer != c->rank && received.bytes > 0 && result == ncclSuccess) {
      result = ncclRecv(received.data, static_cast<size_t>(received.bytes), ncclInt8, peer, comm,
                        c->device->stream);
    }
    if (result != ncclSuccess && result != ncclInProgress) {
      return result;
    }
  }
  return ncclSuccess;
}

template <class SendOf, class ReceiveOf>
ncclResult_t Exchange(const CohortCudaCommunicator* c, ncclComm_t comm, SendOf send_of,
                      ReceiveOf receive_of) {
  return InGroup([&] { return SendAndReceive(c, comm, send_of, receive_of); });
}

// Every rank gathers everything and sums. `count` elements at `data`.
CohortCudaError ReduceInOneShot(CohortCudaCommunicator* c, int32_t dtype, char* data,
                                int64_t count) {
  const int64_t bytes = count * ElementBytes(dtype);
  CohortCudaError error = Enqueue(c, "AllReduceSum", [&](ncclComm_t comm) {
    return ncclAllGather(data, c->staging, static_cast<size_t>(bytes), ncclInt8, comm,
                         c->device->stream);
  });
  if (error.code == kCohortCudaOk) {
    SumInRankOrder(c->device, dtype, c->staging, c->world, c->rank, count, data);
  }
  return error;
}

// Rank r sums the r-th of `world` equal parts of `part` elements, then all gather the sums.
CohortCudaError ReduceInTwoShots(CohortCudaCommunicator* c, int32_t dtype, char* data,
                                 int64_t part) {
  const int64_t bytes = part * ElementBytes(dtype);
  char* own = data + c->rank * bytes;
  CohortCudaError error = Enqueue(c, "AllReduceSum", [&](ncclComm_t comm) {
    return Exchange(
        c, comm,
        [&](int32_t peer) {
          return Piece{data + peer * bytes, bytes};
        },
        [&](int32_t peer) {
          return Piece{c->staging + peer * bytes, bytes};
        });
  });
  if (error.code != kCohortCudaOk) {
    return error;
  }
  SumInRankOrder(c->device, dtype, c->staging, c->world, c->rank, part, own);
  return Enqueue(c, "AllReduceSum", [&](ncclComm_t comm) {
    return ncclAllGather(own, data, static_cast<size_t>(bytes), ncclInt8, comm, c->device->stream);
  });
}

// Whether `event` has happened; an error of the device goes to `result`.
bool HasHappened(cudaEvent_t event, cudaError_t* result) {
  const cudaError_t state = cudaEventQuery(event);
  if (state == cudaErrorNotReady) {
    cudaGetLastError();  // or the next launch would report it
    *result = cudaSuccess;
    return false;
  }
  *result = state;
  return state == cudaSuccess;
}

int64_t BytesOf(const CohortCudaTensor& tensor) {
  int64_t count = 1;
  for (int32_t axis = 0; axis < tensor.rank; ++axis) {
    count *= tensor.dims[axis];
  }
  return count * ElementBytes(tensor.dtype);
}

bool IsForPeers(const CohortCudaCommunicator* c, const CohortCudaTensor& message) {
  return c->peers.can_reduce && FitsPeers(message) && BytesOf(message) <= c->peers.sizes.most();
}

bool IsTwoShot(const CohortCudaCommunicator* c, const CohortCudaTensor& message) {
  return BytesOf(message) > c->peers.sizes.one_shot;
}

// Whether every row begins where a pack of so many elements may.
bool HasPacks(const CohortCudaTensor& tensor, int pack) {
  return tensor.row_stride % pack == 0 && reinterpret_cast<uintptr_t>(tensor.data) % 16 == 0;
}

// Counts a collective whose work is on the stream.
CohortCudaError Count(CohortCudaCommunicator* c, const CohortCudaError& error) {
  if (error.code == kCohortCudaOk) {
    c->device->progress.Submit();
  }
  return error;
}

// Copies `rows` rows of `width` bytes between pitches.
cudaError_t CopyRows(const CohortCudaCommunicator* c, const void* source, int64_t source_pitch,
                     void* destination, int64_t destination_pitch, int64_t width, int64_t rows) {
  return width == 0 || rows == 0
             ? cudaSuccess
             : cudaMemcpy2DAsync(destination, static_cast<size_t>(destination_pitch), source,
                                 static_cast<size_t>(source_pitch), static_cast<size_t>(width),
                                 static_cast<size_t>(rows), cudaMemcpyDeviceToDevice,
                                 c->device->stream);
}

// One chunk of rows of an all-gather. In the staging area rank i's part lies dense, [rows, part],
// at parts[i].begin * rows elements.
struct Gather {
  CohortCudaCommunicator* c;
  const CohortCudaRange* parts;
  int64_t element;  // bytes
  int64_t rows;
  const char* shard;
  int64_t shard_pitch;  // bytes
  char* out;
  int64_t out_pitch;  // bytes

  int64_t Width(int32_t i) const { return (parts[i].end - parts[i].begin) * element; }
  Piece Staged(int32_t i) const {
    return {c->staging + parts[i].begin * element * rows, Width(i) * rows};
  }
  CohortCudaError Run() const;
};

CohortCudaError Gather::Run() const {
  const Piece own = Staged(c->rank);
  CohortCudaError error =
      FromCuda(c, CopyRows(c, shard, shard_pitch, own.data, Width(c->rank), Width(c->rank), rows),
               "AllGather");
  if (error.code != kCohortCudaOk) {
    return error;
  }
  error = Enqueue(c, "AllGather", [&](ncclComm_t comm) {
    return Exchange(
        c, comm, [&](int32_t) { return own; }, [&](int32_t peer) { return Staged(peer); });
  });
  for (int32_t i = 0; i < c->world && error.code == kCohortCudaOk; ++i) {
    error = FromCuda(c,
                     CopyRows(c, Staged(i).data, Width(i), out + parts[i].begin * element,
                              out_pitch, Width(i), rows),
                     "AllGather");
  }
  return error;
}

// In a world of one.
CohortCudaError GatherAlone(const CohortCudaCommunicator* c, const CohortCudaTensor* shard,
                            const CohortCudaTensor* out) {
  if (shard->data == out->data && shard->row_stride == out->row_stride) {
    return Ok();
  }
  const int64_t element = ElementBytes(out->dtype);
  return FromCuda(c,
                  CopyRows(c, shard->data, shard->row_stride * element, out->data,
                           out->row_stride * element, out->dims[1] * element, out->dims[0]),
                  "AllGather");
}

// The part of `view` that belongs to `peer`.
Piece PartOf(const CohortCudaCommunicator* c, const CohortCudaTensor& tensor, int32_t peer) {
  const int64_t columns = tensor.rank > 1 ? tensor.dims[1] : 1;
  const int64_t bytes = tensor.dims[0] / c->world * columns * ElementBytes(tensor.dtype);
  return {static_cast<char*>(tensor.data) + peer * bytes, bytes};
}

cudaError_t CopyOwnPart(const CohortCudaCommunicator* c, const CohortCudaTensor& from,
                        const CohortCudaTensor& to) {
  const Piece source = PartOf(c, from, c->rank);
  const Piece destination = PartOf(c, to, c->rank);
  return source.bytes == 0
             ? cudaSuccess
             : cudaMemcpyAsync(destination.data, source.data, static_cast<size_t>(source.bytes),
                               cudaMemcpyDeviceToDevice, c->device->stream);
}

}  // namespace

CohortCudaError ReduceOverNccl(CohortCudaCommunicator* c, const CohortCudaTensor& inout) {
  const int64_t element = ElementBytes(inout.dtype);
  int64_t left = BytesOf(inout) / element;
  char* data = static_cast<char*>(inout.data);
  CohortCudaError error = Ok();
  while (left > 0 && error.code == kCohortCudaOk) {
    int64_t count = left;
    if (left * element <= kOneShotBytes / c->world || left < c->world) {
      error = ReduceInOneShot(c, inout.dtype, data, count);
    } else {
      const int64_t part = std::min(left, kStagingBytes / element) / c->world;
      count = part * c->world;
      error = ReduceInTwoShots(c, inout.dtype, data, part);
    }
    data += count * element;
    left -= count;
  }
  return error;
}

CohortCudaError AllReduceSum(CohortCudaCommunicator* c, const CohortCudaTensor* inout) noexcept {
  Activate(c->device);
  if (c->world == 1) {
    return Ok();
  }
  if (IsForPeers(c, *inout)) {
    PeerAllReduce(c->device, c->peers.group, IsTwoShot(c, *inout), c->peers.blocks, *inout);
    return Count(c, Ok());
  }
  return Count(c, ReduceOverNccl(c, *inout));
}

CohortCudaError AllReduceAddRmsNorm(CohortCudaCommunicator* c, const CohortCudaTensor* x,
                                    const CohortCudaTensor* residual, const CohortCudaTensor* gamma,
                                    float eps, const CohortCudaTensor* out) noexcept {
  Activate(c->device);
  const int pack = 16 / static_cast<int>(ElementBytes(x->dtype));
  if (c->world > 1 && IsForPeers(c, *x) && HasPacks(*residual, pack) && HasPacks(*gamma, pack) &&
      HasPacks(*out, pack)) {
    PeerAllReduceAddRmsNorm(c->device, c->peers.group, IsTwoShot(c, *x), c->peers.blocks, *x,
                            *residual, *gamma, eps, *out);
    return Count(c, Ok());
  }
  const CohortCudaError error = AllReduceSum(c, x);
  if (error.code == kCohortCudaOk) {
    AddRmsNorm(c->device, residual, x, gamma, eps, out);
  }
  return error;
}

CohortCudaError AllGather(CohortCudaCommunicator* c, const CohortCudaTensor* shard,
                          const CohortCudaRange* parts, const CohortCudaTensor* out) noexcept {
  Activate(c->device);
  if (c->world == 1) {
    return GatherAlone(c, shard, out);
  }
  const int64_t element = ElementBytes(out->dtype);
  const int64_t row_bytes = out->dims[1] * element;
  if (row_bytes > kStagingBytes) {
    return MakeError(kCohortCudaInvalidArgument,
                     "rank %d of %d: AllGather: a row of %lld bytes, at most %lld are supported",
                     c->rank, c->world, static_cast<long long>(row_bytes),
                     static_cast<long long>(kStagingBytes));
  }
  CohortCudaError error = Ok();
  const int64_t rows_at_once = row_bytes == 0 ? 0 : kStagingBytes / row_bytes;
  for (int64_t begin = 0; rows_at_once > 0 && begin < out->dims[0] && error.code == kCohortCudaOk;
       begin += rows_at_once) {
    const int64_t shard_pitch = shard->row_stride * element;
    const int64_t out_pitch = out->row_stride * element;
    error = Gather{c,
                   parts,
                   element,
                   std::min(rows_at_once, out->dims[0] - begin),
                   static_cast<const char*>(shard->data) + begin * shard_pitch,
                   shard_pitch,
                   static_cast<char*>(out->data) + begin * out_pitch,
                   out_pitch}
                .Run();
  }
  return Count(c, error);
}

CohortCudaError AllToAll(CohortCudaCommunicator* c, const CohortCudaExchange* send,
                         const CohortCudaExchange* receive) noexcept {
  Activate(c->device);
  cudaError_t copied = CopyOwnPart(c, send->counts, receive->counts);
  if (copied == cudaSuccess) {
    copied = CopyOwnPart(c, send->rows, receive->rows);
  }
  if (copied != cudaSuccess || c->world == 1) {
    return FromCuda(c, copied, "AllToAll");
  }
  return Count(c, Enqueue(c, "AllToAll", [&](ncclComm_t comm) {
                 return InGroup([&] {
                   ncclResult_t result = ncclSuccess;
                   for (const auto& [from, to] : {std::pair(&send->counts, &receive->counts),
                                                  std::pair(&send->rows, &receive->rows)}) {
                     if (result == ncclSuccess) {
                       result = SendAndReceive(
                           c, comm, [&](int32_t peer) { return PartOf(c, *from, peer); },
                           [&](int32_t peer) { return PartOf(c, *to, peer); });
                     }
                   }
                   return result;
                 });
               }));
}

CohortCudaError Barrier(CohortCudaCommunicator* c) noexcept {
  Activate(c->device);
  if (c->world == 1) {
    return Ok();
  }
  CohortCudaError error = Enqueue(c, "Barrier", [&](ncclComm_t comm) {
    return ncclAllGather(c->staging + c->rank, c->staging, 1, ncclInt8, comm, c->device->stream);
  });
  if (error.code == kCohortCudaOk) {
    error = FromCuda(c, cudaEventRecord(c->barrier_event, c->device->stream), "Barrier");
  }
  if (error.code != kCohortCudaOk) {
    return error;
  }
  MarkProgress(c->device);
  return WaitUntil(c, "Barrier", [&](CohortCudaError* failure) {
    cudaError_t result = cudaSuccess;
    const bool is_done = HasHappened(c->barrier_event, &result);
    *failure = FromCuda(c, result, "Barrier");
    return is_done;
  });
}

CohortCudaError WarmUp(CohortCudaCommunicator* c) {
  const auto tensor = [](char* data, int64_t rows, int64_t columns) {
    return CohortCudaTensor{data, {rows, columns}, columns, kCohortCudaF32, 2};
  };
  // Zeros, in every way of summing.
  for (const int64_t count : {int64_t{4}, kOneShotBytes / int64_t{sizeof(float)}}) {
    const CohortCudaTensor sum = tensor(c->scratch, 1, count);
    const CohortCudaError error = ReduceOverNccl(c, sum);
    if (error.code != kCohortCudaOk) {
      return error;
    }
    for (int is_two_shot = 0; c->peers.can_reduce && is_two_shot < 2; ++is_two_shot) {
      const CohortCudaTensor small = tensor(c->scratch, c->world, 4);
      PeerAllReduce(c->device, c->peers.group, is_two_shot != 0, c->peers.blocks, small);
    }
  }
  std::vector<CohortCudaRange> parts;
  for (int32_t rank = 0; rank < c->world; ++rank) {
    parts.push_back({rank, rank + 1});
  }
  const CohortCudaTensor gathered = tensor(c->scratch, 1, c->world);
  CohortCudaTensor own = gathered;
  own.data = c->scratch + c->rank * sizeof(float);
  own.dims[1] = 1;
  CohortCudaError error = AllGather(c, &own, parts.data(), &gathered);
  if (error.code == kCohortCudaOk) {
    const CohortCudaTensor sent = tensor(c->scratch, c->world, 1);
    const CohortCudaTensor received = tensor(c->scratch + kScratchBytes / 2, c->world, 1);
    CohortCudaTensor sent_counts = tensor(c->scratch + kScratchBytes / 4, c->world, 1);
    CohortCudaTensor received_counts = tensor(c->scratch + kScratchBytes * 3 / 4, c->world, 1);
    const CohortCudaExchange from = {sent, sent_counts};
    const CohortCudaExchange to = {received, received_counts};
    error = AllToAll(c, &from, &to);
  }
  return error.code == kCohortCudaOk ? Barrier(c) : error;
}

}  // namespace cohort::cuda
