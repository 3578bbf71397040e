// cuBLASLt: products of bf16 or fp32 matrices, summed in fp32, on the stream.
//
// It offers four algorithms, which cut the inner dimension into 1, 2, 4 or 8 parts and so round
// differently; like the real heuristics it prefers others for few tokens than for many. A program
// that lets the choice depend on the batch therefore gets other bits.
#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "runtime.h"

namespace cuda_emulator {
namespace {

constexpr uint64_t kMagic = 0x636f686f72744c74;
constexpr std::array<int, 4> kSplits = {1, 2, 4, 8};
constexpr int64_t kMinAlignment = 4;  // of pointers and rows, in bytes

struct ProductOperation {
  cublasOperation_t transpose_a = CUBLAS_OP_N;
  cublasOperation_t transpose_b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  cudaDataType_t scale = CUDA_R_32F;
  const void* bias = nullptr;
};
struct Layout {
  cudaDataType_t type = CUDA_R_32F;
  uint64_t rows = 0;
  uint64_t columns = 0;
  int64_t stride = 0;  // elements between columns
};
struct Preference {
  uint64_t workspace_bytes = 0;
  std::array<uint32_t, 4> alignment = {256, 256, 256, 256};
};
struct Algorithm {
  uint64_t magic = 0;
  uint64_t splits = 0;
};

// The library's descriptors are opaque blocks of words with room enough.
template <class T, class Opaque>
T* Inside(Opaque* opaque) {
  static_assert(sizeof(T) <= sizeof(Opaque));
  return reinterpret_cast<T*>(opaque);
}
template <class T, class Opaque>
const T& Inside(const Opaque* opaque) {
  static_assert(sizeof(T) <= sizeof(Opaque));
  return *reinterpret_cast<const T*>(opaque);
}

int64_t BytesOf(cudaDataType_t type) { return type == CUDA_R_16BF ? 2 : 4; }

float At(const void* data, cudaDataType_t type, int64_t index) {
  if (type == CUDA_R_32F) {
    return static_cast<const float*>(data)[index];
  }
  const uint32_t bits = uint32_t{static_cast<const uint16_t*>(data)[index]} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

void Store(void* data, cudaDataType_t type, int64_t index, float value) {
  if (type == CUDA_R_32F) {
    static_cast<float*>(data)[index] = value;
    return;
  }
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if (value != value) {
    bits |= 0x400000u;
  } else {
    bits += 0x7fffu + (bits >> 16 & 1u);
  }
  static_cast<uint16_t*>(data)[index] = static_cast<uint16_t>(bits >> 16);
}

// op(matrix) as rows of `inner` floats each: row i is the i-th vector that takes part in products.
std::vector<float> Vectors(const void* data, const Layout& layout, bool inner_is_rows) {
  const auto inner = static_cast<int64_t>(inner_is_rows ? layout.rows : layout.columns);
  const auto count = static_cast<int64_t>(inner_is_rows ? layout.columns : layout.rows);
  std::vector<float> vectors(static_cast<size_t>(inner * count));
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t k = 0; k < inner; ++k) {
      const int64_t index = inner_is_rows ? i * layout.stride + k : k * layout.stride + i;
      vectors[static_cast<size_t>(i * inner + k)] = At(data, layout.type, index);
    }
  }
  return vectors;
}

// Eight running sums, then their sum: an order that depends on the length only.
float Dot(const float* a, const float* b, int64_t length) {
  constexpr int64_t kLanes = 8;
  float sums[kLanes] = {};
  int64_t k = 0;
  for (; k + kLanes <= length; k += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      sums[lane] += a[k + lane] * b[k + lane];
    }
  }
  for (; k < length; ++k) {
    sums[k % kLanes] += a[k] * b[k];
  }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

struct Product {
  ProductOperation operation;
  Layout a, b, c, d;
  const void* a_data;
  const void* b_data;
  const void* c_data;
  void* d_data;
  float alpha;
  float beta;
  int64_t splits;

