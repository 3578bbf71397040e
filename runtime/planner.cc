#include "runtime/planner.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>
#include <utility>

#include "absl/strings/str_format.h"

namespace cohort {
namespace {

// Layouts whose figures differ by less are equal: the other figure decides between them.
constexpr double kTie = 0.005;
constexpr size_t kMaxAlternatives = 6;
constexpr int64_t kSmallWorld = 64;
constexpr int64_t kMaxGpus = 1 << 16;
// More GPUs are searched for one by one up to here, by doubling beyond.
constexpr int64_t kGpusOneByOne = 128;
constexpr int64_t kGpusByDoubling = 4096;

absl::Status CheckRange(StringView name, int64_t value, int64_t least, int64_t most) {
  return value >= least && value <= most
             ? absl::OkStatus()
             : absl::InvalidArgumentError(
                   absl::StrCat(name, " is ", value, "; it must be in ", least, "..", most));
}

absl::Status CheckRequest(const PlanRequest& request) {
  RETURN_IF_ERROR(CheckRange("gpus", request.gpus, 1, kMaxGpus));
  RETURN_IF_ERROR(CheckRange("nodes", request.nodes.value_or(1), 1, request.gpus));
  RETURN_IF_ERROR(CheckRange("tp", request.tp.value_or(1), 1, request.config.query_heads));
  RETURN_IF_ERROR(CheckRange("dp", request.dp.value_or(1), 1, request.gpus));
  RETURN_IF_ERROR(
      CheckRange("context", request.context.value_or(1), 1, request.config.max_positions));
  RETURN_IF_ERROR(CheckRange("concurrency", request.concurrency, 1, 1 << 20));
  const int64_t ranks = request.tp.value_or(1) * request.dp.value_or(1);
  if (ranks > request.gpus) {
    return absl::InvalidArgumentError(absl::StrCat("tp ", request.tp.value_or(1), " x dp ",
                                                   request.dp.value_or(1), " is ", ranks,
                                                   " ranks; there are ", request.gpus, " GPUs"));
  }
  const bool is_world_known = request.tp.has_value() && request.dp.has_value();
  if (request.ep.has_value() && (*request.ep < 1 || (is_world_known && ranks % *request.ep != 0) ||
                                 *request.ep > request.gpus)) {
    return absl::InvalidArgumentError(
        absl::StrCat("ep is ", *request.ep, "; it must be >= 1 and divide tp x dp",
                     is_world_known ? absl::StrCat(", which is ", ranks) : ""));
  }
  return absl::OkStatus();
}

// Whole experts on how many groups: every divisor of a small world, of a large one the least and
// the most.
std::vector<int64_t> ExpertDegrees(const PlanRequest& request, int64_t world) {
  if (request.ep.has_value()) {
    return world % *request.ep == 0 ? std::vector<int64_t>{*request.ep} : std::vector<int64_t>{};
  }
  std::vector<int64_t> degrees;
  for (int64_t ep = 1; ep <= std::min(world, std::max<int64_t>(request.config.experts, 1)); ++ep) {
    if (world % ep == 0) {
      degrees.push_back(ep);
    }
  }
  if (world > kSmallWorld && degrees.size() > 2) {
    degrees = {degrees.front(), degrees.back()};
  }
  return degrees;
}

// Every layout that the given degrees allow: as many data-parallel groups as the GPUs hold.
std::vector<Parallelism> Candidates(const PlanRequest& request) {
  const int64_t most_tp =
      std::min(request.config.query_heads, request.gpus / request.dp.value_or(1));
  std::vector<Parallelism> candidates;
  for (int64_t tp = request.tp.value_or(1); tp <= request.tp.value_or(most_tp); ++tp) {
    const int64_t dp = request.dp.value_or(request.gpus / tp);
    for (const int64_t ep : ExpertDegrees(request, tp * dp)) {
      candidates.push_back(
          {.tp = static_cast<int>(tp), .dp = static_cast<int>(dp), .ep = static_cast<int>(ep)});
    }
  }
  return candidates;
}

absl::StatusOr<std::vector<LayoutPlan>> PlanAll(const PlanRequest& request) {
  std::vector<LayoutPlan> layouts;
  for (const Parallelism& parallelism : Candidates(request)) {
    ASSIGN_OR_RETURN(LayoutPlan layout, PlanLayout(request, parallelism));
    layouts.push_back(std::move(layout));
  }
  if (layouts.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("ep is ", request.ep.value_or(1),
                                                   "; it divides no tp x dp of at most ",
                                                   request.gpus, " GPUs"));
  }
  return layouts;
}

double Latency(const LayoutPlan& layout) { return layout.predicted.decode.total(); }
double Throughput(const LayoutPlan& layout) { return layout.predicted.decode_tokens_per_second; }

bool IsFaster(const LayoutPlan& left, const LayoutPlan& right) {
  const double ratio = Latency(left) / Latency(right);
  return std::abs(ratio - 1) > kTie ? ratio < 1 : Throughput(left) > Throughput(right);
}

bool HasMoreThroughput(const LayoutPlan& left, const LayoutPlan& right) {
  const double ratio = Throughput(left) / Throughput(right);
  return std::abs(ratio - 1) > kTie ? ratio > 1 : Latency(left) < Latency(right);
}

// The element that none is better than; a tie makes `is_better` no order, hence no
// std::max_element.
template <class IsBetter>
size_t Best(const std::vector<LayoutPlan>& layouts, IsBetter is_better) {
  size_t best = 0;
  for (size_t i = 1; i < layouts.size(); ++i) {
    if (is_better(layouts[i], layouts[best])) {
      best = i;
    }
  }
  return best;
}

std::string DegreesText(const Parallelism& parallelism) {
  return absl::StrCat("tp ", parallelism.tp, ", dp ", parallelism.dp, ", ep ", parallelism.ep);
}

std::string LatencyReason(const LayoutPlan& chosen, const std::vector<LayoutPlan>& layouts) {
  const StepSeconds& decode = chosen.predicted.decode;
  std::string why = absl::StrFormat(
      "shortest time per token at batch 1: %.2f ms (memory %.2f, launches %.2f, "
      "collectives %.2f, exchange %.2f)",
      decode.total() * 1e3, decode.compute * 1e3, decode.launches * 1e3, decode.collectives * 1e3,
      decode.exchange * 1e3);
  const LayoutPlan* next = nullptr;
  for (const LayoutPlan& layout : layouts) {
    if (layout.parallelism.tp != chosen.parallelism.tp &&
        (next == nullptr || Latency(layout) < Latency(*next))) {
      next = &layout;
    }
  }
  if (next != nullptr) {
    absl::StrAppendFormat(&why, "; %s would take %.2f ms", DegreesText(next->parallelism),
                          Latency(*next) * 1e3);
  }
  return why;
}

std::string ThroughputReason(const LayoutPlan& chosen, const LayoutPlan& fastest) {
  std::string why = absl::StrFormat("most tokens at a time: %.0f tokens/s of %d sequences",
                                    Throughput(chosen), chosen.predicted.decode_sequences);
  if (DegreesText(chosen.parallelism) != DegreesText(fastest.parallelism)) {
    absl::StrAppendFormat(&why, "; %s gives %.0f of %d", DegreesText(fastest.parallelism),
                          Throughput(fastest), fastest.predicted.decode_sequences);
  }
  return why;
}

// Each tp once, in its fastest form, beside what is already there.
void AddOthers(std::vector<LayoutPlan> layouts, Plan& plan) {
  std::set<int> seen = {plan.best.parallelism.tp};
  for (const LayoutPlan& layout : plan.alternatives) {
    seen.insert(layout.parallelism.tp);
  }
  std::sort(layouts.begin(), layouts.end(), [](const LayoutPlan& left, const LayoutPlan& right) {
    return Latency(left) < Latency(right);
  });
  for (LayoutPlan& layout : layouts) {
    if (plan.alternatives.size() < kMaxAlternatives && seen.insert(layout.parallelism.tp).second) {
      layout.why = absl::StrFormat("%.2f ms per token at batch 1, %.0f tokens/s of %d sequences",
                                   Latency(layout) * 1e3, Throughput(layout),
                                   layout.predicted.decode_sequences);
      plan.alternatives.push_back(std::move(layout));
    }
  }
}

Plan Choose(std::vector<LayoutPlan> fitting) {
  Plan plan;
  const size_t fastest = Best(fitting, IsFaster);
  const size_t fullest = Best(fitting, HasMoreThroughput);
  plan.best = fitting[fastest];
  plan.best.why = LatencyReason(plan.best, fitting);
  if (fullest != fastest) {
    LayoutPlan& throughput = plan.alternatives.emplace_back(fitting[fullest]);
    throughput.why = ThroughputReason(throughput, plan.best);
  } else if (fitting.size() > 1) {
    absl::StrAppend(&plan.best.why, "; also ", ThroughputReason(plan.best, plan.best));
  }
  AddOthers(std::move(fitting), plan);
  return plan;
}

// The first layout of `request` that fits, if any does.
std::optional<Parallelism> FirstThatFits(const PlanRequest& request) {
  for (const Parallelism& parallelism : Candidates(request)) {
    const absl::StatusOr<LayoutPlan> layout = PlanLayout(request, parallelism);
    if (layout.ok() && layout->fits) {
      return parallelism;
    }
  }
  return std::nullopt;
}

// Degrees are free in it: those that were given are for the GPUs that are too few.
std::optional<PlanChange> MoreGpus(const PlanRequest& request, int64_t checkpoint_bytes) {
  if (request.hardware.is_shared) {
    return std::nullopt;  // more ranks of a node bring no memory
  }
  PlanRequest larger = request;
  larger.tp = larger.dp = larger.ep = std::nullopt;
  larger.nodes = std::nullopt;
  // A rank holds its part of all but the embedding; only untied ones may leave it.
  const int64_t room = request.hardware.memory_bytes - request.hardware.reserve_bytes;
  if (room < 1) {
    return std::nullopt;
  }
  const int64_t least = checkpoint_bytes / 2 / room;
  for (int64_t gpus = std::max(request.gpus + 1, least); gpus <= kGpusByDoubling;
       gpus = gpus < kGpusOneByOne ? gpus + 1 : gpus * 2) {
    larger.gpus = gpus;
    if (const std::optional<Parallelism> layout = FirstThatFits(larger); layout.has_value()) {
      return PlanChange{PlanChange::Kind::kMoreGpus, gpus, *layout};
    }
  }
  return std::nullopt;
}

// The longest context, the most sequences, for which some layout has room.
std::vector<PlanChange> Less(const PlanRequest& request, const std::vector<LayoutPlan>& layouts) {
  PlanChange context = {PlanChange::Kind::kShorterContext, 0, {}};
  PlanChange sequences = {PlanChange::Kind::kFewerSequences, 0, {}};
  for (const LayoutPlan& layout : layouts) {
    const Parallelism& parallelism = layout.parallelism;
    const int64_t group_tokens = layout.kv_tokens / parallelism.dp;
    const int64_t group_sequences = (request.concurrency + parallelism.dp - 1) / parallelism.dp;
    const int64_t length = group_tokens / group_sequences / request.block_size * request.block_size;
    if (length > context.value) {
      context = {context.kind, length, parallelism};
    }
    const int64_t blocks = (layout.context + request.block_size - 1) / request.block_size;
    const int64_t fitting = group_tokens / (blocks * request.block_size) * parallelism.dp;
    if (fitting > sequences.value) {
      sequences = {sequences.kind, fitting, parallelism};
    }
  }
  std::vector<PlanChange> changes;
  for (const PlanChange& change : {context, sequences}) {
    if (change.value > 0) {
      changes.push_back(change);
    }
  }
  return changes;
}

// The layout that lacks least, and what would help.
Plan Refuse(const PlanRequest& request, std::vector<LayoutPlan> layouts) {
  Plan plan;
  plan.changes = Less(request, layouts);
  const size_t nearest = Best(layouts, [](const LayoutPlan& left, const LayoutPlan& right) {
    return left.missing_bytes < right.missing_bytes;
  });
  plan.best = std::move(layouts[nearest]);
  plan.best.why = "nothing fits; this layout lacks least";
  const std::optional<PlanChange> more = MoreGpus(request, plan.best.checkpoint_bytes);
  if (more.has_value()) {
    plan.changes.insert(plan.changes.begin(), *more);
  }
  return plan;
}

}  // namespace

absl::StatusOr<Plan> MakePlan(const PlanRequest& request) {
  RETURN_IF_ERROR(CheckRequest(request));
  ASSIGN_OR_RETURN(std::vector<LayoutPlan> layouts, PlanAll(request));
  const auto fits = [](const LayoutPlan& layout) { return layout.fits; };
  if (std::none_of(layouts.begin(), layouts.end(), fits)) {
    return Refuse(request, std::move(layouts));
  }
  layouts.erase(std::remove_if(layouts.begin(), layouts.end(), std::not_fn(fits)), layouts.end());
  return Choose(std::move(layouts));
}

}  // namespace cohort
