#include "launcher/plan_report.h"

namespace cohort {
namespace {

nlohmann::ordered_json RangeJson(Range range) {
  return {{"begin", range.begin}, {"end", range.end}};
}

nlohmann::ordered_json DegreesJson(const Parallelism& parallelism) {
  return {{"tp", parallelism.tp}, {"dp", parallelism.dp}, {"ep", parallelism.ep}};
}

nlohmann::ordered_json WeightsJson(const WeightParts& weights) {
  return {{"embedding", weights.embedding},
          {"attention", weights.attention},
          {"dense_ffn", weights.dense_ffn},
          {"experts", weights.experts},
          {"shared_expert", weights.shared_expert},
          {"router", weights.router},
          {"norms", weights.norms},
          {"head", weights.head}};
}

nlohmann::ordered_json RankJson(const RankPlan& rank) {
  return {{"rank", rank.rank},
          {"query_heads", rank.query_heads.size()},
          {"kv_heads", rank.kv_heads.size()},
          {"ffn_columns", rank.ffn_columns.size()},
          {"experts", rank.experts.size()},
          {"vocabulary_rows", rank.vocabulary.size()},
          {"weight_bytes", rank.weights.total()},
          {"kv_bytes_per_token", rank.kv_per_token},
          {"workspace_bytes", rank.workspace},
          {"expert_columns", rank.expert_columns.size()},
          {"shared_expert_columns", rank.shared_expert_columns.size()},
          {"weights", WeightsJson(rank.weights)},
          {"host_bytes", rank.host},
          {"kv_bytes", rank.kv},
          {"communication_bytes", rank.communication},
          {"reserve_bytes", rank.reserve},
          {"free_bytes", rank.free},
          {"ranges",
           {{"query_heads", RangeJson(rank.query_heads)},
            {"kv_heads", RangeJson(rank.kv_heads)},
            {"ffn_columns", RangeJson(rank.ffn_columns)},
            {"experts", RangeJson(rank.experts)},
            {"expert_columns", RangeJson(rank.expert_columns)},
            {"shared_expert_columns", RangeJson(rank.shared_expert_columns)},
            {"vocabulary_rows", RangeJson(rank.vocabulary)}}}};
}

nlohmann::ordered_json PredictedJson(const Prediction& predicted) {
  const StepSeconds& decode = predicted.decode;
  return {{"decode_ms_batch1", decode.total() * 1e3},
          {"prefill_tokens_per_s", predicted.prefill_tokens_per_second},
          {"decode_tokens_per_s", predicted.decode_tokens_per_second},
          {"decode_sequences", predicted.decode_sequences},
          {"decode_ms_batch1_parts",
           {{"compute", decode.compute * 1e3},
            {"launches", decode.launches * 1e3},
            {"collectives", decode.collectives * 1e3},
            {"exchange", decode.exchange * 1e3}}},
          {"measured", false}};
}

nlohmann::ordered_json LayoutJson(const LayoutPlan& layout) {
  nlohmann::ordered_json ranks = nlohmann::ordered_json::array();
  for (const RankPlan& rank : layout.ranks) ranks.push_back(RankJson(rank));
  return {{"layout", DegreesJson(layout.parallelism)},
          {"ranks", std::move(ranks)},
          {"checkpoint_bytes", layout.checkpoint_bytes},
          {"replicated_bytes", layout.replicated_bytes},
          {"host_bytes", layout.host_bytes},
          {"kv_tokens", layout.kv_tokens},
          {"context", layout.context},
          {"concurrency", layout.concurrency},
          {"imbalance", layout.imbalance},
          {"predicted", PredictedJson(layout.predicted)},
          {"fits", layout.fits},
          {"missing_bytes", layout.missing_bytes},
          {"nodes", layout.nodes},
          {"idle_gpus", layout.idle_gpus},
          {"why", layout.why}};
}

const char* NameOf(PlanChange::Kind kind) {
  switch (kind) {
    case PlanChange::Kind::kMoreGpus:
      return "gpus";
    case PlanChange::Kind::kShorterContext:
      return "context";
    case PlanChange::Kind::kFewerSequences:
      return "concurrency";
  }
  return "";
}

}  // namespace

nlohmann::ordered_json PlanJson(const PlanSubject& subject, const Plan& plan) {
  nlohmann::ordered_json json = {{"model", subject.model},
                                 {"dtype", std::string(NameOf(subject.dtype))},
                                 {"gpus", subject.gpus},
                                 {"gpu",
                                  {{"name", subject.hardware.name},
                                   {"memory_bytes", subject.hardware.memory_bytes},
                                   {"reserve_bytes", subject.hardware.reserve_bytes},
                                   {"shared", subject.hardware.is_shared}}}};
  json.update(LayoutJson(plan.best));
  nlohmann::ordered_json changes = nlohmann::ordered_json::array();
  for (const PlanChange& change : plan.changes) {
    changes.push_back({{"change", NameOf(change.kind)},
                       {"value", change.value},
                       {"layout", DegreesJson(change.parallelism)}});
  }
  json["changes"] = std::move(changes);
  nlohmann::ordered_json alternatives = nlohmann::ordered_json::array();
  for (const LayoutPlan& layout : plan.alternatives) alternatives.push_back(LayoutJson(layout));
  json["alternatives"] = std::move(alternatives);
  return json;
}

}  // namespace cohort
