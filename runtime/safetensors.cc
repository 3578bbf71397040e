#include "runtime/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_join.h"
#include "runtime/json.h"

namespace cohort {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr int64_t kMaxIndexBytes = int64_t{256} << 20;
constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";

std::optional<uint64_t> BitsOf(StringView dtype) {
  static constexpr std::pair<StringView, uint64_t> kBits[] = {
      {"BOOL", 8},    {"U8", 8},   {"I8", 8},          {"F8_E5M2", 8},     {"F8_E4M3", 8},
      {"F8_E8M0", 8}, {"F4", 4},   {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6},
      {"F6_E3M2", 6}, {"I16", 16}, {"U16", 16},        {"F16", 16},        {"BF16", 16},
      {"I32", 32},    {"U32", 32}, {"F32", 32},        {"C64", 64},        {"F64", 64},
      {"I64", 64},    {"U64", 64},
  };
  for (const auto& [name, bits] : kBits) {
    if (name == dtype) {
      return bits;
    }
  }
  return std::nullopt;
}

// Bytes of a tensor; nullopt when they overflow or do not end on a byte.
std::optional<uint64_t> BytesOf(const std::vector<int64_t>& shape, uint64_t bits) {
  uint64_t product = 1;
  for (const int64_t dim : shape) {
    if (__builtin_mul_overflow(product, static_cast<uint64_t>(dim), &product)) {
      return std::nullopt;
    }
  }
  if (__builtin_mul_overflow(product, bits, &product) || product % 8 != 0) {
    return std::nullopt;
  }
  return product / 8;
}

absl::StatusOr<std::vector<int64_t>> ParseCounts(const Json& entry, StringView key) {
  const Json* list = entry.Find(key);
  if (list == nullptr || !list->is_array()) {
    return absl::InvalidArgumentError(absl::StrCat(key, " is not a list"));
  }
  std::vector<int64_t> counts;
  for (const Json& element : list->elements()) {
    const absl::StatusOr<int64_t> count = element.AsInteger();
    if (!count.ok() || *count < 0 || element.kind() == Json::Kind::kReal) {
      return absl::InvalidArgumentError(
          absl::StrCat(key, " holds ", element.Dump(), ", not a count"));
    }
    counts.push_back(*count);
  }
  return counts;
}

// One entry of the header; offsets still relative to the buffer.
absl::StatusOr<StoredTensor> ParseEntry(const std::string& name, const Json& entry) {
  if (!entry.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected an object, found ", entry.kind_name()));
  }
  StoredTensor tensor;
  tensor.name = name;
  const Json* dtype = entry.Find("dtype");
  if (dtype == nullptr || !dtype->is_string()) {
    return absl::InvalidArgumentError("dtype is not a string");
  }
  tensor.dtype = *dtype->AsString();
  const std::optional<uint64_t> bits = BitsOf(tensor.dtype);
  if (!bits.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype ", JsonQuote(tensor.dtype), " is not one of the format"));
  }
  ASSIGN_OR_RETURN(tensor.shape, ParseCounts(entry, "shape"));
  ASSIGN_OR_RETURN(const std::vector<int64_t> offsets, ParseCounts(entry, "data_offsets"));
  if (offsets.size() != 2 || offsets[1] < offsets[0]) {
    return absl::InvalidArgumentError(
        absl::StrCat("data_offsets [", absl::StrJoin(offsets, ", "), "] are not a range"));
  }
  tensor.begin = static_cast<uint64_t>(offsets[0]);
  tensor.end = static_cast<uint64_t>(offsets[1]);
  const std::optional<uint64_t> bytes = BytesOf(tensor.shape, *bits);
  if (!bytes.has_value() || *bytes != tensor.end - tensor.begin) {
    return absl::InvalidArgumentError(
        absl::StrCat("its ", tensor.end - tensor.begin, " bytes do not fit ", tensor.dtype,
                     " of shape [", absl::StrJoin(tensor.shape, ", "), "]"));
  }
  return tensor;
}

absl::Status CheckMetadata(const Json& metadata) {
  bool is_valid = metadata.is_object();
  for (const Json::Member& member : metadata.members()) {
    is_valid = is_valid && member.second.is_string();
  }
  return is_valid ? absl::OkStatus()
                  : absl::InvalidArgumentError("__metadata__ does not map strings to strings");
}

// In the order of the data; every begin is the end before it and the last end is the file's.
absl::Status CheckTiling(std::vector<StoredTensor>& tensors, uint64_t buffer_bytes) {
  std::sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t reached = 0;
  for (const StoredTensor& tensor : tensors) {
    if (tensor.begin != reached) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", JsonQuote(tensor.name), " begins at ", tensor.begin, " where ", reached,
          " was expected (", tensor.begin < reached ? "tensors overlap" : "a hole", ")"));
    }
    reached = tensor.end;
  }
  if (reached != buffer_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the tensors end at ", reached, " but the file holds ", buffer_bytes, " bytes of data (",
        reached > buffer_bytes ? "it is truncated" : "trailing bytes", ")"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<StoredTensor>> ParseHeaderText(StringView text, uint64_t buffer_bytes) {
  if (text.empty() || text[0] != '{') {
    return absl::InvalidArgumentError("the header does not begin with '{'");
  }
  ASSIGN_OR_RETURN(const Json header, ParseJson(text, "header"));
  std::vector<StoredTensor> tensors;
  for (const auto& [name, entry] : header.members()) {
    if (name == "__metadata__") {
      RETURN_IF_ERROR(CheckMetadata(entry));
      continue;
    }
    absl::StatusOr<StoredTensor> tensor = ParseEntry(name, entry);
    if (!tensor.ok()) {
      return Annotate(tensor.status(), absl::StrCat("tensor ", JsonQuote(name)));
    }
    tensors.push_back(*std::move(tensor));
  }
  RETURN_IF_ERROR(CheckTiling(tensors, buffer_bytes));
  return tensors;
}

// The length of the header, or the fault of a file too short for it.
absl::StatusOr<uint64_t> HeaderBytes(StringView head, uint64_t file_bytes) {
  if (head.size() < kLengthBytes || file_bytes < kLengthBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the file has ", file_bytes, " bytes, too few for a header (empty or truncated)"));
  }
  uint64_t length = 0;
  std::memcpy(&length, head.data(), kLengthBytes);
  if (length > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a header of ", length, " bytes is over the format's limit of ", kMaxHeaderBytes));
  }
  if (length > file_bytes - kLengthBytes || length > head.size() - kLengthBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the header of ", length,
                                                   " bytes is longer than the file of ", file_bytes,
                                                   " bytes (it is truncated)"));
  }
  return length;
}

}  // namespace

