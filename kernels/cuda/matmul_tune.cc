// Chooses cuBLASLt's algorithms by the clock: every candidate of the heuristics computes the
// product a few times, with random numbers (zeros would run faster) and with other weights each
// time, so that none is found in L2.
#include <algorithm>
#include <array>
#include <cstdio>
#include <optional>
#include <string>

#include "kernels/cuda/device.h"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/matmul_cache.h"
#include "kernels/cuda/matmul_plans.h"
#include "kernels/cuda/matmul_product.h"

namespace cohort::cuda {
namespace {

constexpr int kTimedRuns = 5;
// More than any L2 holds.
constexpr int64_t kRotatedBytes = int64_t{192} << 20;
constexpr int64_t kMaxRotated = 64;

// Memory and events of one product's measurement.
class Bench {
 public:
  Bench(CohortCudaDevice* device, const Product& product, int64_t tokens)
      : device_(device), product_(product), tokens_(tokens), strides_(PlannedStrides(product)) {}
  ~Bench() {
    cudaFree(memory_);
    for (const cudaEvent_t event : events_) {
      if (event != nullptr) {
        cudaEventDestroy(event);
      }
    }
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  CohortCudaError Prepare();
  // Nothing where the candidate does not run. `error` is set by what ends all measurements.
  std::optional<float> Microseconds(const cublasLtMatmulAlgo_t& candidate, CohortCudaError* error);

 private:
  static int64_t RoundUp(int64_t bytes) { return (bytes + 255) / 256 * 256; }
  int64_t WeightBytes() const {
    return RoundUp(product_.columns * strides_.weight * BytesOf(product_.dtype));
  }
  int64_t Rotated() const {
    return std::clamp<int64_t>((kRotatedBytes + WeightBytes() - 1) / WeightBytes(), 1, kMaxRotated);
  }
  int64_t XBytes() const { return RoundUp(tokens_ * strides_.x * BytesOf(product_.dtype)); }
  int64_t OutBytes() const { return RoundUp(tokens_ * strides_.out * BytesOf(product_.out_dtype)); }
  int64_t BiasBytes() const { return RoundUp(product_.columns * BytesOf(product_.out_dtype)); }
  cublasStatus_t Run(const cublasLtMatmulAlgo_t& candidate, int64_t run) const;

  CohortCudaDevice* device_;
  Product product_;
  int64_t tokens_;
  Strides strides_;
  char* memory_ = nullptr;  // weights, x, out, bias
  std::array<cudaEvent_t, 2> events_{};
};

CohortCudaError Bench::Prepare() {
  const int64_t bytes = Rotated() * WeightBytes() + XBytes() + OutBytes() + BiasBytes();
  void* memory = nullptr;
  cudaError_t result = cudaMalloc(&memory, static_cast<std::size_t>(bytes));
  if (result != cudaSuccess) {
    return FromCuda(result, "memory to tune products in");
  }
  memory_ = static_cast<char*>(memory);
  FillRandom(device_, memory_, bytes, product_.dtype);
  for (cudaEvent_t& event : events_) {
    result = cudaEventCreate(&event);
    if (result != cudaSuccess) {
      return FromCuda(result, "cudaEventCreate");
    }
  }
  return Ok();
}

cublasStatus_t Bench::Run(const cublasLtMatmulAlgo_t& candidate, int64_t run) const {
  char* const x = memory_ + Rotated() * WeightBytes();
  return Multiply(device_, product_, tokens_, candidate,
                  {.x = x,
                   .weight = memory_ + run % Rotated() * WeightBytes(),
                   .bias = x + XBytes() + OutBytes(),
                   .out = x + XBytes(),
                   .strides = strides_});
}

std::optional<float> Bench::Microseconds(const cublasLtMatmulAlgo_t& candidate,
                                         CohortCudaError* error) {
  if (Run(candidate, 0) != CUBLAS_STATUS_SUCCESS) {
    return std::nullopt;
  }
  cudaError_t result = cudaEventRecord(events_[0], device_->stream);
  for (int64_t run = 1; run <= kTimedRuns; ++run) {
    if (Run(candidate, run) != CUBLAS_STATUS_SUCCESS) {
      return std::nullopt;
    }
  }
  if (result == cudaSuccess) {
    result = cudaEventRecord(events_[1], device_->stream);
  }
  if (result == cudaSuccess) {
    result = cudaEventSynchronize(events_[1]);
  }
  float milliseconds = 0;
  if (result == cudaSuccess) {
    result = cudaEventElapsedTime(&milliseconds, events_[0], events_[1]);
  }
  if (result != cudaSuccess) {
    *error = FromCuda(result, "tuning a product");
    return std::nullopt;
  }
  return milliseconds * 1000 / kTimedRuns;
}

// Whether `algorithm` serves a range of tokens up to `tokens`.
bool TakesUpTo(cublasLtHandle_t blas, const Product& product, int64_t tokens,
               const cublasLtMatmulAlgo_t& algorithm) {
  return Takes(blas, product, tokens, algorithm) &&
         Takes(blas, product, tokens / 2 + 1, algorithm) && Takes(blas, product, 1, algorithm);
}

// The fastest candidate; nothing where cuBLASLt has none.
std::optional<TunedAlgorithm> Measure(CohortCudaDevice* device, const Product& product,
                                      int64_t tokens, CohortCudaError* error) {
  Bench bench(device, product, tokens);
  *error = bench.Prepare();
  std::optional<TunedAlgorithm> best;
  if (error->code != kCohortCudaOk) {
    return best;
  }
  for (const cublasLtMatmulAlgo_t& candidate : Candidates(device->blas, product, tokens)) {
    if (!TakesUpTo(device->blas, product, tokens, candidate)) {
      continue;
    }
    const std::optional<float> microseconds = bench.Microseconds(candidate, error);
    if (error->code != kCohortCudaOk) {
      return std::nullopt;
    }
    if (microseconds.has_value() && (!best.has_value() || *microseconds < best->microseconds)) {
      best = TunedAlgorithm{candidate, *microseconds};
    }
  }
  return best;
}

Product ProductOf(const CohortCudaProduct& product) {
  return {product.columns, product.rows, product.dtype, product.out_dtype, product.has_bias != 0};
}

// Takes what is known into the device's plans and measures the rest.
CohortCudaError TuneAll(CohortCudaDevice* device, const CohortCudaProduct* products, int64_t count,
                        const TunedAlgorithms& known, TunedAlgorithms* measured,
                        CohortCudaTuning* tuning) {
  for (int64_t i = 0; i < count; ++i) {
    const Product product = ProductOf(products[i]);
    const int64_t tokens = products[i].tokens;
    const auto found = known.find({product, tokens});
    if (found != known.end() && TakesUpTo(device->blas, product, tokens, found->second.algorithm)) {
      device->plans->Tune(product, tokens, found->second.algorithm);
      ++tuning->known;
      continue;
    }
    CohortCudaError error = Ok();
    const std::optional<TunedAlgorithm> best = Measure(device, product, tokens, &error);
    if (error.code != kCohortCudaOk) {
      return error;
    }
    if (best.has_value()) {
      device->plans->Tune(product, tokens, best->algorithm);
      (*measured)[{product, tokens}] = *best;
      ++tuning->measured;
    }
  }
  return Ok();
}

}  // namespace

CohortCudaError TuneMatMul(CohortCudaDevice* device, const CohortCudaProduct* products,
                           int64_t count, const char* path, CohortCudaTuning* tuning) noexcept {
  Activate(device);
  *tuning = {};
  std::string note;
  const std::string header = MatMulCacheHeader(*device);
  TunedAlgorithms known;
  if (path != nullptr) {
    known = ReadMatMulCache(path, header, &note);
  }
  TunedAlgorithms measured;
  const CohortCudaError error = TuneAll(device, products, count, known, &measured, tuning);
  if (path != nullptr && !measured.empty() && error.code == kCohortCudaOk) {
    AddToMatMulCache(path, header, measured, &note);
  }
  std::snprintf(tuning->note, sizeof(tuning->note), "%s", note.c_str());
  return error;
}

}  // namespace cohort::cuda
