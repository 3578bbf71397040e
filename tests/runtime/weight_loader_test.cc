#include "runtime/weight_loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <utility>

#include "kernels/forwarding_device.h"
#include "runtime/checkpoint_source.h"
#include "runtime/weight_stream.h"
#include "runtime/weights.h"
#include "tests/runtime/checkpoint_writer.h"

namespace cohort {
namespace {

std::vector<float> Values(const Tensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.view().shape.elements()));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = tensor.view().dtype == DType::kF32 ? tensor.view().As<float>()[i]
                                                   : tensor.view().As<BFloat16>()[i].ToFloat();
  }
  return values;
}

// rows x columns of a tensor of `stored_columns`, as TensorsOf() stores it.
void AppendStored(StringView name, Range rows, Range columns, int64_t stored_columns,
                  std::vector<float>& values) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    for (int64_t column = columns.begin; column < columns.end; ++column) {
      values.push_back(StoredValue(name, row * stored_columns + column));
    }
  }
}

Range Scaled(Range range, int64_t factor) { return {range.begin * factor, range.end * factor}; }

class WeightLoaderTest : public testing::Test {
 protected:
  WeightLoaderTest() {
    auto device = Device::Create(DeviceOptions{});
    CHECK_OK(device.status());
    device_ = *std::move(device);
  }

  ModelWeights Load(const ModelConfig& config, const ShardPlan& plan, WeightSource& source,
                    DType dtype) {
    auto weights = LoadWeights(config, plan, source, dtype, *device_, nullptr);
    CHECK_OK(weights.status());
    return *std::move(weights);
  }

  std::unique_ptr<Device> device_;
};

// As a device's own memory is filled: through buffers so small that most tensors take several, or
// from windows of the file so small that many lie across two.
class StreamedSource final : public WeightSource {
 public:
  explicit StreamedSource(const Checkpoint& checkpoint, int64_t window_bytes = 0)
      : reader_(checkpoint), window_bytes_(window_bytes) {}
  absl::Status Fill(absl::Span<const WeightPiece> pieces, Device& device,
                    const LoadedBytes& report) override {
    return StreamWeights(pieces, reader_,
                         {.readers = 3,
                          .buffers = 3,
                          .buffer_bytes = 100,
                          .queues = 2,
                          .window_bytes = window_bytes_},
                         device, report);
  }

 private:
  CheckpointReader reader_;
  const int64_t window_bytes_;
};

// Notes what is pinned; refuses once it has no more pins.
class PinningDevice : public ForwardingDevice {
 public:
  PinningDevice(std::unique_ptr<Device> device, int pins)
      : ForwardingDevice(std::move(device)), pins_(pins) {}
  absl::StatusOr<std::unique_ptr<PinnedHost>> PinHost(const void* begin, int64_t bytes) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (--pins_ < 0) {
      return absl::ResourceExhaustedError("no more pins");
    }
    pinned_.emplace_back(reinterpret_cast<uintptr_t>(begin), static_cast<uintptr_t>(bytes));
    return std::make_unique<PinnedHost>();
  }
  // Ascending.
  std::vector<std::pair<uintptr_t, uintptr_t>> pinned() const {
    auto sorted = pinned_;
    std::sort(sorted.begin(), sorted.end());
    return sorted;
  }

 private:
  std::mutex mutex_;  // guards what follows
  int pins_;
  std::vector<std::pair<uintptr_t, uintptr_t>> pinned_;
};

ShardPlan PlanOf(const ModelConfig& config, int tp, int rank, DType dtype, int ep = 1) {
  const auto plan = ShardPlan::Make(config.Dims(dtype), {.tp = tp, .ep = ep}, rank);
  CHECK_OK(plan.status());
  return *plan;
}

