// Embedding, gather of rows, SiLU times up.
#include "kernels/cuda/device.h"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/rows.cuh"

namespace cohort::cuda {
namespace {

constexpr int kThreads = 256;

// Blocks of one row (and of a stretch of it, with `stretches`).
LaunchShape ShapeOf(int64_t rows, int64_t stretches = 1) {
  return {.grid = dim3(static_cast<unsigned>(rows), static_cast<unsigned>(stretches)),
          .block = kThreads,
          .programmatic = rows <= kProgrammaticRows};
}

// One block writes one row.
template <class T, class Out, int kVec>
__global__ void EmbedKernel(Rows<const int32_t> ids, Rows<const T> table, int64_t first_row,
                            int64_t table_rows, int64_t columns, Rows<Out> out) {
  LaunchSuccessor();
  WaitForPredecessor();
  const int64_t row = ids[blockIdx.x][0] - first_row;
  const bool is_here = row >= 0 && row < table_rows;
  Out* destination = out[blockIdx.x];
  for (int64_t column = threadIdx.x * kVec; column < columns; column += kThreads * kVec) {
    Pack<T, kVec> values{};
    if (is_here) {
      values = LoadPack<kVec>(table[row] + column);
    }
    Pack<Out, kVec> result;
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      result.item[i] = FromFloat<Out>(ToFloat(values.item[i]));
    }
    StorePack<kVec>(destination + column, result);
  }
}

template <class T, class Out>
void LaunchEmbed(CohortCudaDevice* device, const CohortCudaTensor& ids,
                 const CohortCudaTensor& table, int64_t first_row, const CohortCudaTensor& out) {
  constexpr int kVec = 16 / sizeof(T);
  const auto kernel = CutsIntoPacks(out.dims[1], kVec, {&table, &out}) ? EmbedKernel<T, Out, kVec>
                                                                       : EmbedKernel<T, Out, 1>;
  Launch(device, "Embed", ShapeOf(out.dims[0]), kernel, RowsOf<const int32_t>(ids),
         RowsOf<const T>(table), first_row, table.dims[0], out.dims[1], RowsOf<Out>(out));
}

// One block copies one row as `columns` words, whatever they hold.
template <class Word>
__global__ void GatherRowsKernel(Rows<const Word> x, Rows<const int32_t> rows, int64_t columns,
                                 Rows<Word> out) {
  LaunchSuccessor();
  WaitForPredecessor();
  const Word* source = x[rows[blockIdx.x][0]];
  Word* destination = out[blockIdx.x];
  for (int64_t column = threadIdx.x; column < columns; column += kThreads) {
    destination[column] = source[column];
  }
}

// `per_word` elements of the tensors make a Word.
template <class Word>
void LaunchGatherRows(CohortCudaDevice* device, const CohortCudaTensor& x,
                      const CohortCudaTensor& rows, const CohortCudaTensor& out, int per_word) {
  const Rows<const Word> from = {static_cast<const Word*>(x.data), x.row_stride / per_word};
  const Rows<Word> to = {static_cast<Word*>(out.data), out.row_stride / per_word};
  Launch(device, "GatherRows", ShapeOf(out.dims[0]), GatherRowsKernel<Word>, from,
         RowsOf<const int32_t>(rows), out.dims[1] / per_word, to);
}

// blockIdx.x is the row, blockIdx.y a stretch of kThreads packs; one thread computes one pack.
template <class T, int kVec>
__global__ void SiluMultiplyKernel(Rows<const T> gate_up, int64_t columns, Rows<T> out) {
  LaunchSuccessor();
  WaitForPredecessor();
  const int64_t column = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * kVec;
  if (column >= columns) {
    return;
  }
  const T* row = gate_up[blockIdx.x];
  const auto gates = LoadPack<kVec>(row + column);
  const auto ups = LoadPack<kVec>(row + columns + column);
  Pack<T, kVec> result;
#pragma unroll
  for (int i = 0; i < kVec; ++i) {
    result.item[i] = SiluTimes<T>(ToFloat(gates.item[i]), ToFloat(ups.item[i]));
  }
  StorePack<kVec>(out[blockIdx.x] + column, result);
}

template <class T, int kVec>
void LaunchSiluMultiply(CohortCudaDevice* device, const CohortCudaTensor& gate_up,
                        const CohortCudaTensor& out) {
  const int64_t stretch = int64_t{kThreads} * kVec;
  const LaunchShape shape = ShapeOf(out.dims[0], (out.dims[1] + stretch - 1) / stretch);
  Launch(device, "SiluMultiply", shape, SiluMultiplyKernel<T, kVec>, RowsOf<const T>(gate_up),
         out.dims[1], RowsOf<T>(out));
}

bool IsEmpty(const CohortCudaTensor& matrix) { return matrix.dims[0] == 0 || matrix.dims[1] == 0; }

}  // namespace

void Embed(CohortCudaDevice* device, const CohortCudaTensor* ids, const CohortCudaTensor* table,
           int64_t first_row, const CohortCudaTensor* out) noexcept {
  if (IsEmpty(*out)) {
    return;
  }
  Activate(device);
  if (table->dtype == kCohortCudaF32) {
    LaunchEmbed<float, float>(device, *ids, *table, first_row, *out);
  } else if (out->dtype == kCohortCudaF32) {
    LaunchEmbed<BFloat16, float>(device, *ids, *table, first_row, *out);
  } else {
    LaunchEmbed<BFloat16, BFloat16>(device, *ids, *table, first_row, *out);
  }
}

void GatherRows(CohortCudaDevice* device, const CohortCudaTensor* x, const CohortCudaTensor* rows,
                const CohortCudaTensor* out) noexcept {
  if (IsEmpty(*out)) {
    return;
  }
  Activate(device);
  const int element_bytes = x->dtype == kCohortCudaBF16 ? 2 : 4;
  if (CutsIntoPacks(out->dims[1], 16 / element_bytes, {x, out})) {
    LaunchGatherRows<uint4>(device, *x, *rows, *out, 16 / element_bytes);
  } else if (element_bytes == 4) {
    LaunchGatherRows<uint32_t>(device, *x, *rows, *out, 1);
  } else {
    LaunchGatherRows<uint16_t>(device, *x, *rows, *out, 1);
  }
}

void SiluMultiply(CohortCudaDevice* device, const CohortCudaTensor* gate_up,
                  const CohortCudaTensor* out) noexcept {
  if (IsEmpty(*out)) {
    return;
  }
  Activate(device);
  WithActivation(out->dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int kVec = 16 / sizeof(T);
    if (CutsIntoPacks(out->dims[1], kVec, {gate_up, out})) {
      LaunchSiluMultiply<T, kVec>(device, *gate_up, *out);
    } else {
      LaunchSiluMultiply<T, 1>(device, *gate_up, *out);
    }
  });
}

}  // namespace cohort::cuda
