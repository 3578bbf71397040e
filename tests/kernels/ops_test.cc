#include "kernels/ops.h"

#include "tests/kernels/devices.h"

namespace cohort {
namespace {

// A CPU device and tensors of every kind; only their shapes and dtypes matter here.
class OpsDeathTest : public testing::Test {
 protected:
  void SetUp() override {
    testing::GTEST_FLAG(death_test_style) = "fast";
    absl::StatusOr<std::unique_ptr<Device>> device = Device::Create(DeviceOptions());
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = std::move(*device);
  }
  TensorView Make(DType dtype, const Shape& shape) {
    tensors_.push_back(std::make_unique<DeviceTensor>(*device_, Filled(dtype, shape, 0)));
    return tensors_.back()->view();
  }
  Ops& ops() { return device_->ops(); }
  BatchView Batch(int32_t position, int32_t block) {
    const TensorView table = Make(DType::kI32, Shape{1, 2});
    table.As<int32_t>()[0] = block;
    const TensorView positions = Make(DType::kI32, Shape{1});
    positions.As<int32_t>()[0] = position;
    const TensorView first_rows = Make(DType::kI32, Shape{2});
    first_rows.As<int32_t>()[1] = 1;
    return {.tokens = 1,
            .sequences = 1,
            .positions = positions,
            .sequence_of_token = Make(DType::kI32, Shape{1}),
            .block_table = table,
            .rope_rows = positions,
            .first_rows = first_rows,
            .leading_decodes = 1,
            .longest_chunk = 1};
  }
  KvView Kv(int64_t head_dim) {
    return {Make(DType::kF32, Shape{3, 1, 4, head_dim}),
            Make(DType::kF32, Shape{3, 1, 4, head_dim})};
  }

 private:
  std::unique_ptr<Device> device_;
  std::vector<std::unique_ptr<DeviceTensor>> tensors_;
};

TEST_F(OpsDeathTest, MatMulNamesInnerDimensionAndDTypes) {
  const TensorView x = Make(DType::kF32, Shape{2, 3});
  const TensorView out = Make(DType::kF32, Shape{2, 4});
  EXPECT_DEATH(ops().MatMul(x, Weight{Make(DType::kF32, Shape{4, 5})}, nullptr, out),
               "3 vs 5.*MatMul inner dimension");
  EXPECT_DEATH(ops().MatMul(x, Weight{Make(DType::kBF16, Shape{4, 3})}, nullptr, out),
               "MatMul w holds bf16, expected fp32");
  EXPECT_DEATH(ops().MatMul(x, Weight{Make(DType::kF32, Shape{5, 3})}, nullptr, out),
               "MatMul out is \\[2, 4\\], expected \\[2, 5\\]");
  const TensorView bias = Make(DType::kF32, Shape{3});
  EXPECT_DEATH(ops().MatMul(x, Weight{Make(DType::kF32, Shape{4, 3})}, &bias, out),
               "MatMul bias is \\[3\\], expected \\[4\\]");
}

TEST_F(OpsDeathTest, PointwiseOperationsCheckShapes) {
  const TensorView x = Make(DType::kF32, Shape{2, 6});
  const TensorView ids = Make(DType::kI32, Shape{2});
  EXPECT_DEATH(ops().RmsNorm(x, Make(DType::kF32, Shape{5}), 1e-6f, x), "RmsNorm gamma is");
  EXPECT_DEATH(ops().SiluMultiply(x, Make(DType::kF32, Shape{2, 6})), "SiluMultiply gate_up is");
  EXPECT_DEATH(ops().Embed(ids, Make(DType::kF32, Shape{4, 5}), 0, x), "Embed hidden size");
  EXPECT_DEATH(ops().Embed(x, Make(DType::kF32, Shape{4, 6}), 0, x), "Embed ids holds fp32");
  EXPECT_DEATH(ops().GatherRows(x, Make(DType::kI32, Shape{3}), x), "GatherRows rows is");
}

TEST_F(OpsDeathTest, SampleChecksItsParameters) {
  const TensorView logits = Make(DType::kF32, Shape{1, 6});
  const TensorView out = Make(DType::kI32, Shape{1});
  SamplingRow row;
  EXPECT_DEATH(ops().Sample(logits, {row}, 7, out), "valid_ids is 7 of 6");
  row.top_p = 0;
  EXPECT_DEATH(ops().Sample(logits, {row}, 6, out), "top_p is 0");
  row.top_p = 1;
  row.temperature = -1;
  EXPECT_DEATH(ops().Sample(logits, {row}, 6, out), "temperature is -1");
}

TEST_F(OpsDeathTest, LocalSamplingChecksItsRequests) {
  const TensorView logits = Make(DType::kF32, Shape{1, 6});
  const VocabularySlice slice{.first_id = 0, .valid_ids = 6};
  CandidateRequest request{.candidates = 129};
  EXPECT_DEATH(ops().LocalCandidates(logits, {request}, slice, Make(DType::kI32, Shape{1, 999})),
               "129 candidates");
  request.candidates = 2;
  EXPECT_DEATH(ops().LocalCandidates(logits, {request}, slice, Make(DType::kI32, Shape{1, 10})),
               "LocalCandidates out");
  const TensorView words = Make(DType::kI32, Shape{1, 2});
  EXPECT_DEATH(ops().LocalMasses(logits, {MassRequest{.row = 1}}, slice, words), "row 1 of 1");
  EXPECT_DEATH(ops().LocalPick(logits, {MassRequest{.temperature = 0}}, slice, words), "LocalPick");
  EXPECT_DEATH(ops().EditLogits(logits, {LogitEdits{}}, 0, words), "EditLogits out");
}

TEST_F(OpsDeathTest, AttentionChecksHeads) {
  const TensorView queries = Make(DType::kF32, Shape{1, 16});
  EXPECT_DEATH(ops().PagedAttention(queries, {0, 1}, Batch(0, 0), Kv(8), 1, queries),
               "KV head 1 of 1");
  EXPECT_DEATH(ops().PagedAttention(queries, {0}, Batch(0, 0), Kv(8), 1, queries),
               "PagedAttention columns");
  EXPECT_DEATH(ops().PagedAttention(queries, {0}, Batch(0, 0), Kv(15), 1, queries),
               "head_dim 15 is odd");
}

// Device memory is the backend's to check; on the CPU that is cheap.
TEST_F(OpsDeathTest, CpuChecksPositionsAndBlocks) {
  const TensorView queries = Make(DType::kF32, Shape{1, 8});
  EXPECT_DEATH(ops().PagedAttention(queries, {0}, Batch(8, 0), Kv(8), 1, queries),
               "position 8 with 2 blocks of 4");
  EXPECT_DEATH(ops().PagedAttention(queries, {0}, Batch(0, 3), Kv(8), 1, queries), "block 3 of 3");
}

}  // namespace
}  // namespace cohort
