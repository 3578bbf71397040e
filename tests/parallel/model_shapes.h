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

inline ModelDims WithExperts(ModelDims dims, int64_t experts, int64_t per_token, int64_t columns,
                             int64_t shared_columns, int64_t sparse_layers) {
  dims.experts = experts;
  dims.experts_per_token = per_token;
  dims.expert_columns = columns;
  dims.shared_expert_columns = shared_columns;
  dims.sparse_layers = sparse_layers;
  return dims;
}

inline std::vector<Model> PublishedModels() {
  return {
      {"0.5B", {896, 24, 14, 2, 64, 4864, 151936, true}},
      {"1.5B", {1536, 28, 12, 2, 128, 8960, 151936, true}},
      {"7B", {3584, 28, 28, 4, 128, 18944, 152064, false}},
      {"72B", {8192, 80, 64, 8, 128, 29568, 152064, false}},
      {"57B-A14B",
       WithExperts({3584, 28, 28, 4, 128, 18944, 151936, false}, 64, 8, 2560, 20480, 28)},
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
      {"dense and sparse layers",
       WithExperts({48, 5, 6, 2, 8, 200, 300, false, 4, 4}, 10, 3, 70, 130, 2)},
      {"more ranks than experts or columns",
       WithExperts({16, 3, 12, 3, 4, 40, 500, true}, 3, 3, 5, 7, 3)},
      {"one expert", WithExperts({64, 2, 7, 7, 8, 96, 1000, false}, 1, 1, 96, 96, 2)},
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
