#include "runtime/position_rule.h"

#include <algorithm>

#include "kernels/check.h"

namespace cohort {

PositionRule::PositionRule(const ModelConfig& config, int64_t max_positions)
    : theta_(config.rope_theta),
      head_dim_(config.head_dim),
      yarn_(config.yarn),
      chunks_(config.dual_chunk),
      positions_(max_positions),
      plain_positions_(0) {
  if (chunks_.has_value()) {  // it has rotations of its own
    positions_ = chunks_->rope_rows();
  } else if (config.yarn_auto) {
    plain_positions_ = std::min(yarn_->original_positions, max_positions);
  }
}

std::vector<RopeRows> PositionRule::rope_parts() const {
  const RopeRows plain = {InverseFrequencies(theta_, head_dim_), 1, positions_};
  if (chunks_.has_value() || !yarn_.has_value()) {
    return {plain};
  }
  std::vector<RopeRows> parts = {
      {InverseFrequencies(theta_, head_dim_, *yarn_), yarn_->attention_factor, positions_}};
  if (plain_positions_ > 0) {
    parts.push_back(plain);
    parts.back().positions = plain_positions_;
  }
  return parts;
}

int64_t PositionRule::rope_rows() const { return positions_ + plain_positions_; }

int32_t PositionRule::RopeRow(const SequenceKind& kind, int64_t position) const {
  if (chunks_.has_value()) {
    return static_cast<int32_t>(position % chunks_->chunk_length());
  }
  if (!kind.plain_rope) {
    return static_cast<int32_t>(position);
  }
  CHECK_LT(position, plain_positions_) << "position of a sequence of plain rope";
  return static_cast<int32_t>(positions_ + position);
}

float PositionRule::LogitFactor(const SequenceKind& kind, int64_t position) const {
  if (!chunks_.has_value() || chunks_->original_positions == 0) {
    return 1;
  }
  const double length = static_cast<double>(std::max(kind.prompt_tokens, position + 1));
  const double temperature =
      YarnTemperature(length / static_cast<double>(chunks_->original_positions));
  return static_cast<float>(temperature * temperature);
}

}  // namespace cohort
