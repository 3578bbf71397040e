#include "tests/kernels/reference_ops.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/philox.h"

namespace cohort::reference {
namespace {

// A documented rounding to the activation dtype; fp32 stays exact.
double Cast(double value, DType dtype) {
  return dtype == DType::kBF16 ? RoundTo(value, dtype) : value;
}

int64_t Index(const HostTensor& indices, int64_t i) { return static_cast<int64_t>(indices.At(i)); }

// Row of keys and values ([blocks * kv_heads * block_size, head_dim]) that holds `position`.
int64_t SlotRow(const Batch& batch, const Kv& kv, int64_t sequence, int64_t position,
                int64_t kv_head) {
  const int64_t block_size = kv.keys.shape[2];
  const int64_t block = static_cast<int64_t>(batch.block_table.At(sequence, position / block_size));
  return (block * kv.keys.shape[1] + kv_head) * block_size + position % block_size;
}

double& Slot(HostTensor* cache, int64_t slot_row, int64_t k) {
  return cache->values[static_cast<size_t>(slot_row * cache->shape[3] + k)];
}

double Slot(const HostTensor& cache, int64_t slot_row, int64_t k) {
  return cache.values[static_cast<size_t>(slot_row * cache.shape[3] + k)];
}

std::vector<double> Rotated(const HostTensor& qkv, int64_t token, int64_t begin, int64_t head_dim,
                            const HostTensor& cosine, const HostTensor& sine, int64_t position) {
  const int64_t half = head_dim / 2;
  std::vector<double> result(static_cast<size_t>(head_dim));
  for (int64_t i = 0; i < half; ++i) {
    const double first = qkv.At(token, begin + i);
    const double second = qkv.At(token, begin + i + half);
    const double c = cosine.At(position, i);
    const double s = sine.At(position, i);
    const DType dtype = qkv.dtype;
    result[static_cast<size_t>(i)] = Cast(Cast(first * c, dtype) + Cast(-second * s, dtype), dtype);
    result[static_cast<size_t>(i + half)] =
        Cast(Cast(second * c, dtype) + Cast(first * s, dtype), dtype);
  }
  return result;
}

std::vector<double> Softmax(std::vector<double> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (double& logit : logits) {
    logit = std::exp(logit - largest);
    total += logit;
  }
  for (double& weight : logits) {
    weight /= total;
  }
  return logits;
}

// One of several matrices.
HostTensor Matrix(const HostTensor& matrices, int64_t index) {
  const int64_t elements = matrices.columns();
  const auto begin = matrices.values.begin() + index * elements;
  return {matrices.dtype, Shape{matrices.shape[1], matrices.shape[2]}, {begin, begin + elements}};
}

}  // namespace

HostTensor Embed(const HostTensor& ids, const HostTensor& table, int64_t first_row, DType out) {
  HostTensor result = Filled(out, Shape{ids.rows(), table.columns()}, 0);
  for (int64_t token = 0; token < ids.rows(); ++token) {
    const int64_t row = Index(ids, token) - first_row;
    for (int64_t k = 0; k < table.columns() && row >= 0 && row < table.rows(); ++k) {
      result.At(token, k) = table.At(row, k);
    }
  }
  return result;
}

HostTensor RmsNorm(const HostTensor& x, const HostTensor& gamma, double eps) {
  HostTensor result = x;
  for (int64_t row = 0; row < x.rows(); ++row) {
    double squares = 0;
    for (int64_t k = 0; k < x.columns(); ++k) {
      squares += x.At(row, k) * x.At(row, k);
    }
    const double root = std::sqrt(squares / static_cast<double>(x.columns()) + eps);
    for (int64_t k = 0; k < x.columns(); ++k) {
      const double normalised = Cast(x.At(row, k) / root, x.dtype);
      result.At(row, k) = Cast(normalised * gamma.At(k), x.dtype);
    }
  }
  return result;
}

HostTensor Add(const HostTensor& residual, const HostTensor& x) {
  HostTensor result = residual;
  for (size_t i = 0; i < x.values.size(); ++i) {
    result.values[i] = Cast(residual.values[i] + Cast(x.values[i], residual.dtype), residual.dtype);
  }
  return result;
}

HostTensor MatMul(const HostTensor& x, const HostTensor& w, const HostTensor* bias, DType out) {
  HostTensor result = Filled(out, Shape{x.rows(), w.rows()}, 0);
  for (int64_t row = 0; row < x.rows(); ++row) {
    for (int64_t feature = 0; feature < w.rows(); ++feature) {
      double sum = bias == nullptr ? 0 : bias->At(feature);
      for (int64_t k = 0; k < x.columns(); ++k) {
        sum += x.At(row, k) * w.At(feature, k);
      }
      result.At(row, feature) = Cast(sum, out);
    }
  }
  return result;
}

void RopeAndStoreKv(HostTensor* qkv, int64_t query_heads, const HostTensor& cosine,
                    const HostTensor& sine, const Batch& batch, Kv* kv) {
  const int64_t kv_heads = kv->keys.shape[1];
  const int64_t head_dim = kv->keys.shape[3];
  for (int64_t token = 0; token < qkv->rows(); ++token) {
    const int64_t position = Index(batch.positions, token);
    for (int64_t head = 0; head < query_heads + kv_heads; ++head) {
      const std::vector<double> rotated =
          Rotated(*qkv, token, head * head_dim, head_dim, cosine, sine, position);
      for (int64_t k = 0; k < head_dim; ++k) {
        const double value = rotated[static_cast<size_t>(k)];
        if (head < query_heads) {
          qkv->At(token, head * head_dim + k) = value;
          continue;
        }
        const int64_t row = SlotRow(batch, *kv, Index(batch.sequence_of_token, token), position,
                                    head - query_heads);
        Slot(&kv->keys, row, k) = value;
        Slot(&kv->values, row, k) = qkv->At(token, (head + kv_heads) * head_dim + k);
      }
    }
  }
}

HostTensor PagedAttention(const HostTensor& queries, const std::vector<int32_t>& kv_head_of_query,
                          const Batch& batch, const Kv& kv, double scale) {
  const int64_t head_dim = kv.keys.shape[3];
  HostTensor result = Filled(queries.dtype, queries.shape, 0);
  for (int64_t token = 0; token < queries.rows(); ++token) {
    const int64_t sequence = Index(batch.sequence_of_token, token);
    const int64_t length = Index(batch.positions, token) + 1;
    for (size_t head = 0; head < kv_head_of_query.size(); ++head) {
      const int64_t first = static_cast<int64_t>(head) * head_dim;
      std::vector<double> logits(static_cast<size_t>(length), 0);
      for (int64_t p = 0; p < length; ++p) {
        const int64_t row = SlotRow(batch, kv, sequence, p, kv_head_of_query[head]);
        for (int64_t k = 0; k < head_dim; ++k) {
          logits[static_cast<size_t>(p)] +=
              scale * queries.At(token, first + k) * Slot(kv.keys, row, k);
        }
      }
      const std::vector<double> weights = Softmax(logits);
      for (int64_t k = 0; k < head_dim; ++k) {
        double sum = 0;
        for (int64_t p = 0; p < length; ++p) {
          const int64_t row = SlotRow(batch, kv, sequence, p, kv_head_of_query[head]);
          sum += weights[static_cast<size_t>(p)] * Slot(kv.values, row, k);
        }
        result.At(token, first + k) = Cast(sum, queries.dtype);
      }
    }
  }
  return result;
}

HostTensor SiluMultiply(const HostTensor& gate_up) {
  const int64_t columns = gate_up.columns() / 2;
  HostTensor result = Filled(gate_up.dtype, Shape{gate_up.rows(), columns}, 0);
  for (int64_t row = 0; row < gate_up.rows(); ++row) {
    for (int64_t k = 0; k < columns; ++k) {
      const double gate = gate_up.At(row, k);
      const double silu = Cast(gate / (1 + std::exp(-gate)), gate_up.dtype);
      result.At(row, k) = Cast(silu * gate_up.At(row, columns + k), gate_up.dtype);
    }
  }
  return result;
}

Routing RouteTopK(const HostTensor& logits, int64_t k, bool normalize) {
  Routing routing{Filled(DType::kI32, Shape{logits.rows(), k}, 0),
                  Filled(DType::kF32, Shape{logits.rows(), k}, 0)};
  for (int64_t row = 0; row < logits.rows(); ++row) {
    std::vector<double> values;
    for (int64_t expert = 0; expert < logits.columns(); ++expert) {
      values.push_back(logits.At(row, expert));
    }
    std::vector<size_t> order(values.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return values[a] > values[b]; });
    const std::vector<double> probabilities = Softmax(values);
    double chosen = 0;
    for (int64_t i = 0; i < k; ++i) {
      chosen += probabilities[order[static_cast<size_t>(i)]];
    }
    for (int64_t i = 0; i < k; ++i) {
      const size_t expert = order[static_cast<size_t>(i)];
      routing.ids.At(row, i) = static_cast<double>(expert);
      routing.weights.At(row, i) =
          Cast(probabilities[expert] / (normalize ? chosen : 1), logits.dtype);
    }
  }
  return routing;
}

