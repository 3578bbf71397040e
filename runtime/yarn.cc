#include "runtime/yarn.h"

#include <algorithm>
#include <cmath>

namespace cohort {
namespace {

// theta^(2i/head_dim)
std::vector<float> Wavelengths(double theta, int64_t head_dim) {
  std::vector<float> wavelengths;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    wavelengths.push_back(static_cast<float>(
        std::pow(static_cast<double>(static_cast<float>(theta)), static_cast<double>(exponent))));
  }
  return wavelengths;
}

// The pair, as a real number, that turns so often within the original length.
double PairOfTurns(double turns, double theta, int64_t head_dim, const YarnScaling& yarn) {
  constexpr double kPi = 3.14159265358979323846;
  const double original = static_cast<double>(yarn.original_positions);
  return static_cast<double>(head_dim) * std::log(original / (turns * 2 * kPi)) /
         (2 * std::log(theta));
}

struct PairRange {
  double low = 0;   // pairs up to it are kept
  double high = 0;  // pairs from it on are slowed down by the whole factor
};

PairRange RangeOf(double theta, int64_t head_dim, const YarnScaling& yarn) {
  PairRange range = {PairOfTurns(yarn.beta_fast, theta, head_dim, yarn),
                     PairOfTurns(yarn.beta_slow, theta, head_dim, yarn)};
  if (yarn.truncate) {
    range = {std::floor(range.low), std::ceil(range.high)};
  }
  // The reference bounds it by the head's size, not by the number of pairs.
  range = {std::max(range.low, 0.0), std::min(range.high, static_cast<double>(head_dim - 1))};
  if (range.low == range.high) {
    range.high += 0.001;
  }
  return range;
}

}  // namespace

int64_t YarnScaling::positions() const {
  return static_cast<int64_t>(static_cast<double>(original_positions) * factor);
}

double YarnTemperature(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

std::vector<float> InverseFrequencies(double theta, int64_t head_dim) {
  std::vector<float> frequencies = Wavelengths(theta, head_dim);
  for (float& frequency : frequencies) {
    frequency = 1.0f / frequency;
  }
  return frequencies;
}

std::vector<float> InverseFrequencies(double theta, int64_t head_dim, const YarnScaling& yarn) {
  const PairRange range = RangeOf(theta, head_dim, yarn);
  const float low = static_cast<float>(range.low);
  const float width = static_cast<float>(range.high - range.low);
  const float factor = static_cast<float>(yarn.factor);
  std::vector<float> frequencies = Wavelengths(theta, head_dim);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float ramp = std::clamp((static_cast<float>(i) - low) / width, 0.0f, 1.0f);
    const float kept = 1.0f - ramp;
    const float plain = 1.0f / frequencies[i];
    const float slowed = 1.0f / (factor * frequencies[i]);
    frequencies[i] = slowed * (1.0f - kept) + plain * kept;
  }
  return frequencies;
}

}  // namespace cohort
