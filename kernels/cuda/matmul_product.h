// A product as cuBLASLt sees it.
//
// cuBLASLt is column-major: it computes out^T [out, tokens] = w [out, in] x^T [in, tokens], where a
// row-major matrix is its transpose, so w takes the operation T and x none.
#ifndef COHORT_KERNELS_CUDA_MATMUL_PRODUCT_H_
#define COHORT_KERNELS_CUDA_MATMUL_PRODUCT_H_

#include <cublasLt.h>

#include <compare>
#include <cstdint>
#include <vector>

#include "kernels/cuda/device.h"

namespace cohort::cuda {

// What an algorithm is chosen for. Strides are left out but for their alignment, so that a slice of
// a matrix gives the same bits as its dense copy.
struct Product {
  int64_t inner = 0;
  int64_t columns = 0;
  int32_t dtype = 0;
  int32_t out_dtype = 0;
  bool has_bias = false;   // added by cuBLASLt
  int64_t alignment = 16;  // bytes, of every pointer and every row
  auto operator<=>(const Product&) const = default;
};

// In elements.
struct Strides {
  int64_t x = 0;
  int64_t weight = 0;
  int64_t out = 0;
};

int64_t BytesOf(int32_t dtype);

// The smallest strides of the product's alignment.
Strides PlannedStrides(const Product& product);

// cuBLASLt's descriptors of one call, on the stack.
struct Descriptors {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t weight;
  cublasLtMatrixLayoutOpaque_t x;
  cublasLtMatrixLayoutOpaque_t out;

  // `bias` counts only for a product that has one.
  cublasStatus_t Init(const Product& product, const Strides& strides, int64_t tokens,
                      const void* bias);
};

// Whether `algorithm` computes the product of `tokens` tokens within the workspace.
bool Takes(cublasLtHandle_t blas, const Product& product, int64_t tokens,
           const cublasLtMatmulAlgo_t& algorithm);

// What cuBLASLt's heuristics offer for `tokens` tokens, the one that it likes best first. Not while
// the stream is recorded.
std::vector<cublasLtMatmulAlgo_t> Candidates(cublasLtHandle_t blas, const Product& product,
                                             int64_t tokens);

// Matrices of a product, in device memory.
struct ProductData {
  const void* x = nullptr;
  const void* weight = nullptr;
  const void* bias = nullptr;
  void* out = nullptr;
  Strides strides;
};

// out = x weight^T + bias, enqueued.
cublasStatus_t Multiply(CohortCudaDevice* device, const Product& product, int64_t tokens,
                        const cublasLtMatmulAlgo_t& algorithm, const ProductData& data);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_MATMUL_PRODUCT_H_
