// YaRN (arXiv 2309.00071): rotations that let a model read further than it was trained to. Pairs of
// the head that turn often within the original length keep their frequency, those that turn seldom
// are slowed down by the factor, and those between are mixed; attention becomes a little sharper.
// The rule is that of transformers since 4.56 and of vLLM: `factor` as given, and the original
// length, never max_position_embeddings, decides which pairs are which.
#ifndef COHORT_RUNTIME_YARN_H_
#define COHORT_RUNTIME_YARN_H_

#include <cstdint>
#include <vector>

namespace cohort {

struct YarnScaling {
  double factor = 1;               // at least 1
  int64_t original_positions = 0;  // that the model was trained on
  double attention_factor = 1;     // of cosine and sine
  double beta_fast = 32;           // turns within the original length from which pairs are kept
  double beta_slow = 1;            // turns below which they are slowed down
  bool truncate = true;            // the range between is widened to whole pairs

  int64_t positions() const;  // original_positions * factor
};

// 0.1 * mscale * ln(factor) + 1; 1 for a factor of at most 1.
double YarnTemperature(double factor, double mscale = 1);

// theta^(-2i/head_dim) for i in 0..head_dim/2-1, in fp32 step by step as the reference
// implementation computes it.
std::vector<float> InverseFrequencies(double theta, int64_t head_dim);

// The same as `yarn` changes them.
std::vector<float> InverseFrequencies(double theta, int64_t head_dim, const YarnScaling& yarn);

}  // namespace cohort

#endif  // COHORT_RUNTIME_YARN_H_
