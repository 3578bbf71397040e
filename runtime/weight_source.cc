#include "runtime/weight_source.h"

#include <cstring>

#include "absl/strings/match.h"

namespace cohort {
namespace {

// Reads one element of any alignment as float.
struct StoredF32 {
  static constexpr int64_t kBytes = 4;
  static float Load(const unsigned char* source) {
    float value;
    std::memcpy(&value, source, sizeof(value));
    return value;
  }
};
struct StoredBF16 {
  static constexpr int64_t kBytes = 2;
  static float Load(const unsigned char* source) {
    BFloat16 value;
    std::memcpy(&value, source, sizeof(value));
    return value.ToFloat();
  }
};
struct StoredF16 {
  static constexpr int64_t kBytes = 2;
  static float Load(const unsigned char* source) {
    uint16_t value;
    std::memcpy(&value, source, sizeof(value));
    return HalfToFloat(value);
  }
};

template <class Stored, class T>
void ConvertRun(const unsigned char* source, int64_t count, T* destination) {
  for (int64_t i = 0; i < count; ++i) {
    destination[i] = FromFloat<T>(Stored::Load(source + i * Stored::kBytes));
  }
}

template <class T>
void ConvertRun(StringView stored_dtype, const unsigned char* source, int64_t count,
                T* destination) {
  if (stored_dtype == "F32") {
    ConvertRun<StoredF32>(source, count, destination);
  } else if (stored_dtype == "BF16") {
    ConvertRun<StoredBF16>(source, count, destination);
  } else {
    CHECK(stored_dtype == "F16") << stored_dtype;
    ConvertRun<StoredF16>(source, count, destination);
  }
}

// Is an element stored as `stored_dtype` the same bytes as one of `dtype`?
bool IsStoredAs(StringView stored_dtype, DType dtype) {
  return stored_dtype == (dtype == DType::kF32 ? "F32" : "BF16");
}

int64_t StoredElementBytes(StringView stored_dtype) {
  return stored_dtype == "F32" ? StoredF32::kBytes : StoredBF16::kBytes;
}

class CheckpointSource final : public WeightSource {
 public:
  explicit CheckpointSource(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  void Begin(const WeightSlice& slice) override {
    if (slice.is_contiguous()) {  // else the system's own read-around fetches the runs
      const StoredTensor& tensor = Stored(slice);
      const int64_t row_bytes = slice.stored_columns * StoredElementBytes(tensor.dtype);
      checkpoint_.WillRead(tensor, static_cast<uint64_t>(slice.rows.begin * row_bytes),
                           static_cast<uint64_t>(slice.rows.end * row_bytes));
    }
  }

  void End(const WeightSlice& slice) override { checkpoint_.DropPages(Stored(slice)); }

  const void* View(const WeightSlice& slice, DType dtype) const override {
    const StoredTensor& tensor = Stored(slice);
    if (!slice.is_contiguous() || !IsStoredAs(tensor.dtype, dtype)) {
      return nullptr;
    }
    return checkpoint_.data(tensor) + slice.rows.begin * slice.stored_columns * SizeOf(dtype);
  }

  void Read(const WeightSlice& slice, DType dtype, void* destination) override {
    if (dtype == DType::kF32) {
      ReadAs(slice, static_cast<float*>(destination));
    } else {
      CHECK(dtype == DType::kBF16) << NameOf(dtype);
      ReadAs(slice, static_cast<BFloat16*>(destination));
    }
  }

 private:
  const StoredTensor& Stored(const WeightSlice& slice) const {
    const StoredTensor* tensor = checkpoint_.Find(slice.name);
    CHECK(tensor != nullptr) << slice.name;
    return *tensor;
  }

  template <class T>
  void ReadAs(const WeightSlice& slice, T* destination) const {
    const StoredTensor& tensor = Stored(slice);
    const unsigned char* data = checkpoint_.data(tensor);
    const int64_t element_bytes = StoredElementBytes(tensor.dtype);
    if (slice.is_contiguous()) {
      ConvertRun(tensor.dtype, data + slice.rows.begin * slice.stored_columns * element_bytes,
                 slice.elements(), destination);
      return;
    }
    for (int64_t row = slice.rows.begin; row < slice.rows.end; ++row) {
      const int64_t first = row * slice.stored_columns + slice.columns.begin;
      ConvertRun(tensor.dtype, data + first * element_bytes, slice.columns.size(), destination);
      destination += slice.columns.size();
    }
  }

  const Checkpoint& checkpoint_;
};

// FNV-1a, 64 bits.
uint64_t HashName(StringView name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char character : name) {
    hash = (hash ^ static_cast<unsigned char>(character)) * 0x100000001b3u;
  }
  return hash;
}

// The finaliser of SplitMix64 over a counter.
uint64_t Mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

class DummySource final : public WeightSource {
 public:
  void Begin(const WeightSlice&) override {}
  void End(const WeightSlice&) override {}
  const void* View(const WeightSlice&, DType) const override { return nullptr; }

  void Read(const WeightSlice& slice, DType dtype, void* destination) override {
    if (dtype == DType::kF32) {
      ReadAs(slice, static_cast<float*>(destination));
    } else {
      CHECK(dtype == DType::kBF16) << NameOf(dtype);
      ReadAs(slice, static_cast<BFloat16*>(destination));
    }
  }

 private:
  template <class T>
  static void ReadAs(const WeightSlice& slice, T* destination) {
    constexpr float kWidth = 0.02f * 3.46410162f;  // a uniform of width w deviates by w / sqrt(12)
    const bool is_norm = absl::EndsWith(slice.name, "norm.weight");
    const uint64_t key = HashName(slice.name);
    for (int64_t row = slice.rows.begin; row < slice.rows.end; ++row) {
      for (int64_t column = slice.columns.begin; column < slice.columns.end; ++column) {
        const uint64_t index = static_cast<uint64_t>(row * slice.stored_columns + column);
        const uint64_t bits = Mix(key + index * 0x9e3779b97f4a7c15u);
        const float unit = static_cast<float>(bits >> 40) * 0x1p-24f;
        *destination++ = FromFloat<T>(is_norm ? 1.0f : (unit - 0.5f) * kWidth);
      }
    }
  }
};

}  // namespace

bool IsReadableDType(StringView dtype) {
  return dtype == "F32" || dtype == "BF16" || dtype == "F16";
}

std::unique_ptr<WeightSource> MakeCheckpointSource(const Checkpoint& checkpoint) {
  return std::make_unique<CheckpointSource>(checkpoint);
}

std::unique_ptr<WeightSource> MakeDummySource() { return std::make_unique<DummySource>(); }

}  // namespace cohort
