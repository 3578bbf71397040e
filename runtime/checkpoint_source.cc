#include "runtime/checkpoint_source.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

#include "runtime/weight_stream.h"

namespace cohort {
namespace {

// Host memory through which slices travel that are converted or gathered, however large they are.
constexpr int64_t kStagingBytes = int64_t{4} << 20;
// What is copied at once of the others: enough for every thread of a CPU device to have its part.
constexpr int64_t kCopyBytes = int64_t{32} << 20;

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

// Calls run(source, elements, element of the destination) for every dense run of a slice's
// elements, whose tensor's begin at `data`.
template <class Run>
void ForEachRun(const WeightSlice& slice, const unsigned char* data, int64_t element_bytes,
                Run run) {
  const bool is_contiguous = slice.is_contiguous();
  const int64_t runs = is_contiguous ? 1 : slice.rows.size();
  const int64_t elements = is_contiguous ? slice.elements() : slice.columns.size();
  for (int64_t i = 0; i < runs; ++i) {
    const int64_t first = (slice.rows.begin + i) * slice.stored_columns + slice.columns.begin;
    run(data + first * element_bytes, elements, i * elements);
  }
}

template <class T>
void ReadAs(const WeightSlice& slice, StringView stored_dtype, const unsigned char* data,
            T* destination) {
  ForEachRun(slice, data, StoredElementBytes(stored_dtype),
             [&](const unsigned char* source, int64_t elements, int64_t at) {
               ConvertRun(stored_dtype, source, elements, destination + at);
             });
}

void CopyRuns(const WeightSlice& slice, const unsigned char* data, int64_t element_bytes,
              unsigned char* destination) {
  ForEachRun(slice, data, element_bytes,
             [&](const unsigned char* source, int64_t elements, int64_t at) {
               std::memcpy(destination + at * element_bytes, source,
                           static_cast<size_t>(elements * element_bytes));
             });
}

// To memory of the host: nothing is read twice, and what lies in the file as it is wanted is copied
// by the device's threads.
absl::Status CopyPiece(const WeightPiece& piece, const CheckpointReader& reader, Device& device,
                       std::vector<unsigned char>& staging, const LoadedBytes& report) {
  const DType dtype = piece.destination.dtype;
  const int64_t row_bytes = piece.slice.columns.size() * SizeOf(dtype);
  const bool is_ready = reader.View(piece.slice, dtype) != nullptr;
  const int64_t chunk_rows =
      std::max<int64_t>((is_ready ? kCopyBytes : kStagingBytes) / row_bytes, 1);
  reader.Begin(piece.slice);
  for (int64_t row = 0; row < piece.slice.rows.size(); row += chunk_rows) {
    const int64_t rows = std::min(chunk_rows, piece.slice.rows.size() - row);
    WeightSlice chunk = piece.slice;
    chunk.rows = {piece.slice.rows.begin + row, piece.slice.rows.begin + row + rows};
    const void* data = reader.View(chunk, dtype);
    if (!is_ready) {
      staging.resize(static_cast<size_t>(rows * row_bytes));
      reader.Read(chunk, dtype, staging.data());
      data = staging.data();
    }
    device.CopyFromHost(data, piece.destination.Rows(row, rows));
    RETURN_IF_ERROR(device.Synchronize());  // before the staging memory is written again
    report(rows * row_bytes);
  }
  reader.End(piece.slice);
  return absl::OkStatus();
}

class CheckpointSource final : public WeightSource {
 public:
  CheckpointSource(const Checkpoint& checkpoint, const WeightStreamOptions& stream)
      : reader_(checkpoint), stream_(stream) {}

  absl::Status Fill(absl::Span<const WeightPiece> pieces, Device& device,
                    const LoadedBytes& report) override {
    if (device.kind() != "cpu") {
      WeightStreamOptions options = stream_;
      const int cores = static_cast<int>(std::thread::hardware_concurrency());
      options.readers = std::clamp(cores / 2, 1, options.readers);
      return StreamWeights(pieces, reader_, options, device, report);
    }
    std::vector<unsigned char> staging;
    for (const WeightPiece& piece : pieces) {
      if (piece.slice.elements() > 0) {
        RETURN_IF_ERROR(CopyPiece(piece, reader_, device, staging, report));
      }
    }
    return absl::OkStatus();
  }

 private:
  CheckpointReader reader_;
  const WeightStreamOptions stream_;
};

}  // namespace

const StoredTensor& CheckpointReader::Stored(const WeightSlice& slice) const {
  const StoredTensor* tensor = checkpoint_.Find(slice.name);
  CHECK(tensor != nullptr) << slice.name;
  return *tensor;
}

void CheckpointReader::Begin(const WeightSlice& slice) const {
  if (slice.is_contiguous()) {  // else the system's own read-around fetches the runs
    const StoredTensor& tensor = Stored(slice);
    const int64_t row_bytes = slice.stored_columns * StoredElementBytes(tensor.dtype);
    checkpoint_.WillRead(tensor, static_cast<uint64_t>(slice.rows.begin * row_bytes),
                         static_cast<uint64_t>(slice.rows.end * row_bytes));
  }
}

void CheckpointReader::End(const WeightSlice& slice) const { checkpoint_.DropPages(Stored(slice)); }

const void* CheckpointReader::View(const WeightSlice& slice, DType dtype) const {
  const StoredTensor& tensor = Stored(slice);
  if (!slice.is_contiguous() || !IsStoredAs(tensor.dtype, dtype)) {
    return nullptr;
  }
  return checkpoint_.data(tensor) + slice.rows.begin * slice.stored_columns * SizeOf(dtype);
}

void CheckpointReader::Read(const WeightSlice& slice, DType dtype, void* destination) const {
  const StoredTensor& tensor = Stored(slice);
  const unsigned char* data = checkpoint_.data(tensor);
  if (IsStoredAs(tensor.dtype, dtype)) {
    CopyRuns(slice, data, SizeOf(dtype), static_cast<unsigned char*>(destination));
  } else if (dtype == DType::kF32) {
    ReadAs(slice, tensor.dtype, data, static_cast<float*>(destination));
  } else {
    CHECK(dtype == DType::kBF16) << NameOf(dtype);
    ReadAs(slice, tensor.dtype, data, static_cast<BFloat16*>(destination));
  }
}

std::unique_ptr<WeightSource> MakeCheckpointSource(const Checkpoint& checkpoint,
                                                   const WeightStreamOptions& stream) {
  return std::make_unique<CheckpointSource>(checkpoint, stream);
}

}  // namespace cohort
