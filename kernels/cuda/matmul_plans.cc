#include "kernels/cuda/matmul_plans.h"

#include <algorithm>
#include <array>

namespace cohort::cuda {
namespace {

constexpr int64_t kPlanTokens = 128;
constexpr std::array<int64_t, 4> kCheckedTokens = {1, 16, kPlanTokens, 4096};

bool TakesAnyTokens(cublasLtHandle_t blas, const Product& product,
                    const cublasLtMatmulAlgo_t& algorithm) {
  return std::all_of(kCheckedTokens.begin(), kCheckedTokens.end(),
                     [&](int64_t tokens) { return Takes(blas, product, tokens, algorithm); });
}

}  // namespace

const cublasLtMatmulAlgo_t* MatMulPlans::For(cublasLtHandle_t blas, const Product& product,
                                             int64_t tokens) {
  Plan& plan = plans_[product];
  const auto range = plan.tuned.lower_bound(tokens);
  if (range != plan.tuned.end()) {
    return &range->second;
  }
  if (!plan.is_chosen) {
    plan.is_chosen = true;
    for (const cublasLtMatmulAlgo_t& candidate : Candidates(blas, product, kPlanTokens)) {
      if (TakesAnyTokens(blas, product, candidate)) {
        plan.is_there = true;
        plan.for_all = candidate;
        break;
      }
    }
  }
  return plan.is_there ? &plan.for_all : nullptr;
}

void MatMulPlans::Tune(const Product& product, int64_t tokens,
                       const cublasLtMatmulAlgo_t& algorithm) {
  plans_[product].tuned[tokens] = algorithm;
}

MatMulPlansPointer MakeMatMulPlans() { return MatMulPlansPointer(new MatMulPlans); }

void MatMulPlansDeleter::operator()(MatMulPlans* plans) const { delete plans; }

}  // namespace cohort::cuda
