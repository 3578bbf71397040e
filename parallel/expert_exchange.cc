#include "parallel/expert_exchange.h"

#include "kernels/check.h"
#include "parallel/all_to_all_exchange.h"
#include "parallel/replicated_exchange.h"

namespace cohort {

absl::StatusOr<std::unique_ptr<ExpertExchange>> MakeExpertExchange(
    const ExpertExchangeOptions& options, const ShardPlan& plan, Device& device) {
  CHECK_GE(options.max_tokens, 1);
  const bool is_replicated = options.kind == ExpertExchangeKind::kReplicated;
  if (device.kind() != "cpu" && !is_replicated) {
    return absl::UnimplementedError(
        absl::StrCat("all-to-all exchange of rows for experts on device '", device.kind(),
                     "' is not there yet: use --expert-exchange replicated or --device cpu"));
  }
  return is_replicated ? ReplicatedExchange::Create(options, plan, device)
                       : AllToAllExchange::Create(options, plan, device);
}

int64_t ExpertExchangeBytes(const ExpertExchangeOptions& options, const ShardPlan& plan) {
  return options.kind == ExpertExchangeKind::kReplicated ? ReplicatedExchange::Bytes(options, plan)
                                                         : AllToAllExchange::Bytes(options, plan);
}

}  // namespace cohort