  void Run() const {
    const bool a_inner_is_rows = operation.transpose_a != CUBLAS_OP_N;
    const bool b_inner_is_rows = operation.transpose_b == CUBLAS_OP_N;
    const std::vector<float> left = Vectors(a_data, a, a_inner_is_rows);
    const std::vector<float> right = Vectors(b_data, b, b_inner_is_rows);
    const auto inner = static_cast<int64_t>(a_inner_is_rows ? a.rows : a.columns);
    const int64_t part = (inner + splits - 1) / splits;
    for (int64_t column = 0; column < static_cast<int64_t>(d.columns); ++column) {
      for (int64_t row = 0; row < static_cast<int64_t>(d.rows); ++row) {
        float sum = 0;
        for (int64_t begin = 0; begin < inner; begin += part) {
          sum += Dot(&left[static_cast<size_t>(row * inner + begin)],
                     &right[static_cast<size_t>(column * inner + begin)],
                     std::min(part, inner - begin));
        }
        float value = alpha * sum;
        if (beta != 0) {
          value += beta * At(c_data, c.type, column * c.stride + row);
        }
        if (operation.epilogue == CUBLASLT_EPILOGUE_BIAS) {
          value += At(operation.bias, d.type, row);
        }
        Store(d_data, d.type, column * d.stride + row, value);
      }
    }
  }
};

// How many bytes of workspace the algorithm needs.
uint64_t WorkspaceOf(uint64_t splits, const Layout& d) {
  return splits == 1 ? 0 : splits * d.rows * d.columns * sizeof(float);
}

bool IsSupported(const ProductOperation& operation, const Layout& a, const Layout& b,
                 const Layout& c, const Layout& d) {
  const bool a_inner_is_rows = operation.transpose_a != CUBLAS_OP_N;
  const bool b_inner_is_rows = operation.transpose_b == CUBLAS_OP_N;
  const uint64_t inner = a_inner_is_rows ? a.rows : a.columns;
  const uint64_t rows = a_inner_is_rows ? a.columns : a.rows;
  const bool has_types = (a.type == CUDA_R_16BF || a.type == CUDA_R_32F) && a.type == b.type &&
                         c.type == d.type &&
                         (d.type == CUDA_R_32F || (d.type == CUDA_R_16BF && a.type == d.type));
  return has_types && operation.scale == CUDA_R_32F &&
         (operation.epilogue == CUBLASLT_EPILOGUE_DEFAULT ||
          operation.epilogue == CUBLASLT_EPILOGUE_BIAS) &&
         inner == (b_inner_is_rows ? b.rows : b.columns) && rows == d.rows &&
         d.columns == (b_inner_is_rows ? b.columns : b.rows) && c.rows == d.rows &&
         c.columns == d.columns && a.stride >= static_cast<int64_t>(a.rows) &&
         b.stride >= static_cast<int64_t>(b.rows) && d.stride >= static_cast<int64_t>(d.rows) &&
         a.stride * BytesOf(a.type) % kMinAlignment == 0 &&
         b.stride * BytesOf(b.type) % kMinAlignment == 0 &&
         d.stride * BytesOf(d.type) % kMinAlignment == 0;
}

// Whether the memory of the matrix is the device's and large enough.
bool IsOnDevice(const void* data, const Layout& layout) {
  const uint64_t elements =
      layout.columns == 0
          ? 0
          : (layout.columns - 1) * static_cast<uint64_t>(layout.stride) + layout.rows;
  return RangeOf(data).kind != MemoryKind::kUnknown &&
         IsWholeRange(data, elements * static_cast<uint64_t>(BytesOf(layout.type))) &&
         reinterpret_cast<uint64_t>(data) % kMinAlignment == 0;
}

}  // namespace
}  // namespace cuda_emulator

using cuda_emulator::Algorithm;
using cuda_emulator::Inside;
using cuda_emulator::Layout;
using cuda_emulator::Preference;
using cuda_emulator::ProductOperation;

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = reinterpret_cast<cublasLtHandle_t>(new char);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete reinterpret_cast<char*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion() { return CUBLAS_VERSION; }

const char* cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "success";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "the functionality requested is not supported";
    default:
      return "an error of the emulated cuBLASLt";
  }
}

