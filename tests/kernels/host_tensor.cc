#include "tests/kernels/host_tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

namespace cohort {
namespace {

// The environment's COHORT_TEST_SEED gives every test other numbers.
unsigned long long SkippedNumbers() {
  static const char* const seed = std::getenv("COHORT_TEST_SEED");
  return seed == nullptr ? 0 : std::strtoull(seed, nullptr, 10);
}

template <class T>
void Put(T value, std::vector<uint8_t>* bytes) {
  uint8_t raw[sizeof(T)];
  std::memcpy(raw, &value, sizeof(T));
  bytes->insert(bytes->end(), raw, raw + sizeof(T));
}

template <class T>
T Get(const std::vector<uint8_t>& bytes, size_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

}  // namespace

double Spacing(DType dtype) { return dtype == DType::kBF16 ? 0x1p-7 : 0x1p-23; }

double RoundTo(double value, DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return static_cast<double>(static_cast<float>(value));
    case DType::kBF16:
      return static_cast<double>(Rounded<BFloat16>(static_cast<float>(value)));
    case DType::kI32:
      break;
  }
  return std::trunc(value);
}

HostTensor Filled(DType dtype, const Shape& shape, double value) {
  return {dtype, shape,
          std::vector<double>(static_cast<size_t>(shape.elements()), RoundTo(value, dtype))};
}

HostTensor Poison(DType dtype, const Shape& shape) {
  return Filled(dtype, shape,
                dtype == DType::kI32 ? -12345 : std::numeric_limits<double>::quiet_NaN());
}

HostTensor RandomNormal(std::mt19937_64& random, DType dtype, const Shape& shape,
                        double deviation) {
  random.discard(SkippedNumbers());
  std::normal_distribution<double> normal(0, deviation);
  HostTensor tensor = Filled(dtype, shape, 0);
  for (double& value : tensor.values) {
    value = RoundTo(normal(random), dtype);
  }
  return tensor;
}

HostTensor Indices(const std::vector<int32_t>& values) {
  return {DType::kI32, Shape{static_cast<int64_t>(values.size())},
          std::vector<double>(values.begin(), values.end())};
}

HostTensor RowsOf(const HostTensor& x, int64_t begin, int64_t count) {
  const Shape shape = x.shape.rank() == 1 ? Shape{count} : Shape{count, x.columns()};
  const auto first = x.values.begin() + begin * x.columns();
  return {x.dtype, shape, std::vector<double>(first, first + count * x.columns())};
}

std::vector<uint8_t> Encode(const HostTensor& tensor) {
  std::vector<uint8_t> bytes;
  for (const double value : tensor.values) {
    switch (tensor.dtype) {
      case DType::kF32:
        Put(static_cast<float>(value), &bytes);
        break;
      case DType::kBF16:
        Put(BFloat16::FromFloat(static_cast<float>(value)), &bytes);
        break;
      case DType::kI32:
        Put(static_cast<int32_t>(value), &bytes);
        break;
    }
  }
  return bytes;
}

HostTensor Decode(const std::vector<uint8_t>& bytes, DType dtype, const Shape& shape) {
  HostTensor tensor = Filled(dtype, shape, 0);
  for (size_t i = 0; i < tensor.values.size(); ++i) {
    switch (dtype) {
      case DType::kF32:
        tensor.values[i] = Get<float>(bytes, i);
        break;
      case DType::kBF16:
        tensor.values[i] = Get<BFloat16>(bytes, i).ToFloat();
        break;
      case DType::kI32:
        tensor.values[i] = Get<int32_t>(bytes, i);
        break;
    }
  }
  return tensor;
}

void ExpectWithin(const HostTensor& actual, const std::vector<double>& expected,
                  const std::vector<double>& bounds) {
  ASSERT_EQ(actual.values.size(), expected.size());
  ASSERT_TRUE(bounds.size() == 1 || bounds.size() == expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    const double bound = bounds.size() == 1 ? bounds[0] : bounds[i];
    ASSERT_LE(std::abs(actual.values[i] - expected[i]), bound)
        << "element " << i << " of " << actual.shape.ToString() << " is " << actual.values[i]
        << ", expected " << expected[i];
  }
}

void ExpectSame(const HostTensor& actual, const HostTensor& expected) {
  ASSERT_TRUE(actual.shape == expected.shape)
      << actual.shape.ToString() << " and " << expected.shape.ToString();
  for (size_t i = 0; i < expected.values.size(); ++i) {
    const bool both_nan = std::isnan(actual.values[i]) && std::isnan(expected.values[i]);
    ASSERT_TRUE(both_nan || actual.values[i] == expected.values[i])
        << "element " << i << " of " << actual.shape.ToString() << " is " << actual.values[i]
        << ", expected " << expected.values[i];
  }
}

}  // namespace cohort
