// The products of a layer, as decode steps and prompts have them, and its experts. Weights of
// several layers take turns, so that the L2 cache holds none.
#include <algorithm>
#include <set>

#include "kernels/check.h"
#include "tests/gpu/bench_setup.h"
#include "tests/gpu/measurement.h"

namespace cohort::gpu {
namespace {

constexpr int64_t kLeastBytes = int64_t{256} << 20;  // of all copies of a weight: several L2 caches

double Bytes(int64_t rows, int64_t columns) { return 2.0 * static_cast<double>(rows * columns); }

struct NamedProduct {
  const char* name;
  int64_t columns, inner;
};

std::vector<NamedProduct> ProductsOf(const ModelConfig& config) {
  const ModelDims dims = config.Dims(DType::kBF16);
  const int64_t ffn = dims.sparse_layers > 0 ? dims.shared_expert_columns : dims.ffn_columns;
  return {{"qkv", (dims.query_heads + 2 * dims.kv_heads) * dims.head_dim, dims.hidden},
          {"out", dims.hidden, dims.query_heads * dims.head_dim},
          {"gate_up", 2 * ffn, dims.hidden},
          {"down", dims.hidden, ffn},
          {"head", dims.vocabulary, dims.hidden}};
}

// The experts of one layer, the batch that a step brings, and what lies between.
class ExpertsRun {
 public:
  ExpertsRun(Device& device, const ModelDims& dims, int64_t tokens)
      : device_(device),
        dims_(dims),
        x_(RandomTensor(device, {tokens, dims.hidden})),
        gate_up_(RandomTensor(device, {dims.experts, 2 * dims.expert_columns, dims.hidden})),
        down_(RandomTensor(device, {dims.experts, dims.hidden, dims.expert_columns})),
        pairs_(Allocate(device, {tokens * dims.experts_per_token, 2 * dims.expert_columns},
                        DType::kBF16)),
        activated_(
            Allocate(device, {tokens * dims.experts_per_token, dims.expert_columns}, DType::kBF16)),
        out_(Allocate(device, {tokens, dims.hidden}, DType::kF32)) {
    Route(tokens);
  }

  void Enqueue(int64_t call) {
    const size_t routing = static_cast<size_t>(call) % ids_.size();
    device_.ops().RoutedFfn(x_.view(), {ids_[routing].view(), weights_.view()},
                            {gate_up_.view(), down_.view(), 0}, {pairs_.view(), activated_.view()},
                            out_.view());
  }

  double expert_bytes() const { return 3 * Bytes(dims_.expert_columns, dims_.hidden); }
  double mean_distinct() const { return mean_distinct_; }

 private:
  static constexpr int64_t kRoutings = 16;  // that take turns

  void Route(int64_t tokens) {
    const int64_t k = dims_.experts_per_token;
    int64_t state = 12345;
    for (int64_t routing = 0; routing < kRoutings; ++routing) {
      std::vector<int32_t> ids;
      for (int64_t token = 0; token < tokens; ++token) {
        std::set<int32_t> chosen;
        while (static_cast<int64_t>(chosen.size()) < k) {
          state = state * 48271 % 2147483647;
          chosen.insert(static_cast<int32_t>(state % dims_.experts));
        }
        ids.insert(ids.end(), chosen.begin(), chosen.end());
      }
      mean_distinct_ += static_cast<double>(std::set<int32_t>(ids.begin(), ids.end()).size()) /
                        static_cast<double>(kRoutings);
      ids_.push_back(Integers(device_, {tokens, k}, ids));
    }
    const std::vector<float> weights(static_cast<size_t>(tokens * k), 1.0f / static_cast<float>(k));
    weights_ = Allocate(device_, {tokens, k}, DType::kF32);
    device_.CopyFromHost(weights.data(), weights_.view());
  }

  Device& device_;
  ModelDims dims_;
  Tensor x_, gate_up_, down_, pairs_, activated_, out_, weights_;
  std::vector<Tensor> ids_;
  double mean_distinct_ = 0;
};

}  // namespace

void MeasureProducts(int argc, char** argv) {
  const Flags flags = ParseFlags(
      argc, argv,
      WithCommonFlags(
          {{"model", "Qwen2-7B"}, {"tokens", "1,2,4,8,16,32,64,4096"}, {"calls", "32"}}));
  const std::unique_ptr<Device> device = OpenDevice(flags);
  for (const NamedProduct& product : ProductsOf(ConfigOf(flags.at("model")))) {
    const double bytes = Bytes(product.columns, product.inner);
    std::vector<Tensor> weights;
    do {
      weights.push_back(RandomTensor(*device, {product.columns, product.inner}));
    } while (static_cast<double>(weights.size()) * bytes < static_cast<double>(kLeastBytes));
    for (const int64_t tokens : Numbers(flags, "tokens")) {
      const Tensor x = RandomTensor(*device, {tokens, product.inner});
      const Tensor out = Allocate(*device, {tokens, product.columns}, DType::kBF16);
      const std::vector<double> seconds =
          SecondsPerCall(*device, Number(flags, "calls"), Number(flags, "rounds"), [&](int64_t i) {
            const Weight weight{weights[static_cast<size_t>(i) % weights.size()].view()};
            device->ops().MatMul(x.view(), weight, nullptr, out.view());
          });
      Print(
          {absl::StrCat("product.", ShortName(flags.at("model")), ".", product.name, ".m", tokens),
           seconds, bytes, static_cast<double>(tokens) * bytes});
    }
  }
}

void MeasureExperts(int argc, char** argv) {
  const Flags flags = ParseFlags(argc, argv,
                                 WithCommonFlags({{"model", "Qwen2-57B-A14B"},
                                                  {"batches", "1,8,16,64"},
                                                  {"tokens", "2048"},
                                                  {"calls", "32"}}));
  const std::unique_ptr<Device> device = OpenDevice(flags);
  const ModelDims dims = ConfigOf(flags.at("model")).Dims(DType::kBF16);
  CHECK_GT(dims.experts, 0) << flags.at("model") << " has no experts";
  const auto measure = [&](const std::string& row, int64_t tokens, int64_t calls) {
    ExpertsRun run(*device, dims, tokens);
    const std::vector<double> seconds =
        SecondsPerCall(*device, calls, Number(flags, "rounds"), [&](int64_t i) { run.Enqueue(i); });
    const double pairs = static_cast<double>(tokens * dims.experts_per_token);
    Print({row, seconds, run.mean_distinct() * run.expert_bytes(), pairs * run.expert_bytes(),
           absl::StrCat(run.mean_distinct(), " distinct experts, ",
                        pairs / static_cast<double>(dims.experts), " rows each")});
  };
  for (const int64_t batch : Numbers(flags, "batches")) {
    measure(absl::StrCat("experts.b", batch), batch, Number(flags, "calls"));
  }
  for (const int64_t tokens : Numbers(flags, "tokens")) {
    measure(absl::StrCat("experts.prefill.", tokens), tokens,
            std::max<int64_t>(Number(flags, "calls") / 8, 1));
  }
}

}  // namespace cohort::gpu
