#include "runtime/rope.h"

#include <algorithm>
#include <cmath>

namespace cohort {
namespace {

constexpr int64_t kStagingPositions = 1024;

float RoundedTo(DType act, double value) {
  const float single = static_cast<float>(value);
  return act == DType::kBF16 ? Rounded<BFloat16>(single) : single;
}

}  // namespace

std::vector<float> InverseFrequencies(double theta, int64_t head_dim) {
  std::vector<float> frequencies;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    const float power = static_cast<float>(
        std::pow(static_cast<double>(static_cast<float>(theta)), static_cast<double>(exponent)));
    frequencies.push_back(1.0f / power);
  }
  return frequencies;
}

absl::StatusOr<RopeTensors> MakeRopeTensors(double theta, int64_t head_dim, int64_t positions,
                                            DType act, Device& device) {
  const std::vector<float> frequencies = InverseFrequencies(theta, head_dim);
  const int64_t half = head_dim / 2;
  RopeTensors tensors;
  ASSIGN_OR_RETURN(tensors.cosine, device.Allocate({positions, half}, DType::kF32));
  ASSIGN_OR_RETURN(tensors.sine, device.Allocate({positions, half}, DType::kF32));
  std::vector<float> cosine(static_cast<size_t>(kStagingPositions * half));
  std::vector<float> sine(cosine.size());
  for (int64_t begin = 0; begin < positions; begin += kStagingPositions) {
    const int64_t count = std::min(kStagingPositions, positions - begin);
    for (int64_t i = 0; i < count * half; ++i) {
      const float angle =
          static_cast<float>(begin + i / half) * frequencies[static_cast<size_t>(i % half)];
      cosine[static_cast<size_t>(i)] = RoundedTo(act, std::cos(static_cast<double>(angle)));
      sine[static_cast<size_t>(i)] = RoundedTo(act, std::sin(static_cast<double>(angle)));
    }
    device.CopyFromHost(cosine.data(), tensors.cosine.view().Rows(begin, count));
    device.CopyFromHost(sine.data(), tensors.sine.view().Rows(begin, count));
    RETURN_IF_ERROR(device.Synchronize());  // before the staging memory is written again
  }
  return tensors;
}

}  // namespace cohort
