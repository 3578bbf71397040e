// DenseLayers gives the bits of the operations that it stands for, whether or not a device has one
// kernel for all of them.
#include <functional>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "tests/kernels/attention_step.h"

namespace cohort {
namespace {

struct DenseShape {
  int64_t hidden = 256;
  int64_t columns = 64;  // of the FFN
  int64_t head_dim = 64;
  std::vector<int32_t> kv_head_of_query = {0, 0, 1};
  std::vector<int64_t> positions = {0};  // of the decodes
  size_t layers = 2;
  bool with_bias = true;
  bool has_kernel = true;  // on CUDA
};

// What a layer has of its own, on a device.
struct DenseLayerTensors {
  DeviceTensor attention_norm, qkv, qkv_bias, attention_out, ffn_norm, gate_up, down;
  TensorView bias;
  DeviceTensor keys, values;

  DenseLayerTensors(Device& device, std::mt19937_64& random, const DenseShape& shape,
                    const AttentionStep& step, int64_t padding)
      : attention_norm(device, Numbers(random, {shape.hidden})),
        qkv(device, Matrix(random, QkvColumns(step.dims), shape.hidden), padding),
        qkv_bias(device, Numbers(random, {QkvColumns(step.dims)})),
        attention_out(device, Matrix(random, shape.hidden, step.queries.columns()), padding),
        ffn_norm(device, Numbers(random, {shape.hidden})),
        gate_up(device, Matrix(random, 2 * shape.columns, shape.hidden), padding),
        down(device, Matrix(random, shape.hidden, shape.columns), padding),
        bias(qkv_bias.view()),
        keys(device, step.kv.keys),
        values(device, step.kv.values) {}

  static HostTensor Numbers(std::mt19937_64& random, const Shape& shape) {
    return RandomNormal(random, DType::kBF16, shape);
  }
  static HostTensor Matrix(std::mt19937_64& random, int64_t rows, int64_t columns) {
    return RandomNormal(random, DType::kBF16, {rows, columns},
                        1 / std::sqrt(static_cast<double>(columns)));
  }
  static int64_t QkvColumns(const AttentionDims& dims) {
    return (dims.query_heads() + 2 * dims.kv_heads) * dims.head_dim;
  }
};

AttentionStep DecodesOf(std::mt19937_64& random, const DenseShape& shape) {
  AttentionDims dims;
  dims.dtype = DType::kBF16;
  dims.head_dim = shape.head_dim;
  dims.block_size = 16;
  dims.kv_head_of_query = shape.kv_head_of_query;
  dims.kv_heads = shape.kv_head_of_query.back() + 1;
  std::vector<Chunk> chunks;
  for (const int64_t position : shape.positions) {
    chunks.push_back({position, position + 1});
  }
  return MakeStep(random, dims, chunks);
}

// A step's layers and memory, the same numbers for the same shape.
class DeviceDenseStep {
 public:
  DeviceDenseStep(Device& device, const DenseShape& shape)
      : random_(7),
        attention_(DecodesOf(random_, shape)),
        batch_(device, attention_.batch, attention_.kv),
        embedded_(RandomNormal(random_, DType::kBF16, Rows(shape.hidden))),
        cosine_(device, RandomNormal(random_, DType::kF32, Table(shape))),
        sine_(device, RandomNormal(random_, DType::kF32, Table(shape))),
        final_norm_(device, DenseLayerTensors::Numbers(random_, {shape.hidden})),
        residual_(device, embedded_, 8),
        normed_(device, Poison(DType::kBF16, Rows(shape.hidden)), 16),
        partial_(device, Poison(DType::kF32, Rows(shape.hidden)), 8),
        qkv_(device, Poison(DType::kBF16, Rows(DenseLayerTensors::QkvColumns(attention_.dims))), 8),
        attended_(device, Poison(DType::kBF16, Rows(attention_.queries.columns()))),
        gate_up_(device, Poison(DType::kBF16, Rows(2 * shape.columns))),
        activated_(device, Poison(DType::kBF16, Rows(shape.columns))) {
    for (size_t i = 0; i < shape.layers; ++i) {
      tensors_.push_back(
          std::make_unique<DenseLayerTensors>(device, random_, shape, attention_, 8));
    }
    for (const auto& layer : tensors_) {
      layers_.push_back({.attention_norm = layer->attention_norm.view(),
                         .qkv = {layer->qkv.view()},
                         .qkv_bias = shape.with_bias ? &layer->bias : nullptr,
                         .attention_out = {layer->attention_out.view()},
                         .ffn_norm = layer->ffn_norm.view(),
                         .gate_up = {layer->gate_up.view()},
                         .down = {layer->down.view()},
                         .kv = {layer->keys.view(), layer->values.view()}});
    }
  }

  DenseStep view() const {
    return {.layers = layers_,
            .final_norm = final_norm_.view(),
            .eps = 1e-6f,
            .rope = {cosine_.view(), sine_.view()},
            .batch = batch_.batch(),
            .kv_head_of_query = attention_.dims.kv_head_of_query,
            .scale = static_cast<float>(attention_.scale),
            .residual = residual_.view(),
            .normed = normed_.view(),
            .partial = partial_.view(),
            .qkv = qkv_.view(),
            .attended = attended_.view(),
            .gate_up = gate_up_.view(),
            .activated = activated_.view()};
  }
  const HostTensor& embedded() const { return embedded_; }
  HostTensor residual() const { return residual_.Read(); }
  HostTensor normed() const { return normed_.Read(); }

