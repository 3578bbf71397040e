#include "kernels/product_tuning.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "tests/kernels/devices.h"
#include "tests/kernels/reference_ops.h"

namespace cohort {
namespace {

using ::testing::HasSubstr;

class ProductTuningTest : public ::testing::Test {
 protected:
  ProductTuningTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "cohort-XXXXXX").string();
    CHECK(mkdtemp(pattern.data()) != nullptr);
    folder_ = pattern;
  }
  ~ProductTuningTest() override { std::filesystem::remove_all(folder_); }

  std::string path() const { return (folder_ / "algorithms.txt").string(); }
  std::string Contents() const {
    std::ifstream file(path());
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }

  std::filesystem::path folder_;
};

// The library gets them: more tokens than the streaming kernels take, and fp32.
const std::vector<ProductShape> kProducts = {
    {.tokens = 80, .in = 64, .out = 48, .has_bias = true},
    {.tokens = 160, .in = 64, .out = 48, .has_bias = true},
    {.tokens = 4, .in = 32, .out = 16, .dtype = DType::kF32, .out_dtype = DType::kF32},
};

ProductTuning Tune(Device& device, const std::string& file) {
  absl::StatusOr<ProductTuning> tuning = TuneProducts(device, kProducts, file);
  EXPECT_TRUE(tuning.ok()) << tuning.status();
  return tuning.ok() ? *tuning : ProductTuning();
}

std::unique_ptr<Device> Create(const DeviceOptions& options) {
  absl::StatusOr<std::unique_ptr<Device>> device = Device::Create(options);
  CHECK_OK(device.status());
  return std::move(*device);
}

// Runs `body` on each kind of device that has a library.
template <class Body>
void OnEachLibrary(Body body) {
  for (const DeviceOptions& options : TestDevices()) {
    if (options.kind == "cuda") {
      body(options);
    }
  }
}

TEST_F(ProductTuningTest, TheCpuHasNothingToTune) {
  const ProductTuning tuning = Tune(*Create(DeviceOptions()), path());
  EXPECT_EQ(tuning.known + tuning.measured, 0);
  EXPECT_FALSE(std::filesystem::exists(path()));
}

TEST_F(ProductTuningTest, WhatOneDeviceMeasuresTheNextOneKnows) {
  OnEachLibrary([&](const DeviceOptions& options) {
    const ProductTuning first = Tune(*Create(options), path());
    EXPECT_EQ(first.known, 0);
    EXPECT_EQ(first.measured, 3);
    EXPECT_EQ(first.note, "");
    const std::string contents = Contents();
    EXPECT_THAT(contents, HasSubstr("inner 64 columns 48 dtype 1 out 1 bias 1 tokens 80 "));
    const ProductTuning second = Tune(*Create(options), path());
    EXPECT_EQ(second.known, 3);
    EXPECT_EQ(second.measured, 0);
    EXPECT_EQ(Contents(), contents);
  });
}

TEST_F(ProductTuningTest, NeedsNoFile) {
  OnEachLibrary([&](const DeviceOptions& options) {
    EXPECT_EQ(Tune(*Create(options), "").measured, 3);
    EXPECT_TRUE(std::filesystem::is_empty(folder_));
  });
}

TEST_F(ProductTuningTest, FilesOfOthersAndDamagedOnesAreReplaced) {
  OnEachLibrary([&](const DeviceOptions& options) {
    Tune(*Create(options), path());
    const std::string header = Contents().substr(0, Contents().find('\n') + 1);
    for (const std::string& contents :
         {std::string(), std::string("cohort cublaslt 1 | Another GPU\n"), header + "inner 64\n",
          Contents() + " ", Contents().substr(0, Contents().size() - 3)}) {
      std::ofstream(path()) << contents;
      const ProductTuning tuning = Tune(*Create(options), path());
      EXPECT_EQ(tuning.measured, 3) << contents;
      EXPECT_THAT(tuning.note, HasSubstr(path() + " is ignored: "));
      EXPECT_EQ(Tune(*Create(options), path()).known, 3);
    }
  });
}

