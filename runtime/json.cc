#include "runtime/json.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_set.h"
#include "runtime/utf8.h"

namespace cohort {
namespace {

constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxQuotedBytes = 80;  // of outside text repeated in an error

// A key or a fragment of the text as an error may repeat it: short, quoted, valid UTF-8.
std::string Excerpt(StringView text) {
  return text.size() <= kMaxQuotedBytes
             ? JsonQuote(text)
             : absl::StrCat(JsonQuote(text.substr(0, kMaxQuotedBytes)), "...");
}

}  // namespace

// Receives the parser's events and builds the value; the first fault of our own stops the parser.
// Member names are what the parser requires.
class JsonBuilder {
 public:
  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;
  using string_t = nlohmann::json::string_t;
  using binary_t = nlohmann::json::binary_t;

  bool null() { return Add(Json()); }
  bool boolean(bool value) {
    Json json = Of(Json::Kind::kBool);
    json.bool_ = value;
    return Add(std::move(json));
  }
  bool number_integer(number_integer_t value) {
    Json json = Of(Json::Kind::kInteger);
    json.integer_ = value;
    return Add(std::move(json));
  }
  bool number_unsigned(number_unsigned_t value) {
    Json json = Of(Json::Kind::kUnsigned);
    json.unsigned_ = value;
    return Add(std::move(json));
  }
  bool number_float(number_float_t value, const string_t&) {
    Json json = Of(Json::Kind::kReal);
    json.real_ = value;
    return Add(std::move(json));
  }
  bool string(string_t& value) {
    Json json = Of(Json::Kind::kString);
    json.string_ = std::move(value);
    return Add(std::move(json));
  }
  bool binary(binary_t&) { return Fail("binary values are not JSON"); }
  bool start_object(size_t) { return Open(Json::Kind::kObject); }
  bool key(string_t& value) {
    open_.back().key = std::move(value);
    return true;
  }
  bool end_object() { return CheckUniqueKeys() && Close(); }
  bool start_array(size_t) { return Open(Json::Kind::kArray); }
  bool end_array() { return Close(); }
  bool parse_error(size_t, const std::string&, const std::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..." without the bracket.
    const StringView text = error.what();
    const size_t bracket = text.find("] ");
    std::string message;
    AppendUtf8Lossy(text.substr(bracket == StringView::npos ? 0 : bracket + 2), message);
    return Fail(std::move(message));
  }

  const std::string& fault() const { return fault_; }
  Json TakeRoot() { return std::move(root_); }

 private:
  struct OpenValue {
    Json json;
    std::string key;  // of the member being read, in an object
  };

  static Json Of(Json::Kind kind) {
    Json json;
    json.kind_ = kind;
    return json;
  }

  bool Fail(std::string fault) {
    fault_ = std::move(fault);
    return false;
  }

  bool Add(Json json) {
    if (open_.empty()) {
      root_ = std::move(json);
      return true;
    }
    OpenValue& parent = open_.back();
    if (parent.json.kind_ == Json::Kind::kObject) {
      parent.json.members_.emplace_back(std::move(parent.key), std::move(json));
    } else {
      parent.json.elements_.push_back(std::move(json));
    }
    return true;
  }

  bool Open(Json::Kind kind) {
    if (open_.size() == kMaxDepth) {
      return Fail(absl::StrCat("nested deeper than ", kMaxDepth, " levels at ", Place()));
    }
    open_.push_back({Of(kind), {}});
    return true;
  }

  bool Close() {
    Json json = std::move(open_.back().json);
    open_.pop_back();
    return Add(std::move(json));
  }

  bool CheckUniqueKeys() {
    const std::vector<Json::Member>& members = open_.back().json.members_;
    absl::flat_hash_set<StringView> keys;
    keys.reserve(members.size());
    for (const Json::Member& member : members) {
      if (!keys.insert(member.first).second) {
        open_.back().key.clear();
        return Fail(absl::StrCat("duplicate key ", Excerpt(member.first), " in ", Place()));
      }
    }
    return true;
  }

  // The open values from the outside in: "the top level", or "model"."vocab"[3].
  std::string Place() const {
    std::string place;
    for (size_t i = 0; i + 1 < open_.size(); ++i) {
      const OpenValue& value = open_[i];
      if (value.json.kind_ == Json::Kind::kObject) {
        absl::StrAppend(&place, place.empty() ? "" : ".", Excerpt(value.key));
      } else {
        absl::StrAppend(&place, "[", value.json.elements_.size(), "]");
      }
    }
    return place.empty() ? "the top level" : place;
  }