absl::StatusOr<std::vector<StoredTensor>> ParseSafetensorsHeader(StringView head,
                                                                 uint64_t file_bytes,
                                                                 StringView what) {
  const absl::StatusOr<uint64_t> length = HeaderBytes(head, file_bytes);
  if (!length.ok()) {
    return Annotate(length.status(), what);
  }
  const uint64_t data_begin = kLengthBytes + *length;
  absl::StatusOr<std::vector<StoredTensor>> tensors =
      ParseHeaderText(head.substr(kLengthBytes, *length), file_bytes - data_begin);
  if (!tensors.ok()) {
    return Annotate(tensors.status(), what);
  }
  for (StoredTensor& tensor : *tensors) {
    tensor.begin += data_begin;
    tensor.end += data_begin;
  }
  return tensors;
}

namespace {

// One file, mapped read-only.
class MappedFile {
 public:
  static absl::StatusOr<MappedFile> Open(const std::string& path) {
    const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
    }
    absl::StatusOr<MappedFile> file = Map(descriptor, path);
    close(descriptor);  // the mapping stays
    return file;
  }
  ~MappedFile() {
    if (bytes_ > 0) {
      munmap(data_, bytes_);
    }
  }
  MappedFile(MappedFile&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  StringView bytes() const { return {static_cast<const char*>(data_), bytes_}; }

  // madvise() on the pages that hold [begin, end) of the file. Advice only: failures do not matter.
  void Advise(uint64_t begin, uint64_t end, int advice) const {
    const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    const uint64_t first = begin / page * page;
    if (end > first) {
      madvise(static_cast<char*>(data_) + first, end - first, advice);
    }
  }

 private:
  MappedFile(void* data, size_t bytes) : data_(data), bytes_(bytes) {}

  static absl::StatusOr<MappedFile> Map(int descriptor, const std::string& path) {
    struct stat status;
    if (fstat(descriptor, &status) != 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot examine ", path));
    }
    if (!S_ISREG(status.st_mode)) {
      return absl::FailedPreconditionError(absl::StrCat(path, " is not a regular file"));
    }
    const size_t bytes = static_cast<size_t>(status.st_size);
    if (bytes == 0) {
      return MappedFile(nullptr, 0);
    }
    void* data = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (data == MAP_FAILED) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot map ", path));
    }
    return MappedFile(data, bytes);
  }

  void* data_;
  size_t bytes_;
};

// Where the index says each tensor is.
using WeightMap = absl::flat_hash_map<std::string, std::string>;

absl::Status CheckFileName(const std::string& name, const std::string& tensor) {
  if (name.empty() || name == "." || name == ".." ||
      name.find_first_of("/\\\0", 0, 3) != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("weight_map puts tensor ", JsonQuote(tensor),
                                                   " into ", JsonQuote(name),
                                                   ", which is not a plain file name"));
  }
  return absl::OkStatus();
}

