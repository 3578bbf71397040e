// Processing of logits against the reference implementation: tests/golden/make_sampling_golden.py
// wrote the cases.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "kernels/philox.h"
#include "runtime/json.h"
#include "runtime/safetensors.h"
#include "runtime/worker_edits.h"

namespace cohort {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();

struct GoldenCase {
  SamplingParameters sampling;
  std::vector<int32_t> ids;
  size_t prompt_tokens = 0;
  size_t min_tokens = 0;
  std::vector<int32_t> end_ids;
  std::vector<float> logits;
  std::vector<float> processed;

  SequenceView view() const {
    const bool is_held_back = ids.size() - prompt_tokens < min_tokens;
    return {&sampling, ids, prompt_tokens,
            is_held_back ? absl::MakeConstSpan(end_ids) : absl::Span<const int32_t>()};
  }
};

template <class T>
std::vector<T> Numbers(const Json& list) {
  std::vector<T> numbers;
  for (const Json& element : list.elements()) {
    numbers.push_back(element.is_null() ? static_cast<T>(kNothing)
                                        : static_cast<T>(*element.AsReal()));
  }
  return numbers;
}

GoldenCase ReadCase(const Json& json) {
  GoldenCase golden;
  const Json& parameters = *json.Find("parameters");
  const auto real = [&](StringView key, float absent) {
    const Json* found = parameters.Find(key);
    return found == nullptr ? absent : static_cast<float>(*found->AsReal());
  };
  SamplingParameters& sampling = golden.sampling;
  sampling.temperature = real("temperature", 1);
  sampling.top_p = real("top_p", 1);
  sampling.top_k = static_cast<int32_t>(real("top_k", 0));
  sampling.min_p = real("min_p", 0);
  sampling.repetition_penalty = real("repetition_penalty", 1);
  golden.min_tokens = static_cast<size_t>(real("min_tokens", 0));
  if (const Json* biases = parameters.Find("logit_bias")) {
    for (const Json& bias : biases->elements()) {
      const std::vector<float> pair = Numbers<float>(bias);
      sampling.logit_bias.push_back({static_cast<int32_t>(pair[0]), pair[1]});
    }
  }
  if (const Json* words = parameters.Find("bad_words")) {
    for (const Json& word : words->elements()) {
      sampling.bad_words.push_back(Numbers<int32_t>(word));
    }
  }
  if (const Json* allowed = parameters.Find("allowed_token_ids")) {
    sampling.allowed_token_ids = Numbers<int32_t>(*allowed);
  }
  golden.ids = Numbers<int32_t>(*json.Find("ids"));
  golden.prompt_tokens = static_cast<size_t>(*json.Find("prompt_tokens")->AsReal());
  golden.end_ids = Numbers<int32_t>(*json.Find("held_back_ids"));
  golden.logits = Numbers<float>(*json.Find("logits"));
  golden.processed = Numbers<float>(*json.Find("processed"));
  return golden;
}

class SamplingGolden : public testing::Test {
 protected:
  void SetUp() override {
    auto device = Device::Create(DeviceOptions{});
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
    const std::string path = absl::StrCat(COHORT_SOURCE_DIR, "/tests/golden/sampling/golden.json");
    const auto text = ReadFile(path, 1 << 20);
    ASSERT_TRUE(text.ok()) << text.status();
    const auto json = ParseJson(*text, path);
    ASSERT_TRUE(json.ok()) << json.status();
    for (const Json& element : json->Find("cases")->elements()) {
      cases_.push_back(ReadCase(element));
      ASSERT_TRUE(Validate(cases_.back().sampling).ok());
    }
  }

  // The row after its edits, made rank by rank for columns cut at `borders`.
  std::vector<float> Edited(const GoldenCase& golden, const std::vector<int64_t>& borders) {
    std::vector<float> edited = golden.logits;
    for (size_t rank = 0; rank + 1 < borders.size(); ++rank) {
      const Range range{borders[rank], borders[rank + 1]};
      const TensorView columns(edited.data() + range.begin, DType::kF32, {1, range.size()});
      WorkerEdits maker(range);
      std::vector<LogitEdit> ids;
      const LogitEdits edits = maker.Make(golden.view(), &ids);
      std::vector<float> out(static_cast<size_t>(range.size()));
      device_->ops().EditLogits(columns, {edits}, range.begin,
                                TensorView(out.data(), DType::kF32, {1, range.size()}));
      std::copy(out.begin(), out.end(), edited.begin() + range.begin);
    }
    return edited;
  }

  std::unique_ptr<Device> device_;
  std::vector<GoldenCase> cases_;
};

// An id that no filter dropped has the reference's logit: each of bias, penalty and temperature
// rounds once, there and here.
TEST_F(SamplingGolden, EditsGiveTheReferencesLogits) {
  for (size_t i = 0; i < cases_.size(); ++i) {
    const GoldenCase& golden = cases_[i];
    for (const std::vector<int64_t>& borders : {std::vector<int64_t>{0, 60}, {0, 13, 13, 31, 60}}) {
      const std::vector<float> edited = Edited(golden, borders);
      for (size_t id = 0; id < edited.size(); ++id) {
        if (golden.processed[id] == kNothing) {
          continue;
        }
        const float logit = edited[id] / golden.sampling.temperature;
        EXPECT_NEAR(logit, golden.processed[id], 4 * 0x1p-24 * std::abs(logit))
            << "case " << i << ", id " << id;
      }
    }
  }
}

// The reference draws from the softmax of what it processed; so do we, but for uniform numbers that
// lie between two ids within the reference's own rounding (its softmax is in fp32).
TEST_F(SamplingGolden, TokensFollowTheReferencesDistribution) {
  constexpr double kRounding = 60 * 0x1p-23;
  for (size_t i = 0; i < cases_.size(); ++i) {
    const GoldenCase& golden = cases_[i];
    std::vector<float> edited = Edited(golden, {0, 60});
    double total = 0;
    for (const float logit : golden.processed) {
      total += std::exp(double{logit});
    }
    for (uint64_t position = 0; position < 3000; ++position) {
      const SamplingRow row{.temperature = golden.sampling.temperature,
                            .top_p = golden.sampling.top_p,
                            .top_k = golden.sampling.top_k,
                            .min_p = golden.sampling.min_p,
                            .seed = i,
                            .position = position};
      int32_t token = -1;
      device_->ops().Sample(TensorView(edited.data(), DType::kF32, {1, 60}), {row}, 60,
                            TensorView(&token, DType::kI32, {1}));
      ASSERT_GE(token, 0);
      const double uniform = PhiloxUniform(row.seed, 0, position);
      double before = 0;
      for (int32_t id = 0; id < token; ++id) {
        before += std::exp(double{golden.processed[static_cast<size_t>(id)]}) / total;
      }
      const double own = std::exp(double{golden.processed[static_cast<size_t>(token)]}) / total;
      ASSERT_GT(own, 0) << "case " << i << " chose id " << token << ", which the reference drops";
      ASSERT_GE(uniform, before - kRounding) << "case " << i << ", position " << position;
      ASSERT_LE(uniform, before + own + kRounding) << "case " << i << ", position " << position;
    }
  }
}

}  // namespace
}  // namespace cohort
