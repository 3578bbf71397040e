#include "runtime/tuned_products.h"

#include <algorithm>

#include "runtime/qwen2.h"

namespace cohort {
namespace {

// Each doubles the one before: an algorithm that is good for so many tokens is near the best for
// somewhat fewer.
constexpr int64_t kFewestTokens = 32;
// Beyond it a product fills any device, and takes long to time.
constexpr int64_t kMostTokens = 8192;

// A library's fast algorithms want rows that begin at multiples of 16 bytes.
bool IsAligned(const ProductShape& product) {
  return product.in * SizeOf(product.dtype) % 16 == 0 &&
         product.out * SizeOf(product.out_dtype) % 16 == 0;
}

void AddProduct(ProductShape product, int64_t max_tokens, std::vector<ProductShape>& products) {
  if (product.in == 0 || product.out == 0 || !IsAligned(product)) {
    return;
  }
  const int64_t most = std::min(max_tokens, kMostTokens);
  for (int64_t tokens = kFewestTokens; tokens < most; tokens *= 2) {
    product.tokens = tokens;
    products.push_back(product);
  }
  product.tokens = most;
  products.push_back(product);
}

void AddFfn(int64_t hidden, int64_t columns, DType act, int64_t max_tokens,
            std::vector<ProductShape>& products) {
  AddProduct({.in = hidden, .out = 2 * columns, .dtype = act, .out_dtype = act}, max_tokens,
             products);
  AddProduct({.in = columns, .out = hidden, .dtype = act, .out_dtype = DType::kF32}, max_tokens,
             products);
}

}  // namespace

std::vector<ProductShape> TunedProductsOf(const ShardPlan& plan, DType act,
                                          int64_t max_batch_tokens) {
  const ModelDims& dims = plan.dims();
  const int64_t query_columns = plan.query_heads().size() * dims.head_dim;
  const int64_t kv_columns = plan.kv_heads().size() * dims.head_dim;
  std::vector<ProductShape> products;
  AddProduct({.in = dims.hidden,
              .out = query_columns + 2 * kv_columns,
              .dtype = act,
              .out_dtype = act,
              .has_bias = dims.qkv_bias},
             max_batch_tokens, products);
  AddProduct({.in = query_columns, .out = dims.hidden, .dtype = act, .out_dtype = DType::kF32},
             max_batch_tokens, products);
  AddFfn(dims.hidden, plan.ffn_columns().size(), act, max_batch_tokens, products);
  AddFfn(dims.hidden, plan.shared_expert_columns().size(), act, max_batch_tokens, products);
  AddProduct(
      {.in = dims.hidden, .out = plan.vocabulary().size(), .dtype = act, .out_dtype = DType::kF32},
      std::min(max_batch_tokens, Qwen2::kMaxLogitRows), products);
  return products;
}

}  // namespace cohort