void ExpectSlices(const ModelWeights& weights, const ModelConfig& config, const ShardPlan& plan) {
  const Range queries = Scaled(plan.query_heads(), config.head_dim);
  const Range keys = Scaled(plan.kv_heads(), config.head_dim);
  const Range all = {0, config.hidden};
  const std::string prefix = "model.layers.1.";
  const LayerWeights& layer = weights.layers[1];
  std::vector<float> qkv, bias, out, gate_up, down, embedding, head;
  for (const auto& [name, rows] : {std::pair("q", queries), {"k", keys}, {"v", keys}}) {
    const std::string projection = absl::StrCat(prefix, "self_attn.", name, "_proj.");
    AppendStored(projection + "weight", rows, all, config.hidden, qkv);
    AppendStored(projection + "bias", rows, {0, 1}, 1, bias);
  }
  AppendStored(prefix + "self_attn.o_proj.weight", all, queries,
               config.query_heads * config.head_dim, out);
  AppendStored(prefix + "mlp.gate_proj.weight", plan.ffn_columns(), all, config.hidden, gate_up);
  AppendStored(prefix + "mlp.up_proj.weight", plan.ffn_columns(), all, config.hidden, gate_up);
  AppendStored(prefix + "mlp.down_proj.weight", all, plan.ffn_columns(), config.ffn_columns, down);
  AppendStored("model.embed_tokens.weight", plan.vocabulary(), all, config.hidden, embedding);
  AppendStored("lm_head.weight", plan.vocabulary(), all, config.hidden, head);
  EXPECT_EQ(Values(layer.qkv), qkv);
  EXPECT_EQ(Values(layer.qkv_bias), bias);
  EXPECT_EQ(Values(layer.attention_out), out);
  EXPECT_EQ(Values(layer.gate_up), gate_up);
  EXPECT_EQ(Values(layer.down), down);
  EXPECT_EQ(Values(weights.embedding), embedding);
  EXPECT_EQ(Values(weights.untied_head), head);
}

TEST_F(WeightLoaderTest, EveryRankHoldsItsSlicesOfEveryStoredDType) {
  const ModelConfig config = TinyConfig({});
  for (const StringView stored : {"F32", "F16", "BF16"}) {
    const TemporaryDirectory directory;
    // An odd number of leading bytes: data of any alignment.
    std::vector<WrittenTensor> tensors = TensorsOf(config, stored);
    tensors.insert(tensors.begin(), {"odd", "U8", {3}, "xyz"});
    directory.Write("model.safetensors", SafetensorsFile(tensors));
    const auto checkpoint = Checkpoint::Open(directory.path());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (int rank = 0; rank < 3; ++rank) {
        SCOPED_TRACE(absl::StrCat(stored, " as ", NameOf(dtype), " on rank ", rank));
        const ShardPlan plan = PlanOf(config, 3, rank, dtype);
        const auto source = MakeCheckpointSource(**checkpoint);
        ExpectSlices(Load(config, plan, *source, dtype), config, plan);
        StreamedSource streamed(**checkpoint);
        ExpectSlices(Load(config, plan, streamed, dtype), config, plan);
      }
    }
  }
}

// Layer 1 of 2 is sparse.
ModelConfig ExpertsConfig() {
  ModelConfig config = TinyConfig({});
  config.experts = 5;
  config.experts_per_token = 2;
  config.expert_columns = 9;
  config.shared_expert_columns = 14;
  config.sparse_step = 2;
  return config;
}

void ExpectExpertSlices(const LayerWeights& layer, const ModelConfig& config,
                        const ShardPlan& plan) {
  const std::string mlp = "model.layers.1.mlp.";
  const Range hidden = {0, config.hidden};
  std::vector<float> router, gate_up, down, shared_gate_up, shared_down;
  AppendStored(mlp + "gate.weight", {0, config.experts}, hidden, config.hidden, router);
  AppendStored(mlp + "shared_expert_gate.weight", {0, 1}, hidden, config.hidden, router);
  for (int64_t expert = plan.experts().begin; expert < plan.experts().end; ++expert) {
    const std::string name = absl::StrCat(mlp, "experts.", expert, ".");
    const Range columns = plan.expert_columns();
    AppendStored(name + "gate_proj.weight", columns, hidden, config.hidden, gate_up);
    AppendStored(name + "up_proj.weight", columns, hidden, config.hidden, gate_up);
    AppendStored(name + "down_proj.weight", hidden, columns, config.expert_columns, down);
  }
  const Range shared = plan.shared_expert_columns();
  AppendStored(mlp + "shared_expert.gate_proj.weight", shared, hidden, config.hidden,
               shared_gate_up);
  AppendStored(mlp + "shared_expert.up_proj.weight", shared, hidden, config.hidden, shared_gate_up);
  AppendStored(mlp + "shared_expert.down_proj.weight", hidden, shared, config.shared_expert_columns,
               shared_down);
  EXPECT_EQ(Values(layer.router), router);
  EXPECT_EQ(Values(layer.expert_gate_up), gate_up);
  EXPECT_EQ(Values(layer.expert_down), down);
  EXPECT_EQ(Values(layer.gate_up), shared_gate_up);
  EXPECT_EQ(Values(layer.down), shared_down);
}

