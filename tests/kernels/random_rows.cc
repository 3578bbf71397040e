#include "tests/kernels/random_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace cohort {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

std::vector<float> AnyLogits(std::mt19937_64& random, size_t ids) {
  std::vector<float> logits(ids);
  std::normal_distribution<float> normal(0, 1);
  const int shape = static_cast<int>(random() % 7);
  for (float& logit : logits) {
    const float x = normal(random);
    logit = shape == 0   ? x                         // flat
            : shape == 1 ? 4 * x                     // like a model's
            : shape == 2 ? std::round(x)             // ties
            : shape == 3 ? 2.5f                      // all equal
            : shape == 4 ? (x > 1 ? x : -kInfinity)  // most cannot be chosen
            : shape == 5 ? x / 1000                  // nearly equal
                         : -100 + x;                 // and one peak
  }
  if (shape == 6) {
    logits[random() % ids] = 20;
  }
  if (random() % 40 == 0) {
    logits[random() % ids] = std::numeric_limits<float>::quiet_NaN();
  }
  if (random() % 40 == 0) {
    std::fill(logits.begin(), logits.end(), -kInfinity);
  }
  return logits;
}

SamplingRow AnySampling(std::mt19937_64& random) {
  return {.temperature = OneOf(random, {0.0f, 0.01f, 0.7f, 1.0f, 1.3f, 50.0f}),
          .top_p = OneOf(random, {1.0f, 0.8f, 0.999f, 0.5f, 1e-6f}),
          .top_k = OneOf(random, {0, 0, 1, 20, 127, 128, 129, 1000}),
          .min_p = OneOf(random, {0.0f, 0.0f, 0.05f, 0.9f, 1.0f, 1e-9f}),
          .seed = random(),
          .sequence_index = static_cast<uint32_t>(random()),
          .position = random()};
}

std::vector<SamplingRow> AnySettings(std::mt19937_64& random, int64_t rows) {
  std::vector<SamplingRow> settings;
  for (int64_t row = 0; row < rows; ++row) {
    settings.push_back(AnySampling(random));
  }
  return settings;
}

void FillEdits(std::mt19937_64& random, int32_t first_id, int32_t ids, OwnedEdits* edits) {
  for (int32_t id = first_id; id < first_id + ids; ++id) {
    if (random() % 5 == 0) {
      edits->ids.push_back({.id = id,
                            .is_repeated = random() % 2 == 0,
                            .bias = OneOf(random, {0.0f, -kInfinity, 3.0f, -3.0f}),
                            .penalty = OneOf(random, {0.0f, 1.5f, -0.5f})});
    }
    if (random() % 3 == 0) {
      edits->allowed.push_back(id);
    }
  }
  std::shuffle(edits->ids.begin(), edits->ids.end(), random);
  edits->view.repetition_penalty = 1.3f;
  edits->view.ids = edits->ids;
  edits->view.allowed = edits->allowed;
  edits->view.only_allowed = random() % 2 == 0;
}

}  // namespace cohort
