#include "runtime/rope_config.h"

#include <cmath>

namespace cohort {
namespace {

absl::Status CheckWholeRotation(const ConfigKeys& keys) {
  double factor = 1;
  RETURN_IF_ERROR(keys.Read("partial_rotary_factor", factor));
  return factor == 1 ? absl::OkStatus()
                     : keys.Unsupported("partial_rotary_factor",
                                        "the whole head is rotated; only 1 is supported");
}

// "default", "yarn" or another word; rope_type goes before the older type.
absl::StatusOr<std::string> TypeOf(const ConfigKeys& scaling) {
  std::string type;
  RETURN_IF_ERROR(scaling.Read("type", type));
  RETURN_IF_ERROR(scaling.Read("rope_type", type));
  if (type.empty() && scaling.Find("factor") != nullptr) {
    return scaling.Error("rope_type", "is missing, so nothing says what its factor does");
  }
  return type.empty() ? "default" : type;
}

// One factor from `attention_factor`, or from the two exponents that DeepSeek's files have.
absl::Status ParseAttentionFactor(const ConfigKeys& scaling, YarnScaling& yarn) {
  double mscale = 0, mscale_all_dim = 0;
  RETURN_IF_ERROR(scaling.ReadUnlessZero("mscale", mscale));
  RETURN_IF_ERROR(scaling.ReadUnlessZero("mscale_all_dim", mscale_all_dim));
  yarn.attention_factor =
      mscale > 0 && mscale_all_dim > 0
          ? YarnTemperature(yarn.factor, mscale) / YarnTemperature(yarn.factor, mscale_all_dim)
          : YarnTemperature(yarn.factor);
  return scaling.Read("attention_factor", yarn.attention_factor);
}

// Keys of other implementations whose values would mean another computation.
absl::Status CheckNoOtherFactor(const ConfigKeys& scaling) {
  for (const StringView key : {"attn_factor", "extrapolation_factor"}) {
    double factor = 1;
    RETURN_IF_ERROR(scaling.Read(key, factor));
    if (factor != 1) {
      return scaling.Unsupported(key, "only 1 is supported; attention_factor is read");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLength(const ConfigKeys& scaling, const YarnScaling& yarn) {
  if (yarn.factor < 1) {
    return scaling.Error("factor", absl::StrCat("is ", yarn.factor, "; it must be at least 1"));
  }
  if (static_cast<double>(yarn.original_positions) * yarn.factor > kMaxPositions) {
    return scaling.Error("factor",
                         absl::StrCat("is ", yarn.factor, "; of ", yarn.original_positions,
                                      " positions it makes ", "more than ", kMaxPositions));
  }
  return absl::OkStatus();
}

// The original length is max_position_embeddings where the file says nothing else.
absl::Status ParseOriginalPositions(const ConfigKeys& scaling, int64_t& positions) {
  return scaling.Read("original_max_position_embeddings", kMaxPositions, positions);
}

absl::StatusOr<YarnScaling> ParseYarn(const ConfigKeys& scaling, int64_t max_positions) {
  YarnScaling yarn;
  yarn.original_positions = max_positions;
  RETURN_IF_ERROR(ParseOriginalPositions(scaling, yarn.original_positions));
  if (scaling.Find("factor") == nullptr &&
      scaling.Find("original_max_position_embeddings") != nullptr) {
    yarn.factor = static_cast<double>(max_positions) / static_cast<double>(yarn.original_positions);
  } else {
    RETURN_IF_ERROR(scaling.Require("factor", yarn.factor));
  }
  RETURN_IF_ERROR(CheckLength(scaling, yarn));
  RETURN_IF_ERROR(ParseAttentionFactor(scaling, yarn));
  RETURN_IF_ERROR(CheckNoOtherFactor(scaling));
  RETURN_IF_ERROR(scaling.ReadUnlessZero("beta_fast", yarn.beta_fast));
  RETURN_IF_ERROR(scaling.ReadUnlessZero("beta_slow", yarn.beta_slow));
  if (yarn.beta_fast < yarn.beta_slow) {
    return scaling.Error(
        "beta_fast", absl::StrCat("is ", yarn.beta_fast,
                                  "; it must be at least beta_slow, which is ", yarn.beta_slow));
  }
  RETURN_IF_ERROR(scaling.Read("truncate", yarn.truncate));
  return yarn;
}

// What a rope_scaling or rope_parameters object says; an override of YaRN only asks it for the
// original length.
absl::Status ParseScaling(const ConfigKeys& scaling, bool is_overridden, int64_t max_positions,
                          std::optional<YarnScaling>& yarn, int64_t& original_positions) {
  if (is_overridden) {
    return ParseOriginalPositions(scaling, original_positions);
  }
  ASSIGN_OR_RETURN(const std::string type, TypeOf(scaling));
  if (type == "default") {
    return absl::OkStatus();
  }
  if (type != "yarn") {
    const StringView key = scaling.Find("rope_type") != nullptr ? "rope_type" : "type";
    return scaling.Unsupported(key, "\"default\" and \"yarn\" are supported");
  }
  ASSIGN_OR_RETURN(yarn, ParseYarn(scaling, max_positions));
  return absl::OkStatus();
}

absl::StatusOr<YarnScaling> OverriddenYarn(const YarnOverride& wanted, int64_t original_positions) {
  YarnScaling yarn;
  yarn.factor = wanted.factor;
  yarn.original_positions =
      wanted.original_positions > 0 ? wanted.original_positions : original_positions;
  yarn.attention_factor = YarnTemperature(yarn.factor);
  const double positions = static_cast<double>(yarn.original_positions) * yarn.factor;
  if (!(yarn.factor >= 1) || !(positions <= kMaxPositions)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--rope-scaling yarn:", yarn.factor, ":", yarn.original_positions,
        ": the factor must be at least 1 and make at most ", kMaxPositions, " positions"));
  }
  return yarn;
}

// A dual_chunk_attention_config object.
absl::StatusOr<DualChunkConfig> ParseChunks(const ConfigKeys& keys) {
  DualChunkConfig chunks{.chunk_size = 8192, .local_size = 1024};  // what vLLM takes
  RETURN_IF_ERROR(keys.Read("chunk_size", kMaxPositions, chunks.chunk_size));
  RETURN_IF_ERROR(keys.Read("local_size", kMaxPositions, chunks.local_size));
  double original_positions = 0;  // 0 is as good as absent
  RETURN_IF_ERROR(keys.ReadUnlessZero("original_max_position_embeddings", original_positions));
  if (original_positions > 0) {
    RETURN_IF_ERROR(
        keys.Read("original_max_position_embeddings", kMaxPositions, chunks.original_positions));
  }
  bool is_sparse = false;
  RETURN_IF_ERROR(keys.Read("sparse_attention_enabled", is_sparse));
  if (is_sparse) {
    return keys.Unsupported("sparse_attention_enabled",
                            "only dense attention is supported; set it to false");
  }
  if (chunks.local_size >= chunks.chunk_size) {
    return keys.Error("local_size",
                      absl::StrCat("is ", chunks.local_size,
                                   "; it must be below chunk_size, which is ", chunks.chunk_size));
  }
  return chunks;
}

}  // namespace

absl::Status ParseRope(const ConfigKeys& keys, const ModelOverrides& overrides,
                       ModelConfig& config) {
  RETURN_IF_ERROR(CheckWholeRotation(keys));
  RETURN_IF_ERROR(keys.Read("rope_theta", config.rope_theta));
  int64_t original_positions = config.max_positions;
  for (const StringView key : {"rope_scaling", "rope_parameters"}) {
    const Json* object = keys.Find(key);
    if (object == nullptr) {
      continue;
    }
    if (!object->is_object()) {
      return keys.Unsupported(key, "expected an object");
    }
    const ConfigKeys scaling(*object, absl::StrCat(keys.what(), ": ", key));
    RETURN_IF_ERROR(CheckWholeRotation(scaling));
    RETURN_IF_ERROR(ParseScaling(scaling, overrides.yarn.has_value(), config.max_positions,
                                 config.yarn, original_positions));
    double theta = config.rope_theta;
    RETURN_IF_ERROR(scaling.Read("rope_theta", theta));
    if (config.rope_theta != 0 && theta != config.rope_theta) {
      return keys.Unsupported(key,
                              absl::StrCat("it disagrees with rope_theta ", config.rope_theta));
    }
    config.rope_theta = theta;
  }
  if (config.rope_theta == 0) {
    return keys.Missing("rope_theta");
  }
  if (overrides.yarn.has_value()) {
    ASSIGN_OR_RETURN(config.yarn, OverriddenYarn(*overrides.yarn, original_positions));
  }
  config.yarn_auto = overrides.yarn_auto;
  if (config.yarn_auto && !config.yarn.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--yarn auto: ", keys.what(),
                     " has no rope_scaling of type yarn; add --rope-scaling "
                     "yarn:FACTOR"));
  }
  if (config.yarn.has_value()) {
    if (config.rope_theta <= 1) {
      return keys.Error("rope_theta",
                        absl::StrCat("is ", config.rope_theta, "; with YaRN it must be above 1"));
    }
    config.max_positions = config.yarn->positions();
  }
  return absl::OkStatus();
}

absl::Status ParseDualChunks(const ConfigKeys& keys, const ModelOverrides& overrides,
                             ModelConfig& config) {
  config.dual_chunk = overrides.dual_chunk;
  const StringView key = "dual_chunk_attention_config";
  if (const Json* object = keys.Find(key); object != nullptr && !config.dual_chunk.has_value()) {
    if (!object->is_object()) {
      return keys.Unsupported(key, "expected an object");
    }
    ASSIGN_OR_RETURN(config.dual_chunk,
                     ParseChunks(ConfigKeys(*object, absl::StrCat(keys.what(), ": ", key))));
  }
  config.position_limit = config.dual_chunk.has_value() ? kMaxPositions : config.max_positions;
  if (config.dual_chunk.has_value() && config.yarn_auto) {
    return absl::InvalidArgumentError(
        "--yarn auto: with dual chunk attention rotations are plain at every length; leave it out");
  }
  return absl::OkStatus();
}

}  // namespace cohort