absl::StatusOr<WeightMap> ParseIndex(StringView text) {
  ASSIGN_OR_RETURN(const Json index, ParseJson(text, "index"));
  const Json* weight_map = index.Find("weight_map");
  if (weight_map == nullptr || !weight_map->is_object() || weight_map->members().empty()) {
    return absl::InvalidArgumentError("weight_map is missing, empty or not an object");
  }
  WeightMap map;
  for (const auto& [tensor, file] : weight_map->members()) {
    const absl::StatusOr<std::string> name = file.AsString();
    if (!name.ok()) {
      return Annotate(name.status(), absl::StrCat("weight_map of tensor ", JsonQuote(tensor)));
    }
    RETURN_IF_ERROR(CheckFileName(*name, tensor));
    map.emplace(tensor, *name);
  }
  return map;
}

}  // namespace

class Checkpoint::State {
 public:
  absl::Status OpenSingle(const std::string& path) { return AddFile(path, nullptr, ""); }

  absl::Status OpenSharded(const std::string& model_dir, const WeightMap& map) {
    std::vector<StringView> names;
    for (const auto& [tensor, file] : map) {
      names.push_back(file);
    }
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    for (const StringView name : names) {
      RETURN_IF_ERROR(AddFile(absl::StrCat(model_dir, "/", name), &map, name));
    }
    return CheckAllFound(map);
  }

  std::vector<MappedFile> files;
  std::vector<StoredTensor> tensors;
  absl::flat_hash_map<std::string, size_t> by_name;  // index into `tensors`

 private:
  // With an index, only tensors that it puts into this file count.
  absl::Status AddFile(const std::string& path, const WeightMap* map, StringView name) {
    ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
    ASSIGN_OR_RETURN(std::vector<StoredTensor> stored,
                     ParseSafetensorsHeader(file.bytes(), file.bytes().size(), path));
    for (StoredTensor& tensor : stored) {
      if (map != nullptr) {
        const auto found = map->find(tensor.name);
        if (found == map->end() || found->second != name) {
          continue;
        }
      }
      tensor.file = static_cast<int>(files.size());
      by_name.emplace(tensor.name, tensors.size());
      tensors.push_back(std::move(tensor));
    }
    files.push_back(std::move(file));
    return absl::OkStatus();
  }

  // The first in order of name, so that the message does not depend on hashing.
  absl::Status CheckAllFound(const WeightMap& map) const {
    const std::pair<const std::string, std::string>* missing = nullptr;
    for (const auto& entry : map) {
      if (!by_name.contains(entry.first) && (missing == nullptr || entry.first < missing->first)) {
        missing = &entry;
      }
    }
    return missing == nullptr ? absl::OkStatus()
                              : absl::NotFoundError(absl::StrCat(
                                    "tensor ", JsonQuote(missing->first), " is not in ",
                                    JsonQuote(missing->second), ", where the index puts it"));
  }
};

Checkpoint::Checkpoint(std::unique_ptr<State> state) : state_(std::move(state)) {}
Checkpoint::~Checkpoint() = default;

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& model_dir) {
  auto state = std::make_unique<State>();
  const std::string index_path = absl::StrCat(model_dir, "/", kIndexFile);
  const absl::StatusOr<std::string> index = ReadFile(index_path, kMaxIndexBytes);
  if (index.ok()) {
    const absl::StatusOr<WeightMap> map = ParseIndex(*index);
    if (!map.ok()) {
      return Annotate(map.status(), index_path);
    }
    if (absl::Status status = state->OpenSharded(model_dir, *map); !status.ok()) {
      return Annotate(status, index_path);
    }
  } else if (!absl::IsNotFound(index.status())) {
    return index.status();
  } else {
    absl::Status status = state->OpenSingle(absl::StrCat(model_dir, "/", kSingleFile));
    if (absl::IsNotFound(status)) {
      return absl::NotFoundError(
          absl::StrCat("there is neither ", kSingleFile, " nor ", kIndexFile, " in ", model_dir));
    }
    RETURN_IF_ERROR(status);
  }
  return absl::WrapUnique(new Checkpoint(std::move(state)));
}

const std::vector<StoredTensor>& Checkpoint::tensors() const { return state_->tensors; }

const StoredTensor* Checkpoint::Find(StringView name) const {
  const auto found = state_->by_name.find(name);
  return found == state_->by_name.end() ? nullptr : &state_->tensors[found->second];
}

const unsigned char* Checkpoint::data(const StoredTensor& tensor) const {
  const StringView bytes = state_->files[static_cast<size_t>(tensor.file)].bytes();
  return reinterpret_cast<const unsigned char*>(bytes.data()) + tensor.begin;
}

void Checkpoint::WillRead(const StoredTensor& tensor, uint64_t begin, uint64_t end) const {
  state_->files[static_cast<size_t>(tensor.file)].Advise(tensor.begin + begin, tensor.begin + end,
                                                         MADV_WILLNEED);
}

void Checkpoint::DropPages(const StoredTensor& tensor) const {
  state_->files[static_cast<size_t>(tensor.file)].Advise(tensor.begin, tensor.end, MADV_DONTNEED);
}

}  // namespace cohort
