// How the positions of a sequence are computed: which rows a model's rope table has, which of them
// a position reads, and what scales its logits. All of it depends on the position and on what the
// sequence's admission says, never on the step that computes it.
#ifndef COHORT_RUNTIME_POSITION_RULE_H_
#define COHORT_RUNTIME_POSITION_RULE_H_

#include <cstdint>
#include <vector>

#include "runtime/model_config.h"
#include "runtime/rope.h"

namespace cohort {

// What an admission says of a sequence.
struct SequenceKind {
  bool plain_rope = false;    // with --yarn auto: short enough to do without YaRN
  int64_t prompt_tokens = 0;  // of the request
};

class PositionRule {
 public:
  // Sequences have at most `max_positions` positions.
  PositionRule(const ModelConfig& config, int64_t max_positions);

  // The parts of the rope table, in order.
  std::vector<RopeRows> rope_parts() const;
  int64_t rope_rows() const;  // of all parts

  // The row that the keys of a position read, and its queries where there is one rotation of them.
  int32_t RopeRow(const SequenceKind& kind, int64_t position) const;

  // Of the logits of the query at a position: with dual chunk attention the square of YaRN's
  // temperature at the length of the prompt, or up to this position where that is longer, over
  // the original length. Keys carry no factor, so one sequence's blocks are as good as another's.
  float LogitFactor(const SequenceKind& kind, int64_t position) const;

 private:
  double theta_;
  int64_t head_dim_;
  std::optional<YarnScaling> yarn_;
  std::optional<DualChunkConfig> chunks_;
  int64_t positions_;        // of the first part
  int64_t plain_positions_;  // of the second, for sequences of plain rope; 0: there is none
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_POSITION_RULE_H_
