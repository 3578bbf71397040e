#include "tests/gpu/limit_product.h"

#include <algorithm>
#include <array>

#include "tests/gpu/device_memory.h"
#include "tests/gpu/limit_kernels.h"
#include "tests/gpu/measurement.h"

namespace cohort::gpu {
namespace {

constexpr int kAlgorithms = 16;
constexpr int kTrials = 3;

// cuBLASLt is column-major: out^T [columns, tokens] = w [columns, inner] x^T [inner, tokens], where
// a row-major matrix is its transpose.
struct Product {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t w, x, out;
  void* weights = nullptr;
  void* input = nullptr;
  void* output = nullptr;
};

bool Describe(int64_t tokens, int64_t inner, int64_t columns, Product* product) {
  const cublasOperation_t transposed = CUBLAS_OP_T;
  const auto unsigned_of = [](int64_t n) { return static_cast<uint64_t>(n); };
  return cublasLtMatmulDescInit(&product->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F) ==
             CUBLAS_STATUS_SUCCESS &&
         cublasLtMatmulDescSetAttribute(&product->operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                        &transposed, sizeof(transposed)) == CUBLAS_STATUS_SUCCESS &&
         cublasLtMatrixLayoutInit(&product->w, CUDA_R_16BF, unsigned_of(inner),
                                  unsigned_of(columns), inner) == CUBLAS_STATUS_SUCCESS &&
         cublasLtMatrixLayoutInit(&product->x, CUDA_R_16BF, unsigned_of(inner), unsigned_of(tokens),
                                  inner) == CUBLAS_STATUS_SUCCESS &&
         cublasLtMatrixLayoutInit(&product->out, CUDA_R_16BF, unsigned_of(columns),
                                  unsigned_of(tokens), columns) == CUBLAS_STATUS_SUCCESS;
}

using Algorithms = std::array<cublasLtMatmulHeuristicResult_t, kAlgorithms>;

int Propose(CohortCudaDevice* device, Product& product, Algorithms* algorithms) {
  cublasLtMatmulPreferenceOpaque_t preference;
  const uint64_t workspace = cuda::kWorkspaceBytes;
  int found = 0;
  if (cublasLtMatmulPreferenceInit(&preference) != CUBLAS_STATUS_SUCCESS ||
      cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                           &workspace,
                                           sizeof(workspace)) != CUBLAS_STATUS_SUCCESS ||
      cublasLtMatmulAlgoGetHeuristic(device->blas, &product.operation, &product.w, &product.x,
                                     &product.out, &product.out, &preference, kAlgorithms,
                                     algorithms->data(), &found) != CUBLAS_STATUS_SUCCESS) {
    return 0;
  }
  return found;
}

bool Multiply(CohortCudaDevice* device, Product& product, const cublasLtMatmulAlgo_t& algorithm) {
  const float one = 1;
  const float zero = 0;
  return cublasLtMatmul(device->blas, &product.operation, &one, product.weights, &product.w,
                        product.input, &product.x, &zero, product.output, &product.out,
                        product.output, &product.out, &algorithm, device->workspace,
                        cuda::kWorkspaceBytes, device->stream) == CUBLAS_STATUS_SUCCESS;
}

}  // namespace

std::vector<double> ProductSeconds(CohortCudaDevice* device, int64_t tokens, int64_t inner,
                                   int64_t columns, int repetitions) {
  const auto bytes = [](int64_t rows, int64_t width) {
    return static_cast<std::size_t>(2 * rows * width);
  };
  const DeviceMemory weights = Allocate(bytes(columns, inner));
  const DeviceMemory input = Allocate(bytes(tokens, inner));
  const DeviceMemory output = Allocate(bytes(tokens, columns));
  FillRandom(device, weights.get(), bytes(columns, inner));
  FillRandom(device, input.get(), bytes(tokens, inner));
  Product product;
  product.weights = weights.get();
  product.input = input.get();
  product.output = output.get();
  Algorithms algorithms{};
  const int found =
      Describe(tokens, inner, columns, &product) ? Propose(device, product, &algorithms) : 0;
  std::vector<double> best;
  const auto measure = [&](const cublasLtMatmulAlgo_t& algorithm, int times) {
    bool is_good = true;
    std::vector<double> seconds = DeviceSeconds(
        device, times, [&] { is_good = Multiply(device, product, algorithm) && is_good; });
    return is_good ? seconds : std::vector<double>{};
  };
  int chosen = -1;
  for (int i = 0; i < found; ++i) {
    const std::vector<double> seconds =
        measure(algorithms[static_cast<std::size_t>(i)].algo, kTrials);
    if (!seconds.empty() && (best.empty() || Median(seconds) < Median(best))) {
      best = seconds;
      chosen = i;
    }
  }
  if (chosen < 0) {
    std::fprintf(stderr, "cuBLASLt has no algorithm for %lld x %lld x %lld\n",
                 static_cast<long long>(tokens), static_cast<long long>(inner),
                 static_cast<long long>(columns));
    return {};
  }
  return measure(algorithms[static_cast<std::size_t>(chosen)].algo, repetitions);
}

}  // namespace cohort::gpu
