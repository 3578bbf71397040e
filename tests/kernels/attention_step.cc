#include "tests/kernels/attention_step.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace cohort {

reference::Batch MakeBatch(std::mt19937_64& random, const AttentionDims& dims,
                           const std::vector<Chunk>& chunks, int64_t* blocks) {
  std::vector<int32_t> positions;
  std::vector<int32_t> sequences;
  int64_t longest = 1;
  int64_t used = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    for (int64_t position = chunks[i].begin; position < chunks[i].end; ++position) {
      positions.push_back(static_cast<int32_t>(position));
      sequences.push_back(static_cast<int32_t>(i));
    }
    const int64_t length = (chunks[i].end + dims.block_size - 1) / dims.block_size;
    longest = std::max(longest, length);
    used += length;
  }
  *blocks = used + 2;
  std::vector<int32_t> ids(static_cast<size_t>(*blocks));
  std::iota(ids.begin(), ids.end(), 0);
  std::shuffle(ids.begin(), ids.end(), random);
  HostTensor table = Poison(DType::kI32, Shape{static_cast<int64_t>(chunks.size()), longest + 1});
  for (size_t i = 0; i < chunks.size(); ++i) {
    for (int64_t block = 0; block * dims.block_size < chunks[i].end; ++block) {
      table.At(static_cast<int64_t>(i), block) = ids[static_cast<size_t>(--used)];
    }
  }
  return {Indices(positions), Indices(sequences), table};
}

namespace {

// Writes rows [blocks, kv_heads, block_size] of positions 0..end-1 of each sequence.
void FillSlots(std::mt19937_64& random, const std::vector<Chunk>& chunks, AttentionStep* step,
               double key_offset) {
  const AttentionDims& dims = step->dims;
  std::normal_distribution<double> normal;
  for (size_t sequence = 0; sequence < chunks.size(); ++sequence) {
    for (int64_t position = 0; position < chunks[sequence].end; ++position) {
      const int64_t block = static_cast<int64_t>(
          step->batch.block_table.At(static_cast<int64_t>(sequence), position / dims.block_size));
      for (int64_t head = 0; head < dims.kv_heads; ++head) {
        const int64_t slot =
            (block * dims.kv_heads + head) * dims.block_size + position % dims.block_size;
        for (int64_t k = 0; k < dims.head_dim; ++k) {
          const size_t index = static_cast<size_t>(slot * dims.head_dim + k);
          const double offset = k % 2 == 0 ? key_offset : -key_offset;
          step->kv.keys.values[index] = RoundTo(normal(random) + offset, dims.dtype);
          step->kv.values.values[index] = RoundTo(normal(random), dims.dtype);
        }
      }
    }
  }
}

}  // namespace

AttentionStep MakeStep(std::mt19937_64& random, const AttentionDims& dims,
                       const std::vector<Chunk>& chunks, double key_offset) {
  AttentionStep step;
  step.dims = dims;
  int64_t blocks = 0;
  step.batch = MakeBatch(random, dims, chunks, &blocks);
  const Shape cache{blocks, dims.kv_heads, dims.block_size, dims.head_dim};
  step.kv = {Poison(dims.dtype, cache), Poison(dims.dtype, cache)};
  FillSlots(random, chunks, &step, key_offset);
  step.queries = RandomNormal(
      random, dims.dtype, Shape{step.batch.positions.rows(), dims.query_heads() * dims.head_dim});
  step.scale = 1 / std::sqrt(static_cast<double>(dims.head_dim));
  return step;
}

AttentionStep StepOfRows(const AttentionStep& whole, int64_t begin, int64_t count) {
  AttentionStep part = whole;
  part.queries = RowsOf(whole.queries, begin, count);
  part.batch.positions = RowsOf(whole.batch.positions, begin, count);
  part.batch.sequence_of_token = RowsOf(whole.batch.sequence_of_token, begin, count);
  return part;
}

HostTensor Attend(Device& device, const AttentionStep& step, int64_t padding) {
  const DeviceStep on_device(device, step.batch, step.kv);
  const DeviceTensor out(device, Poison(step.dims.dtype, step.queries.shape), padding);
  device.ops().PagedAttention(DeviceTensor(device, step.queries, padding).view(),
                              step.dims.kv_head_of_query, on_device.batch(), on_device.kv(),
                              static_cast<float>(step.scale), out.view());
  return out.Read();
}

bool HasTensorCores(const Device& device, DType dtype, int64_t head_dim, int64_t block_size) {
  return device.kind() == "cuda" && dtype == DType::kBF16 && (head_dim == 64 || head_dim == 128) &&
         block_size % 16 == 0;
}

namespace {

HostTensor ReferenceAttend(const AttentionStep& step) {
  return reference::PagedAttention(step.queries, step.dims.kv_head_of_query, step.batch, step.kv,
                                   static_cast<double>(static_cast<float>(step.scale)));
}

double LargestMagnitude(const HostTensor& tensor) {
  double largest = 0;
  for (const double value : tensor.values) {
    largest = std::isnan(value) ? largest : std::max(largest, std::abs(value));
  }
  return largest;
}

AttentionStep WithMagnitudes(AttentionStep step) {
  for (double& value : step.kv.values.values) {
    value = std::abs(value);
  }
  return step;
}

}  // namespace

CheckedStep::CheckedStep(AttentionStep step)
    : step_(std::move(step)),
      expected_(ReferenceAttend(step_)),
      magnitudes_(ReferenceAttend(WithMagnitudes(step_))) {}

// A logit, a dot product of head_dim fp32 products, errs by `logit` at most; a weight is off by
// twice that (its own and the largest logit's) and by a unit per term of the sums over positions.
// Tensor cores cut partial sums off, which errs by up to two units instead of one, and take weights
// rounded to bf16, each off by half a spacing.
std::vector<double> CheckedStep::Bounds(bool has_tensor_cores) const {
  const double head_dim = static_cast<double>(step_.dims.head_dim);
  const double unit = has_tensor_cores ? 2 * kFloatUnit : kFloatUnit;
  const double logit = (head_dim + 6) * unit * step_.scale * head_dim *
                       LargestMagnitude(step_.queries) * LargestMagnitude(step_.kv.keys);
  const double length = LargestMagnitude(step_.batch.positions) + 1;
  const double weight = has_tensor_cores ? Spacing(DType::kBF16) / 2 : 0;
  const double relative = std::expm1(2 * logit) + (2 * length + 16) * unit + weight;
  std::vector<double> bounds;
  for (size_t i = 0; i < magnitudes_.values.size(); ++i) {
    bounds.push_back(relative * 1.01 * magnitudes_.values[i] +
                     Spacing(step_.dims.dtype) * std::abs(expected_.values[i]));
  }
  return bounds;
}

void CheckedStep::ExpectOn(Device& device, int64_t padding) const {
  const AttentionDims& dims = step_.dims;
  const bool has_tensor_cores = HasTensorCores(device, dims.dtype, dims.head_dim, dims.block_size);
  ExpectWithin(Attend(device, step_, padding), expected_.values, Bounds(has_tensor_cores));
}

void ExpectMatchesReference(Device& device, const AttentionStep& step, int64_t padding) {
  CheckedStep(step).ExpectOn(device, padding);
}

}  // namespace cohort
