#include "runtime/weight_source.h"

#include "absl/strings/match.h"
#include "kernels/random_fill.h"

namespace cohort {
namespace {

// FNV-1a, 64 bits.
uint64_t HashName(StringView name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char character : name) {
    hash = (hash ^ static_cast<unsigned char>(character)) * 0x100000001b3u;
  }
  return hash;
}

RandomFill FillOf(const WeightSlice& slice) {
  constexpr float kWidth = 0.02f * 3.46410162f;  // a uniform of width w deviates by w / sqrt(12)
  const bool is_norm = absl::EndsWith(slice.name, "norm.weight");
  return {.key = HashName(slice.name),
          .stored_columns = slice.stored_columns,
          .first_row = slice.rows.begin,
          .first_column = slice.columns.begin,
          .center = is_norm ? 1.0f : 0.0f,
          .width = is_norm ? 0.0f : kWidth};
}

class DummySource final : public WeightSource {
 public:
  absl::Status Fill(absl::Span<const WeightPiece> pieces, Device& device,
                    const LoadedBytes& report) override {
    for (const WeightPiece& piece : pieces) {
      if (piece.slice.elements() == 0) {
        continue;
      }
      const TensorView matrix(piece.destination.data, piece.destination.dtype,
                              {piece.slice.rows.size(), piece.slice.columns.size()});
      device.ops().FillRandom(FillOf(piece.slice), matrix);
      report(piece.slice.elements() * SizeOf(matrix.dtype));
    }
    return device.Synchronize();
  }
};

}  // namespace

bool IsReadableDType(StringView dtype) {
  return dtype == "F32" || dtype == "BF16" || dtype == "F16";
}

std::unique_ptr<WeightSource> MakeDummySource() { return std::make_unique<DummySource>(); }

}  // namespace cohort