  std::vector<OpenValue> open_;
  Json root_;
  std::string fault_;
};

bool Json::is_number() const {
  return kind_ == Kind::kInteger || kind_ == Kind::kUnsigned || kind_ == Kind::kReal;
}

StringView Json::kind_name() const {
  switch (kind_) {
    case Kind::kNull:
      return "null";
    case Kind::kBool:
      return "a boolean";
    case Kind::kInteger:
    case Kind::kUnsigned:
      return "an integer";
    case Kind::kReal:
      return "a number";
    case Kind::kString:
      return "a string";
    case Kind::kArray:
      return "an array";
    case Kind::kObject:
      return "an object";
  }
  return "nothing";
}

const Json* Json::Find(StringView key) const {
  for (const Member& member : members_) {
    if (member.first == key) {
      return member.second.is_null() ? nullptr : &member.second;
    }
  }
  return nullptr;
}

absl::StatusOr<bool> Json::AsBool() const {
  if (kind_ != Kind::kBool) {
    return absl::InvalidArgumentError(absl::StrCat("expected a boolean, found ", kind_name()));
  }
  return bool_;
}

absl::StatusOr<int64_t> Json::AsInteger() const {
  if (kind_ == Kind::kInteger) {
    return integer_;
  }
  if (kind_ == Kind::kUnsigned &&
      unsigned_ <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return static_cast<int64_t>(unsigned_);
  }
  if (kind_ == Kind::kReal && std::abs(real_) < 0x1p63 && std::trunc(real_) == real_) {
    return static_cast<int64_t>(real_);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("expected an integer, found ", is_number() ? Dump() : std::string(kind_name())));
}

absl::StatusOr<double> Json::AsReal() const {
  switch (kind_) {
    case Kind::kInteger:
      return static_cast<double>(integer_);
    case Kind::kUnsigned:
      return static_cast<double>(unsigned_);
    case Kind::kReal:
      return real_;
    default:
      return absl::InvalidArgumentError(absl::StrCat("expected a number, found ", kind_name()));
  }
}

absl::StatusOr<std::string> Json::AsString() const {
  if (kind_ != Kind::kString) {
    return absl::InvalidArgumentError(absl::StrCat("expected a string, found ", kind_name()));
  }
  return string_;
}

namespace {

// The shortest text that reads back as the same number, and as a real.
std::string DumpReal(double value) {
  char buffer[40];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof(buffer), value);
  std::string text(buffer, error == std::errc() ? end : buffer);
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

}  // namespace

std::string Json::Dump() const {
  switch (kind_) {
    case Kind::kNull:
      return "null";
    case Kind::kBool:
      return bool_ ? "true" : "false";
    case Kind::kInteger:
      return absl::StrCat(integer_);
    case Kind::kUnsigned:
      return absl::StrCat(unsigned_);
    case Kind::kReal:
      return DumpReal(real_);
    case Kind::kString:
      return JsonQuote(string_);
    case Kind::kArray: {
      std::string text = "[";
      for (const Json& element : elements_) {
        absl::StrAppend(&text, text.size() > 1 ? "," : "", element.Dump());
      }
      return text + "]";
    }
    case Kind::kObject: {
      std::string text = "{";
      for (const Member& member : members_) {
        absl::StrAppend(&text, text.size() > 1 ? "," : "", JsonQuote(member.first), ":",
                        member.second.Dump());
      }
      return text + "}";
    }
  }
  return "null";
}

absl::StatusOr<Json> ParseJson(StringView text, StringView what) {
  if (const size_t zero = text.find('\0'); zero != StringView::npos) {
    // The parser would take it for the end of the text.
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": not valid JSON: a zero byte at offset ", zero));
  }
  JsonBuilder builder;
  try {
    if (nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) {
      return builder.TakeRoot();
    }
  } catch (const std::exception& error) {
    return absl::ResourceExhaustedError(absl::StrCat(what, ": ", error.what()));
  }
  return absl::InvalidArgumentError(absl::StrCat(what, ": not valid JSON: ", builder.fault()));
}

namespace {

class FileDescriptor {
 public:
  explicit FileDescriptor(int descriptor) : descriptor_(descriptor) {}
  ~FileDescriptor() {
    if (descriptor_ >= 0) {
      close(descriptor_);
    }
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes) {
  // Not blocking: opening a named pipe must not wait for its writer.
  const FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status;
  if (file.get() < 0 || fstat(file.get(), &status) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  }
  if (!S_ISREG(status.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is not a regular file"));
  }
  std::string content;
  if (status.st_size <= max_bytes) {
    content.resize(static_cast<size_t>(status.st_size) + 1);  // one more tells a file that grew
    size_t filled = 0;
    while (filled < content.size()) {
      const ssize_t got = read(file.get(), content.data() + filled, content.size() - filled);
      if (got < 0 && errno != EINTR) {
        return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
      }
      if (got == 0) {
        content.resize(filled);
        return content;
      }
      filled += static_cast<size_t>(got > 0 ? got : 0);
    }
    return absl::UnavailableError(absl::StrCat(path, " changed while it was read; try again"));
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      path, " has ", status.st_size, " bytes, more than the ", max_bytes, " that are read of it"));
}

std::string JsonQuote(StringView text) {
  std::string valid;
  if (AppendUtf8Lossy(text, valid) > 0) {
    valid += kReplacementCharacter;
  }
  static constexpr char kHexDigits[] = "0123456789abcdef";
  std::string quoted = "\"";
  for (const char character : valid) {
    switch (character) {
      case '"':
        quoted += "\\\"";
        break;
      case '\\':
        quoted += "\\\\";
        break;
      case '\n':
        quoted += "\\n";
        break;
      case '\r':
        quoted += "\\r";
        break;
      case '\t':
        quoted += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(character) < 0x20) {
          quoted += "\\u00";
          quoted += kHexDigits[character >> 4];
          quoted += kHexDigits[character & 15];
        } else {
          quoted += character;
        }
    }
  }
  return quoted + "\"";
}

}  // namespace cohort
