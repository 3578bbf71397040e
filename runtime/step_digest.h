// What all ranks of a group must agree on about a step: its number and the tokens sampled.
#ifndef COHORT_RUNTIME_STEP_DIGEST_H_
#define COHORT_RUNTIME_STEP_DIGEST_H_

#include <cstdint>

namespace cohort {

// FNV-1a over 64-bit words.
class StepDigest {
 public:
  void Add(uint64_t word) { hash_ = (hash_ ^ word) * 0x100000001b3u; }
  uint64_t value() const { return hash_; }

 private:
  uint64_t hash_ = 0xcbf29ce484222325u;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_STEP_DIGEST_H_
