// Shuffles, votes and barriers under their CUDA names.
#ifndef COHORT_TESTS_CUDA_EMULATOR_WARP_H_
#define COHORT_TESTS_CUDA_EMULATOR_WARP_H_

#include <cstring>
#include <type_traits>

#include "cuda_emulator/thread.h"

namespace cuda_emulator {

struct ShuffleOperand {
  uint64_t value;
  uint64_t result;
  int argument;
  int width;
};
extern const Collective kShuffle;
extern const Collective kShuffleUp;
extern const Collective kShuffleDown;
extern const Collective kShuffleXor;

struct WordOperand {
  uint32_t value;
  uint32_t result;
};
extern const Collective kSyncWarp;
extern const Collective kBallot;
extern const Collective kMatchAny;
extern const Collective kReduceAdd;
extern const Collective kReduceMinUnsigned;
extern const Collective kReduceMaxUnsigned;
extern const Collective kReduceMinSigned;
extern const Collective kReduceMaxSigned;
extern const Collective kReduceAnd;
extern const Collective kReduceOr;
extern const Collective kReduceXor;

template <class T>
T Shuffle(const Collective& collective, uint32_t mask, T value, int argument, int width,
          const char* file, int line) {
  static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_trivially_copyable_v<T>);
  ShuffleOperand operand = {0, 0, argument, width};
  std::memcpy(&operand.value, &value, sizeof(T));
  Meet(mask, collective, &operand, file, line);
  std::memcpy(&value, &operand.result, sizeof(T));
  return value;
}

inline uint32_t MeetWithWord(const Collective& collective, uint32_t mask, uint32_t value,
                             const char* file, int line) {
  WordOperand operand = {value, 0};
  Meet(mask, collective, &operand, file, line);
  return operand.result;
}

}  // namespace cuda_emulator

#define COHORT_EMULATOR_LINE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(COHORT_EMULATOR_LINE) {
  cuda_emulator::BlockBarrier(cuda_emulator::Vote::kNone, 0, file, line);
}
inline int __syncthreads_or(int predicate, COHORT_EMULATOR_LINE) {
  return cuda_emulator::BlockBarrier(cuda_emulator::Vote::kOr, predicate, file, line);
}
inline int __syncthreads_and(int predicate, COHORT_EMULATOR_LINE) {
  return cuda_emulator::BlockBarrier(cuda_emulator::Vote::kAnd, predicate, file, line);
}
inline int __syncthreads_count(int predicate, COHORT_EMULATOR_LINE) {
  return cuda_emulator::BlockBarrier(cuda_emulator::Vote::kCount, predicate, file, line);
}

inline void __syncwarp(unsigned mask = 0xffffffffu, COHORT_EMULATOR_LINE) {
  cuda_emulator::MeetWithWord(cuda_emulator::kSyncWarp, mask, 0, file, line);
}
// Any set with the caller in it is a right answer.
inline unsigned __activemask() { return 1u << (cuda_emulator::current->number % 32); }

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, COHORT_EMULATOR_LINE) {
  return cuda_emulator::Shuffle(cuda_emulator::kShuffle, mask, value, lane, width, file, line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, COHORT_EMULATOR_LINE) {
  return cuda_emulator::Shuffle(cuda_emulator::kShuffleUp, mask, value, static_cast<int>(delta),
                                width, file, line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, COHORT_EMULATOR_LINE) {
  return cuda_emulator::Shuffle(cuda_emulator::kShuffleDown, mask, value, static_cast<int>(delta),
                                width, file, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, COHORT_EMULATOR_LINE) {
  return cuda_emulator::Shuffle(cuda_emulator::kShuffleXor, mask, value, bits, width, file, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, COHORT_EMULATOR_LINE) {
  return cuda_emulator::MeetWithWord(cuda_emulator::kBallot, mask, predicate != 0, file, line);
}
inline int __any_sync(unsigned mask, int predicate, COHORT_EMULATOR_LINE) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, COHORT_EMULATOR_LINE) {
  return __ballot_sync(mask, predicate, file, line) == mask;
}
inline unsigned __match_any_sync(unsigned mask, unsigned value, COHORT_EMULATOR_LINE) {
  return cuda_emulator::MeetWithWord(cuda_emulator::kMatchAny, mask, value, file, line);
}
inline unsigned __match_any_sync(unsigned mask, int value, COHORT_EMULATOR_LINE) {
  return __match_any_sync(mask, static_cast<unsigned>(value), file, line);
}

inline unsigned __reduce_add_sync(unsigned mask, unsigned value, COHORT_EMULATOR_LINE) {
  return cuda_emulator::MeetWithWord(cuda_emulator::kReduceAdd, mask, value, file, line);
}
inline int __reduce_add_sync(unsigned mask, int value, COHORT_EMULATOR_LINE) {
  return static_cast<int>(__reduce_add_sync(mask, static_cast<unsigned>(value), file, line));
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value, COHORT_EMULATOR_LINE) {
  return cuda_emulator::MeetWithWord(cuda_emulator::kReduceMinUnsigned, mask, value, file, line);
}
inline int __reduce_min_sync(unsigned mask, int value, COHORT_EMULATOR_LINE) {
  return static_cast<int>(cuda_emulator::MeetWithWord(cuda_emulator::kReduceMinSigned, mask,
                                                      static_cast<unsigned>(value), file, line));
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value, COHORT_EMULATOR_LINE) {
  return cuda_emulator::MeetWithWord(cuda_emulator::kReduceMaxUnsigned, mask, value, file, line);
}
inline int __reduce_max_sync(unsigned mask, int value, COHORT_EMULATOR_LINE) {
  return static_cast<int>(cuda_emulator::MeetWithWord(cuda_emulator::kReduceMaxSigned, mask,
                                                      static_cast<unsigned>(value), file, line));
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, COHORT_EMULATOR_LINE) {
  return cuda_emulator::MeetWithWord(cuda_emulator::kReduceAnd, mask, value, file, line);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, COHORT_EMULATOR_LINE) {
  return cuda_emulator::MeetWithWord(cuda_emulator::kReduceOr, mask, value, file, line);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, COHORT_EMULATOR_LINE) {
  return cuda_emulator::MeetWithWord(cuda_emulator::kReduceXor, mask, value, file, line);
}

#endif  // COHORT_TESTS_CUDA_EMULATOR_WARP_H_
