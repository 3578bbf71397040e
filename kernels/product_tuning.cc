#include "kernels/product_tuning.h"

#include <vector>

#include "kernels/plugin_device.h"
#include "kernels/plugin_library.h"

namespace cohort {

absl::StatusOr<ProductTuning> TuneProducts(Device& device, absl::Span<const ProductShape> products,
                                           const std::string& file) {
  if (device.kind() != "cuda" || products.empty()) {
    return ProductTuning();
  }
  auto& plugin = static_cast<PluginDevice&>(device);
  std::vector<CohortCudaProduct> shapes;
  shapes.reserve(products.size());
  for (const ProductShape& product : products) {
    shapes.push_back({.rows = product.out,
                      .columns = product.in,
                      .tokens = product.tokens,
                      .dtype = static_cast<int32_t>(product.dtype),
                      .out_dtype = static_cast<int32_t>(product.out_dtype),
                      .has_bias = product.has_bias ? 1 : 0});
  }
  CohortCudaTuning tuning{};
  RETURN_IF_ERROR(Annotate(FromPlugin(plugin.table()->tune_mat_mul(
                               plugin.handle(), shapes.data(), static_cast<int64_t>(shapes.size()),
                               file.empty() ? nullptr : file.c_str(), &tuning)),
                           device.description()));
  return ProductTuning{tuning.known, tuning.measured, tuning.note};
}

}  // namespace cohort
