// A scalar reference of every operation: the formulas in double precision, with exactly the
// roundings to bf16 that kernels/ops.h documents (none in fp32). Used by tests only; the oracle of
// all backends.
#ifndef COHORT_TESTS_KERNELS_REFERENCE_OPS_H_
#define COHORT_TESTS_KERNELS_REFERENCE_OPS_H_

#include <cstdint>
#include <vector>

#include "kernels/ops.h"
#include "tests/kernels/host_tensor.h"

namespace cohort::reference {

// BatchView and KvView in host memory.
struct Batch {
  HostTensor positions;          // [tokens]
  HostTensor sequence_of_token;  // [tokens]
  HostTensor block_table;        // [sequences, max blocks]
};
struct Kv {
  HostTensor keys;    // [blocks, kv_heads, block_size, head_dim]
  HostTensor values;  // [blocks, kv_heads, block_size, head_dim]
};

HostTensor Embed(const HostTensor& ids, const HostTensor& table, int64_t first_row, DType out);
HostTensor RmsNorm(const HostTensor& x, const HostTensor& gamma, double eps);
// The residual after AddRmsNorm.
HostTensor Add(const HostTensor& residual, const HostTensor& x);
HostTensor MatMul(const HostTensor& x, const HostTensor& w, const HostTensor* bias, DType out);
// Rotates the queries of `qkv` in place and writes keys and values to `kv`.
void RopeAndStoreKv(HostTensor* qkv, int64_t query_heads, const HostTensor& cosine,
                    const HostTensor& sine, const Batch& batch, Kv* kv);
HostTensor PagedAttention(const HostTensor& queries, const std::vector<int32_t>& kv_head_of_query,
                          const Batch& batch, const Kv& kv, double scale);
HostTensor SiluMultiply(const HostTensor& gate_up);
// A router's choice; the rows of `ids` and `weights` are those of the logits.
struct Routing {
  HostTensor ids;      // [tokens, k]
  HostTensor weights;  // [tokens, k] fp32
};
Routing RouteTopK(const HostTensor& logits, int64_t k, bool normalize);
// gate_up [experts, 2 * columns, hidden], down [experts, hidden, columns]; the first has id
// `first`.
HostTensor RoutedFfn(const HostTensor& x, const Routing& routing, const HostTensor& gate_up,
                     const HostTensor& down, int64_t first);
// `out` after AddGated.
HostTensor AddGated(const HostTensor& x, const HostTensor& gate, const HostTensor& out);
// Rows from `first_row` and columns from `first_column` on of the stored matrix that `key` names.
HostTensor FillRandom(uint64_t key, int64_t stored_columns, int64_t first_row, int64_t first_column,
                      double width, DType dtype, const Shape& shape);
HostTensor GatherRows(const HostTensor& x, const HostTensor& rows);
// Ids that top-k, top-p and min-p keep, ascending, with their probabilities.
struct Kept {
  std::vector<int32_t> ids;
  std::vector<double> probabilities;
};
Kept KeptIds(const std::vector<double>& logits, const SamplingRow& row);
int32_t Sample(const std::vector<double>& logits, const SamplingRow& row);

}  // namespace cohort::reference

#endif  // COHORT_TESTS_KERNELS_REFERENCE_OPS_H_
