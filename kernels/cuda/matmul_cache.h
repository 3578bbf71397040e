// The file that keeps the algorithms which tuning has found, so that it is done once per machine.
// One line names what they were measured with, one line each algorithm:
//
//   cohort cublaslt 1 | NVIDIA H200 | driver 13000 | cublaslt 130100
//   inner 3584 columns 4608 dtype 1 out 1 bias 1 tokens 64 microseconds 12.25 algorithm 2f00...
#ifndef COHORT_KERNELS_CUDA_MATMUL_CACHE_H_
#define COHORT_KERNELS_CUDA_MATMUL_CACHE_H_

#include <cublasLt.h>

#include <map>
#include <string>
#include <utility>

#include "kernels/cuda/matmul_product.h"

namespace cohort::cuda {

struct TunedAlgorithm {
  cublasLtMatmulAlgo_t algorithm{};
  float microseconds = 0;
};
// By product and tokens.
using TunedAlgorithms = std::map<std::pair<Product, int64_t>, TunedAlgorithm>;

// The first line of a file of this device.
std::string MatMulCacheHeader(const CohortCudaDevice& device);

// What the file holds, and nothing when it is not there. A file with another first line or a line
// that is no algorithm gives nothing; then `note` says so in one line.
TunedAlgorithms ReadMatMulCache(const std::string& path, const std::string& header,
                                std::string* note);

// Adds `measured` to what the file holds by now: ranks of one machine that start together share it,
// each with the products of its own slices. The file is replaced at once, so that a process that
// reads it sees the old or the new one. False, and a note, when that fails.
bool AddToMatMulCache(const std::string& path, const std::string& header,
                      const TunedAlgorithms& measured, std::string* note);

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_MATMUL_CACHE_H_
