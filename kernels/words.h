// 64-bit numbers as two int32 words, the low one first.
#ifndef COHORT_KERNELS_WORDS_H_
#define COHORT_KERNELS_WORDS_H_

#include <cstdint>

namespace cohort {

constexpr void WriteWords(uint64_t value, int32_t* words) {
  words[0] = static_cast<int32_t>(static_cast<uint32_t>(value));
  words[1] = static_cast<int32_t>(static_cast<uint32_t>(value >> 32));
}

constexpr uint64_t ReadWords(const int32_t* words) {
  return uint64_t{static_cast<uint32_t>(words[0])} | uint64_t{static_cast<uint32_t>(words[1])}
                                                         << 32;
}

}  // namespace cohort

#endif  // COHORT_KERNELS_WORDS_H_
