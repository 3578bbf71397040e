// The algorithms that a device's products use.
//
// cuBLASLt's heuristics choose by the number of tokens, and then a row's bits would depend on how
// many others are in the batch. So a product that nobody has tuned chooses once an algorithm that
// takes any number of tokens; tile and K split stay fixed from then on. A tuned product
// (matmul_tune.cc) has the fastest algorithm for each range of tokens instead, and its rows' bits
// depend on the range.
#ifndef COHORT_KERNELS_CUDA_MATMUL_PLANS_H_
#define COHORT_KERNELS_CUDA_MATMUL_PLANS_H_

#include <cublasLt.h>

#include <map>

#include "kernels/cuda/matmul_product.h"

namespace cohort::cuda {

class MatMulPlans {
 public:
  // Null when cuBLASLt has no algorithm for the product. Asks the heuristics where neither a tuned
  // nor an earlier choice is known.
  const cublasLtMatmulAlgo_t* For(cublasLtHandle_t blas, const Product& product, int64_t tokens);

  // From now on for the numbers of tokens from the next smaller tuned one (exclusive) to `tokens`;
  // more than the largest tuned one, for which its workspace might not do, take the untuned choice.
  void Tune(const Product& product, int64_t tokens, const cublasLtMatmulAlgo_t& algorithm);

 private:
  struct Plan {
    bool is_chosen = false;
    bool is_there = false;
    cublasLtMatmulAlgo_t for_all{};
    std::map<int64_t, cublasLtMatmulAlgo_t> tuned;  // by the largest number of tokens
  };
  std::map<Product, Plan> plans_;  // a handful per model
};

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_MATMUL_PLANS_H_
