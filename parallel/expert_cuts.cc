#include "parallel/expert_cuts.h"

#include "kernels/check.h"
#include "parallel/granules.h"

namespace cohort {

ExpertShare ExpertCuts::Of(int rank) const {
  const size_t members = columns.size();
  CHECK_GE(rank, 0);
  CHECK_LT(static_cast<size_t>(rank), experts.size() * members);
  return {experts[rank / members], columns[rank % members]};
}

ExpertCuts CutExperts(const ModelDims& dims, const Parallelism& parallelism) {
  const int members = parallelism.world() / parallelism.ep;
  if (dims.sparse_layers == 0) {
    return {std::vector<Range>(parallelism.ep), std::vector<Range>(members)};
  }
  return {CutEvenly(Granules::Units(dims.experts), parallelism.ep),
          CutEvenly(Granules(dims.expert_columns, 1, members), members)};
}

int64_t ExpertReadBytes(const ModelDims& dims, const ExpertShare& share) {
  if (dims.sparse_layers == 0) {
    return 0;
  }
  const int64_t resident = 3 * dims.hidden * share.columns.size() * share.experts.size() *
                           dims.sparse_layers * dims.weight_bytes;
  // resident * experts_per_token / experts, without overflow.
  const int64_t per_choice = resident / dims.experts;
  const int64_t rest = resident % dims.experts;
  return per_choice * dims.experts_per_token + rest * dims.experts_per_token / dims.experts;
}

}  // namespace cohort
