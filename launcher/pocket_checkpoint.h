// The checkpoint that is part of the program: deploy/pocket as it was when this was built, served
// as MODEL `pocket` from any working directory.
#ifndef COHORT_LAUNCHER_POCKET_CHECKPOINT_H_
#define COHORT_LAUNCHER_POCKET_CHECKPOINT_H_

#include <string>

#include "absl/types/span.h"
#include "launcher/unpacked_files.h"

namespace cohort {

inline constexpr char kPocketName[] = "pocket";

// What a checkpoint directory holds: config.json, model.safetensors, tokenizer.json and so on.
absl::Span<const EmbeddedFile> PocketFiles();

// The directory that MODEL stands for: `pocket` is unpacked for this user (UnpackIntoCache), any
// other name is returned as it is. A directory of the name `pocket` goes first.
absl::StatusOr<std::string> ResolveModel(const std::string& model);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_POCKET_CHECKPOINT_H_
