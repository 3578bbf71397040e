#include "launcher/pocket_checkpoint.h"

#include <array>
#include <filesystem>

// The bounds that launcher/pocket_files.S gives each file.
#define COHORT_POCKET_FILE(symbol)                \
  extern "C" const char cohort_pocket_##symbol[]; \
  extern "C" const char cohort_pocket_##symbol##_end[]
COHORT_POCKET_FILE(config);
COHORT_POCKET_FILE(generation_config);
COHORT_POCKET_FILE(tokenizer);
COHORT_POCKET_FILE(tokenizer_config);
COHORT_POCKET_FILE(model);
#undef COHORT_POCKET_FILE

namespace cohort {
namespace {

StringView Between(const char* begin, const char* end) {
  return StringView(begin, static_cast<size_t>(end - begin));
}

}  // namespace

absl::Span<const EmbeddedFile> PocketFiles() {
  static const std::array<EmbeddedFile, 5> files = {{
      {"config.json", Between(cohort_pocket_config, cohort_pocket_config_end)},
      {"generation_config.json",
       Between(cohort_pocket_generation_config, cohort_pocket_generation_config_end)},
      {"tokenizer.json", Between(cohort_pocket_tokenizer, cohort_pocket_tokenizer_end)},
      {"tokenizer_config.json",
       Between(cohort_pocket_tokenizer_config, cohort_pocket_tokenizer_config_end)},
      {"model.safetensors", Between(cohort_pocket_model, cohort_pocket_model_end)},
  }};
  return files;
}

absl::StatusOr<std::string> ResolveModel(const std::string& model) {
  std::error_code ignored;
  if (model != kPocketName || std::filesystem::is_directory(model, ignored)) return model;
  return UnpackIntoCache(PocketFiles(), UnpackBases(), kPocketName);
}

}  // namespace cohort
