// How one row of logits is turned into a token. Plain constexpr code, for kernels of CUDA too.
#ifndef COHORT_KERNELS_SAMPLING_ROW_H_
#define COHORT_KERNELS_SAMPLING_ROW_H_

#include <bit>
#include <cstdint>

#include "kernels/words.h"

namespace cohort {

inline constexpr int32_t kNoToken = -1;
inline constexpr int32_t kUndecided = -3;                    // the records of all ranks do not tell
inline constexpr int64_t kMaxVocabulary = int64_t{1} << 19;  // so that sums of masses fit 64 bits

struct SamplingRow {
  float temperature = 0;  // 0: greedy (the first of the largest logits)
  float top_p = 1;        // (0, 1]
  int32_t top_k = 0;      // 0: all
  float min_p = 0;        // [0, 1]; 0: off
  uint64_t seed = 0;
  uint32_t sequence_index = 0;  // which of a request's n sequences
  uint64_t position = 0;        // absolute position of the token being chosen
};

// A SamplingRow as int32 words of device memory: bits of temperature, top_p, min_p; top_k;
// sequence_index; 0; seed; position (both with the low word first).
inline constexpr int64_t kSamplingWords = 10;

constexpr void WriteSamplingRow(const SamplingRow& row, int32_t* words) {
  words[0] = std::bit_cast<int32_t>(row.temperature);
  words[1] = std::bit_cast<int32_t>(row.top_p);
  words[2] = std::bit_cast<int32_t>(row.min_p);
  words[3] = row.top_k;
  words[4] = static_cast<int32_t>(row.sequence_index);
  words[5] = 0;
  WriteWords(row.seed, words + 6);
  WriteWords(row.position, words + 8);
}

constexpr SamplingRow ReadSamplingRow(const int32_t* words) {
  return {.temperature = std::bit_cast<float>(words[0]),
          .top_p = std::bit_cast<float>(words[1]),
          .top_k = words[3],
          .min_p = std::bit_cast<float>(words[2]),
          .seed = ReadWords(words + 6),
          .sequence_index = static_cast<uint32_t>(words[4]),
          .position = ReadWords(words + 8)};
}

}  // namespace cohort

#endif  // COHORT_KERNELS_SAMPLING_ROW_H_
