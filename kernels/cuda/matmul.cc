// MatMul through cuBLASLt, bf16 or fp32 with fp32 accumulation.
//
// cuBLASLt is column-major: it computes out^T [out, tokens] = w [out, in] x^T [in, tokens], where a
// row-major matrix is its transpose, so w takes the operation T and x none.
//
// Its heuristics choose an algorithm by the number of tokens, and then a row's bits would depend on
// how many others are in the batch. So each product chooses once, for kPlanTokens, an algorithm
// that also takes any other number; tile and K split stay fixed from then on.
#include "kernels/cuda/matmul.h"

#include <algorithm>
#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <optional>

#include "kernels/cuda/device.h"
#include "kernels/cuda/entries.h"

namespace cohort::cuda {
namespace {

constexpr int64_t kPlanTokens = 128;
constexpr std::array<int64_t, 4> kCheckedTokens = {1, 16, kPlanTokens, 4096};
constexpr int kCandidates = 16;

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

cudaDataType_t TypeOf(int32_t dtype) { return dtype == kCohortCudaBF16 ? CUDA_R_16BF : CUDA_R_32F; }

// The largest power of two up to 16 that divides `bytes`.
int64_t AlignmentOf(int64_t bytes) { return (bytes | 16) & -(bytes | 16); }

int64_t AlignmentOf(const CohortCudaTensor& matrix) {
  return std::min(AlignmentOf(reinterpret_cast<intptr_t>(matrix.data)),
                  AlignmentOf(matrix.row_stride * BytesOf(matrix.dtype)));
}

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

// Choosing reads no memory, only the alignment of the pointer.
const void* PlannedBias(const Product& product) {
  return reinterpret_cast<const void*>(static_cast<uintptr_t>(product.alignment));
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

// Whether `algorithm` computes the product for any number of tokens within the workspace.
bool TakesAnyTokens(cublasLtHandle_t blas, const Product& product,
                    const cublasLtMatmulAlgo_t& algorithm) {
  return std::all_of(kCheckedTokens.begin(), kCheckedTokens.end(), [&](int64_t tokens) {
    Descriptors descriptors;
    cublasLtMatmulHeuristicResult_t result{};
    return descriptors.Init(product, PlannedStrides(product), tokens, PlannedBias(product)) ==
               CUBLAS_STATUS_SUCCESS &&
           cublasLtMatmulAlgoCheck(blas, &descriptors.operation, &descriptors.weight,
                                   &descriptors.x, &descriptors.out, &descriptors.out, &algorithm,
                                   &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= kWorkspaceBytes;
  });
}

// Nothing when cuBLASLt has no algorithm for the product.
std::optional<cublasLtMatmulAlgo_t> Choose(cublasLtHandle_t blas, const Product& product) {
  Descriptors descriptors;
  cublasLtMatmulPreferenceOpaque_t preference;
  std::array<cublasLtMatmulHeuristicResult_t, kCandidates> candidates{};
  int found = 0;
  if (descriptors.Init(product, PlannedStrides(product), kPlanTokens, PlannedBias(product)) !=
          CUBLAS_STATUS_SUCCESS ||
      InitPreference(product, &preference) != CUBLAS_STATUS_SUCCESS ||
      cublasLtMatmulAlgoGetHeuristic(blas, &descriptors.operation, &descriptors.weight,
                                     &descriptors.x, &descriptors.out, &descriptors.out,
                                     &preference, kCandidates, candidates.data(),
                                     &found) != CUBLAS_STATUS_SUCCESS) {
    return std::nullopt;
  }
  for (int i = 0; i < found; ++i) {
    if (candidates[i].state == CUBLAS_STATUS_SUCCESS &&
        TakesAnyTokens(blas, product, candidates[i].algo)) {
      return candidates[i].algo;
    }
  }
  return std::nullopt;
}

// out = x weight^T + bias, enqueued.
cublasStatus_t Multiply(CohortCudaDevice* device, const Product& product, const Strides& strides,
                        const cublasLtMatmulAlgo_t& algorithm, const CohortCudaTensor& x,
                        const CohortCudaTensor& weight, const void* bias,
                        const CohortCudaTensor& out) {
  Descriptors descriptors;
  const cublasStatus_t status = descriptors.Init(product, strides, out.dims[0], bias);
  if (status != CUBLAS_STATUS_SUCCESS) {
    return status;
  }
  const float one = 1;
  const float zero = 0;
  return cublasLtMatmul(device->blas, &descriptors.operation, &one, weight.data,
                        &descriptors.weight, x.data, &descriptors.x, &zero, out.data,
                        &descriptors.out, out.data, &descriptors.out, &algorithm, device->workspace,
                        kWorkspaceBytes, device->stream);
}

}  // namespace

// The algorithms chosen so far: a handful per model.
class MatMulPlans {
 public:
  const std::optional<cublasLtMatmulAlgo_t>& For(cublasLtHandle_t blas, const Product& product) {
    const auto known = plans_.find(product);
    return known != plans_.end() ? known->second
                                 : plans_.emplace(product, Choose(blas, product)).first->second;
  }

 private:
  std::map<Product, std::optional<cublasLtMatmulAlgo_t>> plans_;
};

MatMulPlansPointer MakeMatMulPlans() { return MatMulPlansPointer(new MatMulPlans); }

void MatMulPlansDeleter::operator()(MatMulPlans* plans) const { delete plans; }

void MatMul(CohortCudaDevice* device, const CohortCudaTensor* x, const CohortCudaTensor* weight,
            const CohortCudaTensor* bias, const CohortCudaTensor* out) noexcept {
  const int64_t tokens = out->dims[0];
  if (tokens == 0 || out->dims[1] == 0) {
    return;
  }
  Activate(device);
  if (x->dims[1] == 0) {
    PlainMatMul(device, *x, *weight, bias, *out);
    return;
  }
  if (StreamMatMul(device, *x, *weight, bias, *out)) {
    return;
  }
  // cuBLASLt wants a bias of out's type; a bf16 bias is added to an fp32 out afterwards, which is
  // the same sum.
  const bool has_bias = bias != nullptr && bias->dtype == out->dtype;
  const void* bias_data = has_bias ? bias->data : nullptr;
  const Strides strides = {x->row_stride, weight->row_stride, out->row_stride};
  Product product = {x->dims[1], out->dims[1], x->dtype, out->dtype, has_bias};
  product.alignment = std::min({AlignmentOf(*x), AlignmentOf(*weight), AlignmentOf(*out),
                                AlignmentOf(reinterpret_cast<intptr_t>(bias_data))});
  const std::optional<cublasLtMatmulAlgo_t>& algorithm = device->plans->For(device->blas, product);
  if (!algorithm.has_value()) {
    PlainMatMul(device, *x, *weight, bias, *out);
    return;
  }
  const cublasStatus_t status =
      Multiply(device, product, strides, *algorithm, *x, *weight, bias_data, *out);
  if (status != CUBLAS_STATUS_SUCCESS) {
    Stick(device,
          MakeError(kCohortCudaFailed, "MatMul [%lld, %lld] by [%lld, %lld]: %s",
                    static_cast<long long>(tokens), static_cast<long long>(product.inner),
                    static_cast<long long>(product.columns), static_cast<long long>(product.inner),
                    cublasLtGetStatusString(status)));
    return;
  }
  if (bias != nullptr && !has_bias) {
    AddBias(device, *bias, *out);
  }
}

}  // namespace cohort::cuda
