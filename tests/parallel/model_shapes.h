// The models that the cuts are tested on.
#ifndef COHORT_TESTS_PARALLEL_MODEL_SHAPES_H_
#define COHORT_TESTS_PARALLEL_MODEL_SHAPES_H_

#include <string>
#include <vector>

#include "parallel/shard_plan.h"

namespace cohort {

struct Model {
  std::string name;
  ModelDims dims;
};

// Attention dimensions of the mixture of experts with the dense FFN of its config.
inline std::vector<Model> PublishedModels() {
  return {
      {"0.5B", {896, 24, 14, 2, 64, 4864, 151936, true}},
      {"1.5B", {1536, 28, 12, 2, 128, 8960, 151936, true}},
      {"7B", {3584, 28, 28, 4, 128, 18944, 152064, false}},
      {"72B", {8192, 80, 64, 8, 128, 29568, 152064, false}},
      {"57B-A14B", {3584, 28, 28, 4, 128, 18944, 151936, false}},
  };
}

inline std::vector<Model> OddModels() {
  return {
      {"five heads, one KV head", {20, 2, 5, 1, 4, 33, 101, false}},
      {"FFN of 7", {12, 1, 3, 3, 4, 7, 50, true}},
      {"FFN smaller than the world", {32, 2, 8, 2, 4, 5, 300, false}},
      {"vocabulary smaller than the world", {32, 2, 8, 4, 4, 64, 3, false}},
      {"one of everything", {1, 1, 1, 1, 1, 1, 1, false}},
      {"KV heads of their own", {64, 3, 16, 16, 8, 1000, 999, true, 4, 4}},
  };
}

inline std::vector<Model> AllModels() {
  std::vector<Model> models = PublishedModels();
  for (const Model& model : OddModels()) {
    models.push_back(model);
  }
  return models;
}

}  // namespace cohort

#endif  // COHORT_TESTS_PARALLEL_MODEL_SHAPES_H_