TEST_F(WeightLoaderTest, EveryRankHoldsItsSlicesOfExperts) {
  const ModelConfig config = ExpertsConfig();
  const TemporaryDirectory directory;
  directory.Write("model.safetensors", SafetensorsFile(TensorsOf(config, "BF16")));
  const auto checkpoint = Checkpoint::Open(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto source = MakeCheckpointSource(**checkpoint);
  for (const auto& [tp, ep] : {std::pair(1, 1), {2, 1}, {2, 2}, {3, 3}, {3, 1}}) {
    for (int rank = 0; rank < tp; ++rank) {
      SCOPED_TRACE(absl::StrCat("rank ", rank, " of ", tp, ", ep ", ep));
      const ShardPlan plan = PlanOf(config, tp, rank, DType::kF32, ep);
      const ModelWeights weights = Load(config, plan, *source, DType::kF32);
      EXPECT_FALSE(weights.layers[0].is_sparse());
      ASSERT_TRUE(weights.layers[1].is_sparse());
      ExpectExpertSlices(weights.layers[1], config, plan);
      EXPECT_EQ(weights.bytes(), plan.weight_bytes());
    }
  }
}

TEST_F(WeightLoaderTest, TheEmbeddingMayLieInHostMemory) {
  const ModelConfig config = TinyConfig({});
  const ShardPlan plan = PlanOf(config, 2, 1, DType::kBF16);
  const auto source = MakeDummySource();
  const ModelWeights expected = Load(config, plan, *source, DType::kBF16);
  const auto weights = LoadWeights(config, plan, *source, DType::kBF16, *device_, nullptr,
                                   /*host_embedding=*/true);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(Values(weights->embedding), Values(expected.embedding));
  EXPECT_EQ(Values(weights->untied_head), Values(expected.untied_head));
}

TEST_F(WeightLoaderTest, StreamedWeightsReportEveryByteOnce) {
  const ModelConfig config = ExpertsConfig();
  const TemporaryDirectory directory;
  directory.Write("model.safetensors", SafetensorsFile(TensorsOf(config, "BF16")));
  const auto checkpoint = Checkpoint::Open(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  StreamedSource source(**checkpoint);
  const ShardPlan plan = PlanOf(config, 2, 0, DType::kF32);
  int64_t done = 0;
  const auto weights = LoadWeights(config, plan, source, DType::kF32, *device_,
                                   [&](int64_t done_bytes, int64_t) { done = done_bytes; });
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(done, plan.weight_bytes());
  ExpectExpertSlices(weights->layers[1], config, plan);
}

// Tensors in BF16 whose data begin at an even byte, as writers of the format see to.
std::string EvenFile(const ModelConfig& config) {
  std::string file;
  for (const char* name : {"a", "aa"}) {
    std::vector<WrittenTensor> tensors = TensorsOf(config, "BF16");
    tensors.insert(tensors.begin(), {name, "U8", {0}, ""});
    file = SafetensorsFile(tensors);
    if (file[0] % 2 == 0) {  // the length of the header
      break;
    }
  }
  return file;
}

TEST_F(WeightLoaderTest, WeightsMayComeFromPinnedWindowsOfTheFile) {
  constexpr int64_t kPage = 4096;
  const ModelConfig config = ExpertsConfig();
  const TemporaryDirectory directory;
  directory.Write("model.safetensors", EvenFile(config));
  const auto checkpoint = Checkpoint::Open(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const ShardPlan plan = PlanOf(config, 2, 1, DType::kBF16);  // some matrices lie ready, some not
  StreamedSource source(**checkpoint, kPage);
  PinningDevice device(*Device::Create(DeviceOptions{}), 1000);
  int64_t done = 0;
  const auto weights = LoadWeights(config, plan, source, DType::kBF16, device,
                                   [&](int64_t done_bytes, int64_t) { done = done_bytes; });
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(done, plan.weight_bytes());
  ExpectExpertSlices(weights->layers[1], config, plan);
  uintptr_t end = 0;
  for (const auto& [begin, bytes] : device.pinned()) {
    EXPECT_EQ(begin % kPage, 0u);
    EXPECT_EQ(bytes, uintptr_t{kPage});
    EXPECT_GE(begin, end) << "a page is pinned twice";
    end = begin + bytes;
  }
  EXPECT_GT(device.pinned().size(), 2u);
}

TEST_F(WeightLoaderTest, AWindowThatCannotBePinnedIsAnError) {
  const ModelConfig config = TinyConfig({});
  const TemporaryDirectory directory;
  directory.Write("model.safetensors", EvenFile(config));
  const auto checkpoint = Checkpoint::Open(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  StreamedSource source(**checkpoint, 4096);
  PinningDevice device(*Device::Create(DeviceOptions{}), 0);
  const absl::Status status =
      LoadWeights(config, PlanOf(config, 1, 0, DType::kBF16), source, DType::kBF16, device, nullptr)
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("no more pins"), StringView::npos) << status;
}

TEST_F(WeightLoaderTest, AModelMayHaveNoBiases) {
  ModelConfig config = ExpertsConfig();
  config.qkv_bias = false;
  const ShardPlan plan = PlanOf(config, 2, 1, DType::kBF16);
  const auto source = MakeDummySource();
  const ModelWeights weights = Load(config, plan, *source, DType::kBF16);
  EXPECT_EQ(weights.layers[0].bias(), nullptr);
  EXPECT_EQ(weights.bytes(), plan.weight_bytes());
}

TEST_F(WeightLoaderTest, TheHeadOfATiedModelIsItsEmbedding) {
  const ModelConfig config = TinyConfig({.is_tied = true});
  const auto source = MakeDummySource();
  const ModelWeights tied = Load(config, PlanOf(config, 1, 0, DType::kF32), *source, DType::kF32);
  EXPECT_EQ(tied.head().data, tied.embedding.view().data);
}

TEST_F(WeightLoaderTest, ReportsProgressUpToTheTotalAndBytesAsPlanned) {
  const ModelConfig config = TinyConfig({});
  const ShardPlan plan = PlanOf(config, 3, 1, DType::kF32);
  const auto source = MakeDummySource();
  int64_t last = 0, total = 0;
  const auto progress = [&](int64_t done_bytes, int64_t total_bytes) {
    EXPECT_GT(done_bytes, last);
    last = done_bytes;
    total = total_bytes;
  };
  const auto weights = LoadWeights(config, plan, *source, DType::kF32, *device_, progress);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(last, total);
  EXPECT_EQ(weights->bytes(), total);
  EXPECT_EQ(plan.weight_bytes(), total);
}

TEST_F(WeightLoaderTest, DummyWeightsAreTheSameModelAtEveryDegree) {
  const ModelConfig config = TinyConfig({});
  const auto source = MakeDummySource();
  const ModelWeights whole = Load(config, PlanOf(config, 1, 0, DType::kF32), *source, DType::kF32);
  for (int rank = 0; rank < 3; ++rank) {
    const ShardPlan plan = PlanOf(config, 3, rank, DType::kF32);
    const ModelWeights part = Load(config, plan, *source, DType::kF32);
    const TensorView down = part.layers[0].down.view();
    for (int64_t row = 0; row < down.rows(); ++row) {
      for (int64_t column = 0; column < down.columns(); ++column) {
        EXPECT_EQ(down.Row<float>(row)[column],
                  whole.layers[0].down.view().Row<float>(row)[plan.ffn_columns().begin + column]);
      }
    }
  }
}

TEST_F(WeightLoaderTest, DummyWeightsHaveUnitNormsAndStandardDeviationTwoPercent) {
  const ModelConfig config = TinyConfig({.hidden = 96, .vocabulary = 500});
  const auto source = MakeDummySource();
  const ModelWeights weights =
      Load(config, PlanOf(config, 1, 0, DType::kF32), *source, DType::kF32);
  EXPECT_EQ(Values(weights.final_norm), std::vector<float>(96, 1.0f));
  EXPECT_EQ(Values(weights.layers[0].ffn_norm), std::vector<float>(96, 1.0f));
  double sum = 0, squares = 0;
  const std::vector<float> values = Values(weights.embedding);
  for (const float value : values) {
    sum += value;
    squares += static_cast<double>(value) * value;
  }
  const double count = static_cast<double>(values.size());
  // Five standard errors of the mean and of the deviation of 48,000 uniform numbers.
  EXPECT_NEAR(sum / count, 0, 5 * 0.02 / std::sqrt(count));
  EXPECT_NEAR(std::sqrt(squares / count), 0.02, 5 * 0.02 / std::sqrt(2 * count));
  EXPECT_NE(values, Values(weights.untied_head));
}

}  // namespace
}  // namespace cohort
