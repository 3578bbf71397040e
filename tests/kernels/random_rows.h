// Random rows of logits, settings and edits for the tests of sampling.
#ifndef COHORT_TESTS_KERNELS_RANDOM_ROWS_H_
#define COHORT_TESTS_KERNELS_RANDOM_ROWS_H_

#include <cstdint>
#include <initializer_list>
#include <random>
#include <vector>

#include "kernels/sampling.h"

namespace cohort {

template <class T>
T OneOf(std::mt19937_64& random, std::initializer_list<T> values) {
  return values.begin()[random() % values.size()];
}

// Distributions at which something could go wrong.
std::vector<float> AnyLogits(std::mt19937_64& random, size_t ids);

SamplingRow AnySampling(std::mt19937_64& random);
std::vector<SamplingRow> AnySettings(std::mt19937_64& random, int64_t rows);

struct OwnedEdits {
  std::vector<LogitEdit> ids;
  std::vector<int32_t> allowed;
  LogitEdits view;
};

// Of some of the ids first_id to first_id + ids - 1.
void FillEdits(std::mt19937_64& random, int32_t first_id, int32_t ids, OwnedEdits* edits);

}  // namespace cohort

#endif  // COHORT_TESTS_KERNELS_RANDOM_ROWS_H_