const char* cublasLtGetStatusName(cublasStatus_t status) { return cublasLtGetStatusString(status); }

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t operation, size_t,
                                               cublasComputeType_t compute, cudaDataType_t scale) {
  if (compute != CUBLAS_COMPUTE_32F) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  *operation = {};
  *Inside<ProductOperation>(operation) = {};
  Inside<ProductOperation>(operation)->scale = scale;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  ProductOperation* inside = Inside<ProductOperation>(operation);
  const auto set = [&](auto* field) {
    if (bytes != sizeof(*field)) {
      return CUBLAS_STATUS_INVALID_VALUE;
    }
    std::memcpy(field, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
  };
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return set(&inside->transpose_a);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return set(&inside->transpose_b);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return set(&inside->epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return set(&inside->bias);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t layout, size_t,
                                                 cudaDataType type, uint64_t rows, uint64_t columns,
                                                 int64_t stride) {
  if (stride < static_cast<int64_t>(rows)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  *layout = {};
  *Inside<Layout>(layout) = {type, rows, columns, stride};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t preference,
                                                     size_t) {
  *preference = {};
  *Inside<Preference>(preference) = {};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t bytes) {
  Preference* inside = Inside<Preference>(preference);
  const auto set = [&](auto* field) {
    if (bytes != sizeof(*field)) {
      return CUBLAS_STATUS_INVALID_VALUE;
    }
    std::memcpy(field, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
  };
  uint32_t ignored = 0;
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return set(&inside->workspace_bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return set(&ignored);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return set(&inside->alignment[0]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return set(&inside->alignment[1]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return set(&inside->alignment[2]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return set(&inside->alignment[3]);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algorithm,
                                       cublasLtMatmulHeuristicResult_t* result) {
  const auto& chosen = Inside<Algorithm>(algorithm);
  if (chosen.magic != cuda_emulator::kMagic) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const cublasLtMatmulDescOpaque_t* const_operation = operation;
  const cublasLtMatrixLayoutOpaque_t* layouts[] = {a, b, c, d};
  if (!cuda_emulator::IsSupported(Inside<ProductOperation>(const_operation),
                                  Inside<Layout>(layouts[0]), Inside<Layout>(layouts[1]),
                                  Inside<Layout>(layouts[2]), Inside<Layout>(layouts[3]))) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  *result = {};
  result->algo = *algorithm;
  result->workspaceSize = cuda_emulator::WorkspaceOf(chosen.splits, Inside<Layout>(layouts[3]));
  result->state = CUBLAS_STATUS_SUCCESS;
  result->wavesCount = 1.0f;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle,
                                              cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int* found) {
  *found = 0;
  if (cuda_emulator::IsForbiddenByCapture()) {
    return CUBLAS_STATUS_EXECUTION_FAILED;
  }
  const Preference* wanted = Inside<Preference>(preference);
  const bool is_aligned =
      std::all_of(wanted->alignment.begin(), wanted->alignment.end(),
                  [](uint32_t bytes) { return bytes % cuda_emulator::kMinAlignment == 0; });
  std::array<int, 4> order = cuda_emulator::kSplits;
  if (Inside<Layout>(d)->columns <= 16) {
    std::rotate(order.begin(), order.begin() + 2, order.end());
  }
  for (const int splits : order) {
    cublasLtMatmulAlgo_t algorithm{};
    *Inside<Algorithm>(&algorithm) = {cuda_emulator::kMagic, static_cast<uint64_t>(splits)};
    cublasLtMatmulHeuristicResult_t result{};
    if (is_aligned && *found < requested &&
        cublasLtMatmulAlgoCheck(handle, operation, a, b, c, d, &algorithm, &result) ==
            CUBLAS_STATUS_SUCCESS &&
        result.workspaceSize <= wanted->workspace_bytes) {
      results[(*found)++] = result;
    }
  }
  return *found > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                              const void* alpha, const void* a, cublasLtMatrixLayout_t a_layout,
                              const void* b, cublasLtMatrixLayout_t b_layout, const void* beta,
                              const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  cublasLtMatmulHeuristicResult_t result{};
  const cublasStatus_t status = cublasLtMatmulAlgoCheck(handle, operation, a_layout, b_layout,
                                                        c_layout, d_layout, algorithm, &result);
  if (status != CUBLAS_STATUS_SUCCESS) {
    return status;
  }
  if (result.workspaceSize > workspace_bytes ||
      (result.workspaceSize > 0 && !cuda_emulator::IsWholeRange(workspace, workspace_bytes)) ||
      !cuda_emulator::IsOnDevice(a, *Inside<Layout>(a_layout)) ||
      !cuda_emulator::IsOnDevice(b, *Inside<Layout>(b_layout)) ||
      !cuda_emulator::IsOnDevice(d, *Inside<Layout>(d_layout))) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  cuda_emulator::Product product{*Inside<ProductOperation>(operation),
                                 *Inside<Layout>(a_layout),
                                 *Inside<Layout>(b_layout),
                                 *Inside<Layout>(c_layout),
                                 *Inside<Layout>(d_layout),
                                 a,
                                 b,
                                 c,
                                 d,
                                 *static_cast<const float*>(alpha),
                                 *static_cast<const float*>(beta),
                                 static_cast<int64_t>(Inside<Algorithm>(algorithm).splits)};
  const cudaError_t enqueued =
      cuda_emulator::Enqueue(stream, {cudaGraphNodeTypeKernel, false, [product] {
                                        product.Run();
                                        return cudaSuccess;
                                      }});
  return enqueued == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // extern "C"
