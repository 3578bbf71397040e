#include "runtime/config_keys.h"

#include <algorithm>
#include <cmath>

#include "runtime/utf8.h"

namespace cohort {

std::string Excerpt(const Json& value) {
  const std::string text = value.Dump();
  if (text.size() <= 100) {
    return text;
  }
  const StringView beginning = StringView(text).substr(0, 100);
  return absl::StrCat(beginning.substr(0, Utf8Prefix(beginning)), "...");
}

bool ConfigKeys::IsWritten(StringView key) const {
  const auto& members = object_.members();
  return std::any_of(members.begin(), members.end(),
                     [&](const Json::Member& member) { return member.first == key; });
}

absl::Status ConfigKeys::Error(StringView key, StringView fault) const {
  return absl::InvalidArgumentError(absl::StrCat(what_, ": ", key, " ", fault));
}

absl::Status ConfigKeys::Unsupported(StringView key, StringView reason) const {
  return Error(key, absl::StrCat("is ", Excerpt(*Find(key)), ": ", reason));
}

// Whether the key is there.
template <class T>
absl::StatusOr<bool> ConfigKeys::ReadAs(StringView key, absl::StatusOr<T> (Json::*as)() const,
                                        T& out) const {
  const Json* value = Find(key);
  if (value == nullptr) {
    return false;
  }
  absl::StatusOr<T> read = (value->*as)();
  if (!read.ok()) {
    return Error(key, absl::StrCat("is ", Excerpt(*value), ": ", read.status().message()));
  }
  out = *std::move(read);
  return true;
}

absl::Status ConfigKeys::Read(StringView key, bool& out) const {
  return ReadAs(key, &Json::AsBool, out).status();
}

absl::Status ConfigKeys::Read(StringView key, std::string& out) const {
  return ReadAs(key, &Json::AsString, out).status();
}

absl::Status ConfigKeys::Read(StringView key, int64_t limit, int64_t& out) const {
  ASSIGN_OR_RETURN(const bool is_there, ReadAs(key, &Json::AsInteger, out));
  if (is_there && (out < 1 || out > limit)) {
    return Error(key, absl::StrCat("is ", out, "; it must be in 1..", limit));
  }
  return absl::OkStatus();
}

absl::Status ConfigKeys::Read(StringView key, double& out) const {
  ASSIGN_OR_RETURN(const bool is_there, ReadAs(key, &Json::AsReal, out));
  const float stored = static_cast<float>(out);  // as it is computed with
  if (is_there && !(stored > 0 && std::isfinite(stored))) {
    return Error(key, absl::StrCat("is ", out, "; it must be a positive number of fp32"));
  }
  return absl::OkStatus();
}

absl::Status ConfigKeys::ReadUnlessZero(StringView key, double& out) const {
  double value = 0;
  ASSIGN_OR_RETURN(const bool is_there, ReadAs(key, &Json::AsReal, value));
  return is_there && value != 0 ? Read(key, out) : absl::OkStatus();
}

}  // namespace cohort
