#include "runtime/generation_defaults.h"

#include <cmath>
#include <functional>
#include <limits>

#include "runtime/json.h"

namespace cohort {
namespace {

absl::Status Fault(StringView what, StringView key, const Json& value, StringView legal) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": ", key, " is ", value.Dump(), "; it must be ", legal));
}

// Leaves `out` as it is when the key is absent.
absl::Status ReadReal(const Json& object, StringView what, StringView key, StringView legal,
                      const std::function<bool(float)>& is_legal, float& out) {
  const Json* value = object.Find(key);
  if (value == nullptr) return absl::OkStatus();
  const absl::StatusOr<double> read = value->AsReal();
  if (!read.ok() || !std::isfinite(static_cast<float>(*read)) ||
      !is_legal(static_cast<float>(*read))) {
    return Fault(what, key, *value, legal);
  }
  out = static_cast<float>(*read);
  return absl::OkStatus();
}

absl::Status ReadTopK(const Json& object, StringView what, int32_t& out) {
  const Json* value = object.Find("top_k");
  if (value == nullptr) return absl::OkStatus();
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  const absl::StatusOr<int64_t> read = value->AsInteger();
  if (!read.ok() || *read < -1 || *read > kMost) {
    return Fault(what, "top_k", *value, absl::StrCat("an integer from -1 (off) to ", kMost));
  }
  out = *read < 0 ? 0 : static_cast<int32_t>(*read);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SamplingParameters> ParseGenerationDefaults(StringView json, StringView what) {
  ASSIGN_OR_RETURN(const Json object, ParseJson(json, what));
  if (!object.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": expected an object, found ", object.kind_name()));
  }
  bool samples = false;
  if (const Json* value = object.Find("do_sample"); value != nullptr) {
    const absl::StatusOr<bool> read = value->AsBool();
    if (!read.ok()) return Fault(what, "do_sample", *value, "true or false");
    samples = *read;
  }
  SamplingParameters defaults;
  float temperature = 1;
  const auto read = [&](StringView key, StringView legal, const std::function<bool(float)>& test,
                        float& out) { return ReadReal(object, what, key, legal, test, out); };
  RETURN_IF_ERROR(read(
      "temperature", "a finite number of at least 0", [](float t) { return t >= 0; }, temperature));
  RETURN_IF_ERROR(read(
      "top_p", "a number above 0 and at most 1", [](float p) { return p > 0 && p <= 1; },
      defaults.top_p));
  RETURN_IF_ERROR(read(
      "min_p", "a number from 0 to 1", [](float p) { return p >= 0 && p <= 1; }, defaults.min_p));
  RETURN_IF_ERROR(read(
      "repetition_penalty", "a finite number above 0", [](float p) { return p > 0; },
      defaults.repetition_penalty));
  RETURN_IF_ERROR(ReadTopK(object, what, defaults.top_k));
  defaults.temperature = samples ? temperature : 0;
  return defaults;
}

}  // namespace cohort