  void ExpectSameAs(const DeviceDenseStep& other) const {
    ExpectSame(normed(), other.normed());
    for (size_t i = 0; i < tensors_.size(); ++i) {
      SCOPED_TRACE(i);
      ExpectSame(tensors_[i]->keys.Read(), other.tensors_[i]->keys.Read());
      ExpectSame(tensors_[i]->values.Read(), other.tensors_[i]->values.Read());
    }
  }

 private:
  Shape Rows(int64_t columns) const { return {attention_.batch.positions.rows(), columns}; }
  static Shape Table(const DenseShape& shape) {
    return {1 + *std::max_element(shape.positions.begin(), shape.positions.end()),
            shape.head_dim / 2};
  }

  std::mt19937_64 random_;
  AttentionStep attention_;
  DeviceStep batch_;
  HostTensor embedded_;
  DeviceTensor cosine_, sine_, final_norm_;
  DeviceTensor residual_, normed_, partial_, qkv_, attended_, gate_up_, activated_;
  std::vector<std::unique_ptr<DenseLayerTensors>> tensors_;
  std::vector<DenseLayer> layers_;
};

// The operations one by one.
void RunDenseParts(Device& device, const DenseStep& step) {
  Ops& ops = device.ops();
  ops.RmsNorm(step.residual, step.layers[0].attention_norm, step.eps, step.normed);
  for (size_t i = 0; i < step.layers.size(); ++i) {
    const DenseLayer& layer = step.layers[i];
    ops.ProjectQkv(step.normed, layer.qkv, layer.qkv_bias, step.qkv, step.query_heads(), step.rope,
                   step.batch, layer.kv);
    ops.PagedAttention(step.queries(), step.kv_head_of_query, step.batch, layer.kv, step.scale,
                       step.attended);
    ops.MatMul(step.attended, layer.attention_out, nullptr, step.partial);
    ops.AddRmsNorm(step.residual, step.partial, layer.ffn_norm, step.eps, step.normed);
    ops.ProjectGateUp(step.normed, layer.gate_up, step.gate_up, step.activated);
    ops.MatMul(step.activated, layer.down, nullptr, step.partial);
    const TensorView next =
        i + 1 < step.layers.size() ? step.layers[i + 1].attention_norm : step.final_norm;
    ops.AddRmsNorm(step.residual, step.partial, next, step.eps, step.normed);
  }
}

// On each device, with its kernel for whole steps where it has one.
void OnEachDeviceWithKernel(const std::function<void(Device&)>& body) {
  for (DeviceOptions options : TestDevices()) {
    options.persistent_steps = true;
    absl::StatusOr<std::unique_ptr<Device>> device = Device::Create(options);
    ASSERT_TRUE(device.ok()) << device.status();
    SCOPED_TRACE((*device)->description());
    body(**device);
    EXPECT_TRUE((*device)->Synchronize().ok());
  }
}

bool IsBefore90(const Device& device) {
  return absl::StrContains(device.description(), "compute 8.");
}

void ExpectDenseParts(Device& device, const DenseShape& shape) {
  const DeviceDenseStep parts(device, shape);
  RunDenseParts(device, parts.view());
  const DeviceDenseStep whole(device, shape);
  device.ops().DenseLayers(whole.view());
  whole.ExpectSameAs(parts);
  // The kernel keeps the residual to itself.
  const bool has_kernel = device.kind() == "cuda" && shape.has_kernel && !IsBefore90(device);
  EXPECT_EQ(whole.residual().values == whole.embedded().values, has_kernel);
}

TEST(DenseLayers, AreTheirParts) {
  OnEachDeviceWithKernel([](Device& device) {
    ExpectDenseParts(device, {.positions = {300}, .layers = 3});
    // Columns of no whole chunks, and a product whose tiles are cut into slices.
    ExpectDenseParts(device, {.hidden = 264, .columns = 1096, .positions = {17, 0, 64}});
    ExpectDenseParts(device, {.hidden = 520,
                              .columns = 72,
                              .head_dim = 128,
                              .kv_head_of_query = {0, 0, 0, 0, 0, 1},
                              .positions = {0, 5, 16, 130, 700, 33, 64, 1},
                              .with_bias = false});
  });
}

TEST(DenseLayers, AreTheirPartsInShapesThatNoKernelTakes) {
  OnEachDeviceWithKernel([](Device& device) {
    ExpectDenseParts(device, {.positions = std::vector<int64_t>(9, 3), .has_kernel = false});
    ExpectDenseParts(device, {.hidden = 2056,
                              .columns = 8,
                              .positions = std::vector<int64_t>(8, 3),
                              .layers = 1,
                              .has_kernel = false});
    ExpectDenseParts(device, {.head_dim = 32, .has_kernel = false});
    ExpectDenseParts(device, {.columns = 60, .has_kernel = false});
  });
}

// Its counters are again what the first step found, in a recording too.
TEST(DenseLayers, CanBeRepeated) {
  OnEachDeviceWithKernel([](Device& device) {
    const DenseShape shape = {.positions = {40, 3}};
    const DeviceDenseStep once(device, shape);
    device.ops().DenseLayers(once.view());
    const HostTensor expected = once.normed();
    if (!device.records_steps() || IsBefore90(device)) {
      return;  // the operations one by one would add to the residual again
    }
    const DeviceDenseStep step(device, shape);
    absl::StatusOr<std::unique_ptr<Recording>> recording =
        device.Record([&] { device.ops().DenseLayers(step.view()); });
    ASSERT_TRUE(recording.ok()) << recording.status();
    for (int i = 0; i < 3; ++i) {
      (*recording)->Enqueue();
    }
    ASSERT_TRUE(device.Synchronize().ok());
    ExpectSame(step.normed(), expected);
  });
}

}  // namespace
}  // namespace cohort
