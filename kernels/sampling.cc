#include "kernels/sampling.h"

#include <bit>

#include "kernels/candidates.h"

namespace cohort {
namespace {

uint64_t ReadWords(const int32_t* words) {
  return uint64_t{static_cast<uint32_t>(words[0])} | uint64_t{static_cast<uint32_t>(words[1])}
                                                         << 32;
}

}  // namespace

void WriteSamplingRow(const SamplingRow& row, int32_t* words) {
  words[0] = std::bit_cast<int32_t>(row.temperature);
  words[1] = std::bit_cast<int32_t>(row.top_p);
  words[2] = std::bit_cast<int32_t>(row.min_p);
  words[3] = row.top_k;
  words[4] = static_cast<int32_t>(row.sequence_index);
  words[5] = 0;
  WriteWords(row.seed, words + 6);
  WriteWords(row.position, words + 8);
}

SamplingRow ReadSamplingRow(const int32_t* words) {
  return {.temperature = std::bit_cast<float>(words[0]),
          .top_p = std::bit_cast<float>(words[1]),
          .top_k = words[3],
          .min_p = std::bit_cast<float>(words[2]),
          .seed = ReadWords(words + 6),
          .sequence_index = static_cast<uint32_t>(words[4]),
          .position = ReadWords(words + 8)};
}

}  // namespace cohort