HostTensor RoutedFfn(const HostTensor& x, const Routing& routing, const HostTensor& gate_up,
                     const HostTensor& down, int64_t first) {
  HostTensor out = Filled(DType::kF32, x.shape, 0);
  for (int64_t expert = 0; expert < gate_up.rows(); ++expert) {
    const HostTensor projected =
        MatMul(x, Matrix(gate_up, expert), nullptr, x.dtype);  // of all rows, few of them wanted
    const HostTensor y =
        MatMul(SiluMultiply(projected), Matrix(down, expert), nullptr, DType::kF32);
    for (int64_t row = 0; row < x.rows(); ++row) {
      for (int64_t slot = 0; slot < routing.ids.columns(); ++slot) {
        for (int64_t k = 0;
             Index(routing.ids, row * routing.ids.columns() + slot) == first + expert &&
             k < x.columns();
             ++k) {
          out.At(row, k) += routing.weights.At(row, slot) * y.At(row, k);
        }
      }
    }
  }
  return out;
}

HostTensor AddGated(const HostTensor& x, const HostTensor& gate, const HostTensor& out) {
  HostTensor result = out;
  for (int64_t row = 0; row < x.rows(); ++row) {
    const double factor = Cast(1 / (1 + std::exp(-gate.At(row, 0))), gate.dtype);
    for (int64_t k = 0; k < x.columns(); ++k) {
      result.At(row, k) += factor * x.At(row, k);
    }
  }
  return result;
}

