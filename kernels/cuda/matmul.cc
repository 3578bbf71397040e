// MatMul, bf16 or fp32 with fp32 accumulation: by the weight-streaming kernel for a few tokens
// (stream.cuh), by cuBLASLt for more, by a plain kernel where neither takes the shape. A row's bits
// are the same in every batch of up to 16 tokens, and, unless the product is tuned, in every larger
// one.
#include "kernels/cuda/matmul.h"

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/matmul_plans.h"
#include "kernels/cuda/matmul_product.h"

namespace cohort::cuda {
namespace {

// The largest power of two up to 16 that divides `bytes`.
int64_t AlignmentOf(int64_t bytes) { return (bytes | 16) & -(bytes | 16); }

int64_t AlignmentOf(const CohortCudaTensor& matrix) {
  return std::min(AlignmentOf(reinterpret_cast<intptr_t>(matrix.data)),
                  AlignmentOf(matrix.row_stride * BytesOf(matrix.dtype)));
}

// False where cuBLASLt has no algorithm for the product.
bool LibraryMatMul(CohortCudaDevice* device, const CohortCudaTensor& x,
                   const CohortCudaTensor& weight, const CohortCudaTensor* bias,
                   const CohortCudaTensor& out) {
  // cuBLASLt wants a bias of out's type; a bf16 bias is added to an fp32 out afterwards, which is
  // the same sum.
  const bool has_bias = bias != nullptr && bias->dtype == out.dtype;
  const ProductData data = {.x = x.data,
                            .weight = weight.data,
                            .bias = has_bias ? bias->data : nullptr,
                            .out = out.data,
                            .strides = {x.row_stride, weight.row_stride, out.row_stride}};
  Product product = {x.dims[1], out.dims[1], x.dtype, out.dtype, has_bias};
  product.alignment = std::min({AlignmentOf(x), AlignmentOf(weight), AlignmentOf(out),
                                AlignmentOf(reinterpret_cast<intptr_t>(data.bias))});
  const int64_t tokens = out.dims[0];
  const cublasLtMatmulAlgo_t* algorithm = device->plans->For(device->blas, product, tokens);
  if (algorithm == nullptr) {
    return false;
  }
  const cublasStatus_t status = Multiply(device, product, tokens, *algorithm, data);
  if (status != CUBLAS_STATUS_SUCCESS) {
    Stick(device,
          MakeError(kCohortCudaFailed, "MatMul [%lld, %lld] by [%lld, %lld]: %s",
                    static_cast<long long>(tokens), static_cast<long long>(product.inner),
                    static_cast<long long>(product.columns), static_cast<long long>(product.inner),
                    cublasLtGetStatusString(status)));
  } else if (bias != nullptr && !has_bias) {
    AddBias(device, *bias, out);
  }
  return true;
}

}  // namespace

void MatMul(CohortCudaDevice* device, const CohortCudaTensor* x, const CohortCudaTensor* weight,
            const CohortCudaTensor* bias, const CohortCudaTensor* out) noexcept {
  if (out->dims[0] == 0 || out->dims[1] == 0) {
    return;
  }
  Activate(device);
  if (StreamMatMul(device, *x, *weight, bias, *out)) {
    return;
  }
  if (x->dims[1] == 0 || !LibraryMatMul(device, *x, *weight, bias, *out)) {
    PlainMatMul(device, *x, *weight, bias, *out);
  }
}

}  // namespace cohort::cuda
