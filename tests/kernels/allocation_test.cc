// Operations allocate nothing once they have seen their largest step.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#include "tests/kernels/devices.h"

namespace {

std::atomic<int64_t> allocations{0};

[[gnu::noinline]] void* Allocate(size_t bytes, size_t alignment) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  void* memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  return memory;
}

void* AllocateOrThrow(size_t bytes, size_t alignment) {
  void* memory = Allocate(bytes, alignment);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  return memory;
}

// Not inlined: the compiler would see std::free() where it expects operator new's own counterpart.
[[gnu::noinline]] void Free(void* memory) { std::free(memory); }

}  // namespace

// Of the whole program: the other tests run through them too.
void* operator new(size_t bytes) { return AllocateOrThrow(bytes, alignof(std::max_align_t)); }
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  return Allocate(bytes, alignof(std::max_align_t));
}
void* operator new(size_t bytes, std::align_val_t alignment) {
  return AllocateOrThrow(bytes, static_cast<size_t>(alignment));
}
void operator delete(void* memory) noexcept { Free(memory); }
void operator delete(void* memory, size_t) noexcept { Free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { Free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { Free(memory); }

namespace cohort {
namespace {

// A layer of a small model for up to kTokens rows, all tensors allocated beforehand.
class Layer {
 public:
  static constexpr int64_t kTokens = 150;

  Layer(Device& device, DType act) : device_(device), act_(act) {
    const auto kv = Shape{kTokens, 2, 1, kHeadDim};
    for (int32_t i = 0; i < kTokens; ++i) {
      indices_.view().As<int32_t>()[i] = i;
    }
    keys_ = Make(kv);
    values_ = Make(kv);
  }

  // The last `tokens` positions of a sequence of kTokens.
  void Run(int64_t tokens) {
    const int64_t first = kTokens - tokens;
    Ops& ops = device_.ops();
    const auto rows = [&](const Tensor& tensor) { return tensor.view().Rows(0, tokens); };
    const TensorView table(indices_.view().data, DType::kI32, Shape{1, kTokens});
    const TensorView positions = indices_.view().Rows(first, tokens);
    first_rows_.view().As<int32_t>()[1] = static_cast<int32_t>(tokens);
    const BatchView batch{.tokens = tokens,
                          .sequences = 1,
                          .positions = positions,
                          .sequence_of_token = rows(zeros_),
                          .block_table = table,
                          .rope_rows = positions,
                          .first_rows = first_rows_.view(),
                          .leading_decodes = tokens == 1 ? 1 : 0,
                          .longest_chunk = tokens};
    const KvView kv{keys_.view(), values_.view()};
    const RopeTable rope{cosine_.view(), cosine_.view()};
    const TensorView queries = rows(qkv_).Columns(0, kHeads * kHeadDim);
    ops.AddRmsNorm(rows(x_), rows(partial_), gamma_.view(), 1e-6f, rows(normed_));
    ops.ProjectQkv(rows(normed_), {qkv_weight_.view()}, nullptr, rows(qkv_), kHeads, rope, batch,
                   kv);
    ops.PagedAttention(queries, kv_head_of_query_, batch, kv, 1, rows(attended_));
    ops.MatMul(rows(attended_), {out_weight_.view()}, nullptr, rows(partial_));
    ops.ProjectGateUp(rows(normed_), {ffn_weight_.view()}, rows(gate_up_), rows(activated_));
    const Routing routing{rows(expert_ids_), rows(expert_weights_)};
    ops.RouteTopK(rows(router_logits_), true, routing);
    ops.RoutedFfn(rows(normed_), routing, {experts_up_.view(), experts_down_.view(), 1},
                  {expert_gate_up_.view(), expert_activated_.view()}, rows(partial_));
    ops.CountIds(rows(expert_ids_), expert_counts_.view());
    ops.AddGated(rows(partial_), rows(router_logits_).Columns(0, 1), rows(partial_));
  }

 private:
  static constexpr int64_t kHidden = 37;  // no multiple of a vector: rows are copied
  static constexpr int64_t kHeads = 14;
  static constexpr int64_t kHeadDim = 6;
  static constexpr int64_t kExperts = 4;
  static constexpr int64_t kChosen = 3;

  Tensor Make(Shape shape) { return Make(shape, act_); }
  Tensor Make(Shape shape, DType dtype) {
    absl::StatusOr<Tensor> tensor = device_.Allocate(shape, dtype);
    CHECK_OK(tensor.status());
    std::memset(tensor->view().data, 0, static_cast<size_t>(tensor->bytes()));
    return *std::move(tensor);
  }

  Device& device_;
  DType act_;
  const std::vector<int32_t> kv_head_of_query_ = {0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1};
  Tensor indices_ = Make({kTokens}, DType::kI32);
  Tensor zeros_ = Make({kTokens}, DType::kI32);
  Tensor first_rows_ = Make({2}, DType::kI32);
  Tensor cosine_ = Make({kTokens, kHeadDim / 2}, DType::kF32);
  Tensor x_ = Make({kTokens, kHidden});
  Tensor normed_ = Make({kTokens, kHidden});
  Tensor gamma_ = Make({kHidden});
  Tensor partial_ = Make({kTokens, kHidden}, DType::kF32);
  Tensor qkv_ = Make({kTokens, (kHeads + 4) * kHeadDim});
  Tensor attended_ = Make({kTokens, kHeads* kHeadDim});
  Tensor gate_up_ = Make({kTokens, 2 * kHidden});
  Tensor activated_ = Make({kTokens, kHidden});
  Tensor qkv_weight_ = Make({(kHeads + 4) * kHeadDim, kHidden});
  Tensor out_weight_ = Make({kHidden, kHeads* kHeadDim});
  Tensor ffn_weight_ = Make({2 * kHidden, kHidden});
  Tensor router_logits_ = Make({kTokens, kExperts});
  Tensor expert_ids_ = Make({kTokens, kChosen}, DType::kI32);
  Tensor expert_weights_ = Make({kTokens, kChosen}, DType::kF32);
  Tensor expert_counts_ = Make({kExperts}, DType::kI32);
  Tensor experts_up_ = Make({kExperts, 2 * kHidden, kHidden});
  Tensor experts_down_ = Make({kExperts, kHidden, kHidden});
  Tensor expert_gate_up_ = Make({kTokens * kChosen, 2 * kHidden});
  Tensor expert_activated_ = Make({kTokens * kChosen, kHidden});
  Tensor keys_, values_;
};

TEST(CpuOps, AllocateNothingAfterTheLargestStep) {
  for (DeviceOptions options : TestDevices()) {
    if (options.kind != "cpu") {
      continue;
    }
    absl::StatusOr<std::unique_ptr<Device>> device = Device::Create(options);
    ASSERT_TRUE(device.ok()) << device.status();
    SCOPED_TRACE((*device)->description());
    for (const DType act : {DType::kF32, DType::kBF16}) {
      Layer layer(**device, act);
      // The most tokens, and the most sequences' worth of runs.
      layer.Run(Layer::kTokens);
      const int64_t before = allocations.load();
      for (const int64_t tokens : {Layer::kTokens, int64_t{1}, int64_t{16}, int64_t{33}}) {
        layer.Run(tokens);
      }
      EXPECT_EQ(allocations.load(), before);
    }
  }
}

}  // namespace
}  // namespace cohort
