#include "kernels/cuda/matmul_product.h"

#include <algorithm>
#include <array>

namespace cohort::cuda {
namespace {

constexpr int kCandidates = 16;

cudaDataType_t TypeOf(int32_t dtype) { return dtype == kCohortCudaBF16 ? CUDA_R_16BF : CUDA_R_32F; }

// Choosing reads no memory, only the alignment of the pointer.
const void* PlannedBias(const Product& product) {
  return reinterpret_cast<const void*>(static_cast<uintptr_t>(product.alignment));
}

cublasStatus_t InitPreference(const Product& product,
                              cublasLtMatmulPreferenceOpaque_t* preference) {
  cublasStatus_t status = cublasLtMatmulPreferenceInit(preference);
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    if (status == CUBLAS_STATUS_SUCCESS) {
      status = cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value));
    }
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspaceBytes});
  // Partial sums of a K split stay in fp32.
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<uint32_t>(product.alignment));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(product.alignment));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(product.alignment));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(product.alignment));
  return status;
}

}  // namespace

int64_t BytesOf(int32_t dtype) { return dtype == kCohortCudaBF16 ? 2 : 4; }

// The smallest strides of the product's alignment.
Strides PlannedStrides(const Product& product) {
  const auto round_up = [&](int64_t columns, int32_t dtype) {
    const int64_t unit = std::max<int64_t>(product.alignment / BytesOf(dtype), 1);
    return (columns + unit - 1) / unit * unit;
  };
  return {round_up(product.inner, product.dtype), round_up(product.inner, product.dtype),
          round_up(product.columns, product.out_dtype)};
}

cublasStatus_t Descriptors::Init(const Product& product, const Strides& strides, int64_t tokens,
                                 const void* bias) {
  const cudaDataType_t type = TypeOf(product.dtype);
  const cudaDataType_t out_type = TypeOf(product.out_dtype);
  const uint64_t rows = static_cast<uint64_t>(tokens);
  const uint64_t inner = static_cast<uint64_t>(product.inner);
  const uint64_t columns = static_cast<uint64_t>(product.columns);
  // A layout's stride must be at least its rows, also where one token makes it meaningless.
  const int64_t x_stride = std::max(strides.x, product.inner);
  const int64_t weight_stride = std::max(strides.weight, product.inner);
  const int64_t out_stride = std::max(strides.out, product.columns);
  for (const cublasStatus_t status :
       {cublasLtMatmulDescInit(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
        cublasLtMatrixLayoutInit(&weight, type, inner, columns, weight_stride),
        cublasLtMatrixLayoutInit(&x, type, inner, rows, x_stride),
        cublasLtMatrixLayoutInit(&out, out_type, columns, rows, out_stride)}) {
    if (status != CUBLAS_STATUS_SUCCESS) {
      return status;
    }
  }
  const cublasOperation_t transposed = CUBLAS_OP_T;
  cublasStatus_t status = cublasLtMatmulDescSetAttribute(&operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                                         &transposed, sizeof(transposed));
  if (status != CUBLAS_STATUS_SUCCESS || !product.has_bias) {
    return status;
  }
  const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
  status = cublasLtMatmulDescSetAttribute(&operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                          sizeof(epilogue));
  if (status == CUBLAS_STATUS_SUCCESS) {
    status = cublasLtMatmulDescSetAttribute(&operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                            sizeof(bias));
  }
  return status;
}

bool Takes(cublasLtHandle_t blas, const Product& product, int64_t tokens,
           const cublasLtMatmulAlgo_t& algorithm) {
  Descriptors descriptors;
  cublasLtMatmulHeuristicResult_t result{};
  return descriptors.Init(product, PlannedStrides(product), tokens, PlannedBias(product)) ==
             CUBLAS_STATUS_SUCCESS &&
         cublasLtMatmulAlgoCheck(blas, &descriptors.operation, &descriptors.weight, &descriptors.x,
                                 &descriptors.out, &descriptors.out, &algorithm,
                                 &result) == CUBLAS_STATUS_SUCCESS &&
         result.workspaceSize <= kWorkspaceBytes;
}

std::vector<cublasLtMatmulAlgo_t> Candidates(cublasLtHandle_t blas, const Product& product,
                                             int64_t tokens) {
  Descriptors descriptors;
  cublasLtMatmulPreferenceOpaque_t preference;
  std::array<cublasLtMatmulHeuristicResult_t, kCandidates> results{};
  int found = 0;
  if (descriptors.Init(product, PlannedStrides(product), tokens, PlannedBias(product)) !=
          CUBLAS_STATUS_SUCCESS ||
      InitPreference(product, &preference) != CUBLAS_STATUS_SUCCESS ||
      cublasLtMatmulAlgoGetHeuristic(blas, &descriptors.operation, &descriptors.weight,
                                     &descriptors.x, &descriptors.out, &descriptors.out,
                                     &preference, kCandidates, results.data(),
                                     &found) != CUBLAS_STATUS_SUCCESS) {
    return {};
  }
  std::vector<cublasLtMatmulAlgo_t> candidates;
  for (int i = 0; i < found; ++i) {
    if (results[i].state == CUBLAS_STATUS_SUCCESS) {
      candidates.push_back(results[i].algo);
    }
  }
  return candidates;
}

cublasStatus_t Multiply(CohortCudaDevice* device, const Product& product, int64_t tokens,
                        const cublasLtMatmulAlgo_t& algorithm, const ProductData& data) {
  Descriptors descriptors;
  const cublasStatus_t status = descriptors.Init(product, data.strides, tokens, data.bias);
  if (status != CUBLAS_STATUS_SUCCESS) {
    return status;
  }
  const float one = 1;
  const float zero = 0;
  return cublasLtMatmul(device->blas, &descriptors.operation, &one, data.weight,
                        &descriptors.weight, data.x, &descriptors.x, &zero, data.out,
                        &descriptors.out, data.out, &descriptors.out, &algorithm, device->workspace,
                        kWorkspaceBytes, device->stream);
}

}  // namespace cohort::cuda
