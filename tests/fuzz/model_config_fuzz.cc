// A config that parses can be used.
#include "kernels/check.h"
#include "runtime/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const cohort::StringView text(reinterpret_cast<const char*>(data), size);
  absl::StatusOr<cohort::ModelConfig> config = cohort::ParseModelConfig(text, "config.json");
  if (config.ok()) {
    CHECK(config->layers > 0 && config->hidden > 0 && config->vocabulary > 0);
    const cohort::ModelDims dims = config->Dims(cohort::DType::kF32);
    CHECK_EQ(dims.hidden, config->hidden);
  } else {
    CHECK(absl::IsInvalidArgument(config.status())) << config.status().ToString();
  }
  cohort::ModelConfig base = config.ok() ? *std::move(config) : cohort::ModelConfig();
  const absl::Status merged = cohort::MergeGenerationConfig(text, "generation_config.json", base);
  CHECK(merged.ok() || absl::IsInvalidArgument(merged)) << merged.ToString();
  return 0;
}