// Ranks of one machine with slices of their own.
TEST_F(ProductTuningTest, DevicesThatMeasureAtTheSameTimeShareTheFile) {
  OnEachLibrary([&](const DeviceOptions& options) {
    std::vector<std::thread> ranks;
    for (int64_t rank = 0; rank < 3; ++rank) {
      ranks.emplace_back([&, rank] {
        const std::vector<ProductShape> own = {{.tokens = 32, .in = 64, .out = 16 * (rank + 1)}};
        const auto tuning = TuneProducts(*Create(options), own, path());
        ASSERT_TRUE(tuning.ok()) << tuning.status();
        EXPECT_EQ(tuning->measured, 1);
      });
    }
    for (std::thread& rank : ranks) {
      rank.join();
    }
    const std::vector<ProductShape> all = {{.tokens = 32, .in = 64, .out = 16},
                                           {.tokens = 32, .in = 64, .out = 32},
                                           {.tokens = 32, .in = 64, .out = 48}};
    const auto tuning = TuneProducts(*Create(options), all, path());
    ASSERT_TRUE(tuning.ok()) << tuning.status();
    EXPECT_EQ(tuning->known, 3);
  });
}

// As after an update of the library that keeps its version: cuBLASLt itself refuses the bytes.
TEST_F(ProductTuningTest, AlgorithmsThatTheLibraryRefusesAreMeasuredAnew) {
  OnEachLibrary([&](const DeviceOptions& options) {
    Tune(*Create(options), path());
    std::string contents = Contents();
    const size_t begin = contents.find("algorithm ") + 10;
    contents.replace(begin, 16, 16, 'f');
    std::ofstream(path()) << contents;
    const ProductTuning tuning = Tune(*Create(options), path());
    EXPECT_EQ(tuning.known, 2);
    EXPECT_EQ(tuning.measured, 1);
    EXPECT_EQ(Tune(*Create(options), path()).known, 3);
  });
}

TEST_F(ProductTuningTest, SaysWhenTheFileCannotBeWritten) {
  OnEachLibrary([&](const DeviceOptions& options) {
    const ProductTuning tuning = Tune(*Create(options), (folder_ / "no/such/folder").string());
    EXPECT_EQ(tuning.measured, 3);
    EXPECT_THAT(tuning.note, HasSubstr("cannot be written: No such file"));
  });
}

// On both sides of the tuned numbers of tokens and between them.
TEST_F(ProductTuningTest, TunedProductsAreProducts) {
  OnEachLibrary([&](const DeviceOptions& options) {
    const std::unique_ptr<Device> device = Create(options);
    Tune(*device, "");
    std::mt19937_64 random(1);
    const HostTensor w = RandomNormal(random, DType::kBF16, Shape{48, 64});
    const HostTensor bias = RandomNormal(random, DType::kBF16, Shape{48});
    const DeviceTensor bias_there(*device, bias);
    const TensorView bias_view = bias_there.view();
    for (const int64_t tokens : {65, 80, 81, 160, 161, 200}) {
      const HostTensor x = RandomNormal(random, DType::kBF16, Shape{tokens, 64});
      const DeviceTensor out(*device, Poison(DType::kBF16, Shape{tokens, 48}));
      device->ops().MatMul(DeviceTensor(*device, x).view(), {DeviceTensor(*device, w).view()},
                           &bias_view, out.view());
      const HostTensor expected = reference::MatMul(x, w, &bias, DType::kBF16);
      // 65 terms of up to 25 each in fp32, and the rounding of the result.
      std::vector<double> bounds;
      for (const double value : expected.values) {
        bounds.push_back(65 * 65 * 25 * kFloatUnit + Spacing(DType::kBF16) * std::abs(value));
      }
      ExpectWithin(out.Read(), expected.values, bounds);
    }
  });
}

}  // namespace
}  // namespace cohort