HostTensor FillRandom(uint64_t key, int64_t stored_columns, int64_t first_row, int64_t first_column,
                      double width, DType dtype, const Shape& shape) {
  HostTensor out = Filled(dtype, shape, 0);
  for (int64_t row = 0; row < shape[0]; ++row) {
    for (int64_t column = 0; column < shape[1]; ++column) {
      // SplitMix64 after as many steps as the element's number.
      uint64_t bits =
          key + static_cast<uint64_t>((first_row + row) * stored_columns + first_column + column) *
                    0x9e3779b97f4a7c15u;
      bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
      bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
      bits ^= bits >> 31;
      const double unit = std::ldexp(static_cast<double>(bits >> 40), -24);
      out.At(row, column) = RoundTo(RoundTo((unit - 0.5) * width, DType::kF32), dtype);
    }
  }
  return out;
}

HostTensor GatherRows(const HostTensor& x, const HostTensor& rows) {
  HostTensor result = Filled(x.dtype, Shape{rows.rows(), x.columns()}, 0);
  for (int64_t i = 0; i < rows.rows(); ++i) {
    for (int64_t k = 0; k < x.columns(); ++k) {
      result.At(i, k) = x.At(Index(rows, i), k);
    }
  }
  return result;
}

Kept KeptIds(const std::vector<double>& logits, const SamplingRow& row) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  if (row.top_k > 0 && static_cast<size_t>(row.top_k) < order.size()) {
    order.resize(static_cast<size_t>(row.top_k));
  }
  std::vector<double> scaled;
  for (const int32_t id : order) {
    scaled.push_back(logits[static_cast<size_t>(id)] / double{row.temperature});
  }
  const std::vector<double> sorted = Softmax(scaled);
  double mass = 0;
  size_t count = 0;
  while (count < order.size() && (count == 0 || row.top_p == 1 || mass < double{row.top_p})) {
    mass += sorted[count++];
  }
  while (sorted[count - 1] < double{row.min_p} * sorted[0]) {
    mass -= sorted[--count];
  }
  order.resize(count);
  std::vector<double> probability(logits.size(), 0);
  for (size_t i = 0; i < count; ++i) {
    probability[static_cast<size_t>(order[i])] = sorted[i] / mass;
  }
  std::sort(order.begin(), order.end());
  Kept kept{order, {}};
  for (const int32_t id : order) {
    kept.probabilities.push_back(probability[static_cast<size_t>(id)]);
  }
  return kept;
}

int32_t Sample(const std::vector<double>& logits, const SamplingRow& row) {
  if (row.temperature == 0) {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  const Kept kept = KeptIds(logits, row);
  const double uniform = PhiloxUniform(row.seed, row.sequence_index, row.position);
  double cumulative = 0;
  for (size_t i = 0; i < kept.ids.size(); ++i) {
    cumulative += kept.probabilities[i];
    if (cumulative > uniform) {
      return kept.ids[i];
    }
  }
  return kept.ids.back();
}

}  // namespace cohort::reference
