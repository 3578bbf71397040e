// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC
// 2011), a counter-based generator: the number is a pure function of key and counter, so sampling
// does not depend on the batch, the rank or a replay.
#ifndef COHORT_KERNELS_PHILOX_H_
#define COHORT_KERNELS_PHILOX_H_

#include <array>
#include <cstdint>

namespace cohort {

constexpr std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter,
                                             std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

// 24 uniform bits per (seed, sequence index, absolute position).
constexpr uint32_t PhiloxBits(uint64_t seed, uint32_t sequence_index, uint64_t position) {
  const std::array<uint32_t, 4> words = Philox4x32(
      {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), sequence_index, 0},
      {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return words[0] >> 8;
}

// They as a number in [0, 1).
constexpr float PhiloxUniform(uint64_t seed, uint32_t sequence_index, uint64_t position) {
  return static_cast<float>(PhiloxBits(seed, sequence_index, position)) * 0x1p-24f;
}

}  // namespace cohort

#endif  // COHORT_KERNELS_PHILOX_H_
