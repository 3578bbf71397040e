// Reads the keys of one object of a config file; every error is INVALID_ARGUMENT and names the
// file, the key and its value.
#ifndef COHORT_RUNTIME_CONFIG_KEYS_H_
#define COHORT_RUNTIME_CONFIG_KEYS_H_

#include <cstdint>
#include <string>

#include "runtime/json.h"

namespace cohort {

// Of a sequence: still exact as fp32, as rope needs them.
inline constexpr int64_t kMaxPositions = int64_t{1} << 24;

// A value as an error repeats it, however long the file's is.
std::string Excerpt(const Json& value);

// Null counts as absent.
class ConfigKeys {
 public:
  // `object` must outlive this.
  ConfigKeys(const Json& object, StringView what) : object_(object), what_(what) {}

  const Json* Find(StringView key) const { return object_.Find(key); }
  bool IsWritten(StringView key) const;  // even as null
  const std::string& what() const { return what_; }

  absl::Status Error(StringView key, StringView fault) const;
  absl::Status Unsupported(StringView key, StringView reason) const;  // the key must be there
  absl::Status Missing(StringView key) const { return Error(key, "is missing"); }

  // Left unchanged when absent.
  absl::Status Read(StringView key, bool& out) const;
  absl::Status Read(StringView key, std::string& out) const;
  absl::Status Read(StringView key, int64_t limit, int64_t& out) const;  // 1..limit
  absl::Status Read(StringView key, double& out) const;                  // positive, as fp32
  // The same, and 0 counts as absent.
  absl::Status ReadUnlessZero(StringView key, double& out) const;

  template <class T>
  absl::Status Require(StringView key, T& out) const {
    return Find(key) == nullptr ? Missing(key) : Read(key, out);
  }
  absl::Status Require(StringView key, int64_t limit, int64_t& out) const {
    return Find(key) == nullptr ? Missing(key) : Read(key, limit, out);
  }

 private:
  template <class T>
  absl::StatusOr<bool> ReadAs(StringView key, absl::StatusOr<T> (Json::*as)() const, T& out) const;

  const Json& object_;
  std::string what_;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_CONFIG_KEYS_H_
