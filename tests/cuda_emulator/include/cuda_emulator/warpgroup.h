// Matrix products of a warpgroup, under way until they are waited for; see source/warpgroup.cc.
#ifndef COHORT_TESTS_CUDA_EMULATOR_WARPGROUP_H_
#define COHORT_TESTS_CUDA_EMULATOR_WARPGROUP_H_

#include <cstdint>

namespace cuda_emulator {

// What all threads of the group say of a product; a and b are descriptors.
struct WgmmaShape {
  int columns;
  bool b_is_mn_major;
  bool a_in_registers;
  bool add;
  uint64_t a;
  uint64_t b;

  bool operator==(const WgmmaShape&) const = default;
};

// In the window of the block's shared memory; fails where `shared` is not the dynamic part of it.
uint32_t SharedAddress(const void* shared);

void WgmmaFence();
void Wgmma(const WgmmaShape& shape, float* d, const uint32_t* a);
void WgmmaCommit();
void WgmmaWait(int pending);
// Fails where a product into `d` is under way.
void RequireIdle(const float* d);
// setmaxnreg.
void SetRegisters(int count);

}  // namespace cuda_emulator

#endif  // COHORT_TESTS_CUDA_EMULATOR_WARPGROUP_H_
