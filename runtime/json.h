// Reading JSON strictly: duplicate keys, trailing text, invalid UTF-8 and excessive depth are
// errors with a place, and typed access reports what was there instead. The only file that includes
// the JSON library's parser; nothing is thrown out of it.
#ifndef COHORT_RUNTIME_JSON_H_
#define COHORT_RUNTIME_JSON_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/status.h"

namespace cohort {

// An immutable JSON value. Objects keep the order of the file.
class Json {
 public:
  enum class Kind { kNull, kBool, kInteger, kUnsigned, kReal, kString, kArray, kObject };
  using Member = std::pair<std::string, Json>;

  Json() = default;
  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::kNull; }
  bool is_object() const { return kind_ == Kind::kObject; }
  bool is_array() const { return kind_ == Kind::kArray; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_number() const;
  StringView kind_name() const;

  // Member of an object; nullptr when absent or not an object. Find() treats null as absent.
  const Json* Find(StringView key) const;
  const std::vector<Member>& members() const { return members_; }  // of an object
  const std::vector<Json>& elements() const { return elements_; }  // of an array

  // INVALID_ARGUMENT "expected an integer, found a string" when the kind differs.
  absl::StatusOr<bool> AsBool() const;
  absl::StatusOr<int64_t> AsInteger() const;  // a real without fraction counts
  absl::StatusOr<double> AsReal() const;      // any number
  absl::StatusOr<std::string> AsString() const;

  // The value as compact JSON text.
  std::string Dump() const;

 private:
  friend class JsonBuilder;
  Kind kind_ = Kind::kNull;
  bool bool_ = false;
  int64_t integer_ = 0;
  uint64_t unsigned_ = 0;
  double real_ = 0;
  std::string string_;
  std::vector<Json> elements_;
  std::vector<Member> members_;
};

// `what` names the source in errors ("config.json"). Depth beyond 64 is refused.
absl::StatusOr<Json> ParseJson(StringView text, StringView what);

// Reads a whole regular file. NOT_FOUND when absent, otherwise the system's error with the path;
// RESOURCE_EXHAUSTED above `max_bytes`.
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes);

// The quoted, escaped form of a UTF-8 string (invalid bytes become U+FFFD), for writing JSON.
std::string JsonQuote(StringView text);

}  // namespace cohort

#endif  // COHORT_RUNTIME_JSON_H_
