#include "runtime/rope.h"

#include <algorithm>
#include <cmath>

namespace cohort {
namespace {

constexpr int64_t kStagingPositions = 1024;

// `value` is a cosine or sine; the factor multiplies it as an fp32 number, as in the reference.
float RoundedTo(DType act, double value, float attention_factor) {
  const float single = static_cast<float>(value) * attention_factor;
  return act == DType::kBF16 ? Rounded<BFloat16>(single) : single;
}

// Writes the part's rows from `first_row` of the tensors on.
absl::Status CopyRows(const RopeRows& part, int64_t first_row, DType act, Device& device,
                      RopeTensors& tensors) {
  const int64_t half = static_cast<int64_t>(part.inverse_frequencies.size());
  const float factor = static_cast<float>(part.attention_factor);
  std::vector<float> cosine(static_cast<size_t>(kStagingPositions * half));
  std::vector<float> sine(cosine.size());
  for (int64_t begin = 0; begin < part.positions; begin += kStagingPositions) {
    const int64_t count = std::min(kStagingPositions, part.positions - begin);
    for (int64_t i = 0; i < count * half; ++i) {
      const float angle = static_cast<float>(begin + i / half) *
                          part.inverse_frequencies[static_cast<size_t>(i % half)];
      const double exact = static_cast<double>(angle);
      cosine[static_cast<size_t>(i)] = RoundedTo(act, std::cos(exact), factor);
      sine[static_cast<size_t>(i)] = RoundedTo(act, std::sin(exact), factor);
    }
    device.CopyFromHost(cosine.data(), tensors.cosine.view().Rows(first_row + begin, count));
    device.CopyFromHost(sine.data(), tensors.sine.view().Rows(first_row + begin, count));
    RETURN_IF_ERROR(device.Synchronize());  // before the staging memory is written again
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RopeTensors> MakeRopeTensors(absl::Span<const RopeRows> parts, DType act,
                                            Device& device) {
  int64_t rows = 0;
  for (const RopeRows& part : parts) {
    CHECK_EQ(part.inverse_frequencies.size(), parts[0].inverse_frequencies.size());
    rows += part.positions;
  }
  CHECK_GT(rows, 0) << "rows of the rope table";
  const int64_t half = static_cast<int64_t>(parts[0].inverse_frequencies.size());
  RopeTensors tensors;
  ASSIGN_OR_RETURN(tensors.cosine, device.Allocate({rows, half}, DType::kF32));
  ASSIGN_OR_RETURN(tensors.sine, device.Allocate({rows, half}, DType::kF32));
  int64_t first_row = 0;
  for (const RopeRows& part : parts) {
    RETURN_IF_ERROR(CopyRows(part, first_row, act, device, tensors));
    first_row += part.positions;
  }
  return tensors;
}

}  // namespace cohort
