#include "runtime/checkpoint_digest.h"

#include <algorithm>
#include <filesystem>
#include <memory>

#include "absl/strings/str_join.h"
#include "runtime/json.h"
#include "runtime/model_config.h"
#include "runtime/published_configs.h"
#include "runtime/safetensors.h"

namespace cohort {
namespace {

constexpr uint64_t kWholeBytes = 64 << 10;
constexpr uint64_t kSampleBytes = 4 << 10;
constexpr uint64_t kSampleDistance = 16 << 20;

constexpr uint64_t kFnvStart = 0xcbf29ce484222325;
constexpr uint64_t kFnvPrime = 0x100000001b3;

uint64_t Extend(uint64_t hash, StringView bytes) {
  for (const char byte : bytes) {
    hash = (hash ^ static_cast<unsigned char>(byte)) * kFnvPrime;
  }
  return hash;
}

uint64_t HashTensor(StringView data) {
  if (data.size() <= kWholeBytes) return Extend(kFnvStart, data);
  uint64_t hash = kFnvStart;
  for (uint64_t begin = 0; begin + kSampleBytes <= data.size(); begin += kSampleDistance) {
    hash = Extend(hash, data.substr(begin, kSampleBytes));
  }
  return Extend(hash, data.substr(data.size() - kSampleBytes));
}

CheckpointPart DigestConfig(const std::string& text) {
  return {"config.json", absl::StrCat(text.size(), " bytes"), HashBytes(text)};
}

std::string Words(const CheckpointPart& part) {
  return absl::StrCat(part.form, ", hash ", absl::Hex(part.hash, absl::kZeroPad16));
}

}  // namespace

uint64_t HashBytes(StringView bytes) { return Extend(kFnvStart, bytes); }

absl::StatusOr<std::vector<CheckpointPart>> DigestCheckpoint(
    const std::string& model, bool with_weights, const std::function<bool()>& cancelled) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(model, ignored)) {
    const char* const published = PublishedConfig(model);
    if (published == nullptr || with_weights) {
      return absl::NotFoundError(absl::StrCat("'", model, "' is no checkpoint directory here"));
    }
    return std::vector<CheckpointPart>{DigestConfig(published)};
  }
  ASSIGN_OR_RETURN(const std::string config, ReadFile(model + "/config.json", kMaxConfigBytes));
  std::vector<CheckpointPart> parts = {DigestConfig(config)};
  if (!with_weights) return parts;
  ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint, Checkpoint::Open(model));
  for (const StoredTensor& tensor : checkpoint->tensors()) {
    if (cancelled()) return absl::CancelledError("the digest of the checkpoint is not wanted");
    const StringView data(reinterpret_cast<const char*>(checkpoint->data(tensor)),
                          tensor.end - tensor.begin);
    parts.push_back({absl::StrCat("tensor ", tensor.name),
                     absl::StrCat(tensor.dtype, " [", absl::StrJoin(tensor.shape, ", "), "]"),
                     HashTensor(data)});
  }
  std::sort(parts.begin() + 1, parts.end(),
            [](const CheckpointPart& a, const CheckpointPart& b) { return a.name < b.name; });
  return parts;
}

std::string DescribeDifference(const std::vector<CheckpointPart>& ours,
                               const std::vector<CheckpointPart>& theirs) {
  const size_t common = std::min(ours.size(), theirs.size());
  for (size_t i = 0; i < common; ++i) {
    if (ours[i].name != theirs[i].name) {
      const bool missing = ours[i].name < theirs[i].name;
      return absl::StrCat(missing ? ours[i].name : theirs[i].name,
                          missing ? " is missing there" : " is only there");
    }
    if (ours[i] != theirs[i]) {
      return absl::StrCat(ours[i].name, " is ", Words(ours[i]), " here and ", Words(theirs[i]),
                          " there");
    }
  }
  if (ours.size() > common) return absl::StrCat(ours[common].name, " is missing there");
  if (theirs.size() > common) return absl::StrCat(theirs[common].name, " is only there");
  return "";
}

}  // namespace cohort
