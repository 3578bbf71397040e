// What two machines compare to know that they read the same checkpoint, part by part, so that a
// difference can be named. How tensors are spread over files does not matter.
//
// Of every tensor: name, dtype, shape and a hash of its bytes; of one over 64 KiB, of its first and
// last 4 KiB and of 4 KiB every 16 MiB. So another model, or a fine-tuned one, differs in thousands
// of places that are looked at, and a 140 GB checkpoint takes seconds; a single damaged byte may
// pass. The hash is for accidents, not against forgers.
#ifndef COHORT_RUNTIME_CHECKPOINT_DIGEST_H_
#define COHORT_RUNTIME_CHECKPOINT_DIGEST_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/status.h"

namespace cohort {

struct CheckpointPart {
  std::string name;  // "config.json", "tensor model.norm.weight"
  std::string form;  // "658 bytes", "BF16 [896, 4864]"
  uint64_t hash = 0;
  bool operator==(const CheckpointPart&) const = default;
};

// 64 bits of FNV-1a; the same on every machine.
uint64_t HashBytes(StringView bytes);

// The parts of a checkpoint directory, config.json first, then the tensors by name (none when
// `with_weights` is false); of the name of a published config, its text. NOT_FOUND, and the errors
// of Checkpoint::Open; CANCELLED once `cancelled` says so.
absl::StatusOr<std::vector<CheckpointPart>> DigestCheckpoint(
    const std::string& model, bool with_weights, const std::function<bool()>& cancelled);

// The first part that differs, with what both have of it; empty when none does.
std::string DescribeDifference(const std::vector<CheckpointPart>& ours,
                               const std::vector<CheckpointPart>& theirs);

}  // namespace cohort

#endif  // COHORT_RUNTIME_CHECKPOINT_DIGEST_H_
