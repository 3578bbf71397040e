// What the lanes of a warp do together.
#include "cuda_emulator/warp.h"

#include <bit>

namespace cuda_emulator {
namespace {

// A lane that is not there has no value; so that this shows, something that is no value.
constexpr uint64_t kNoValue = 0xdeadbeefdeadbeefu;

// source(lane, argument, width) -> the lane that is read.
template <class Source>
void ShuffleFrom(void* const* operands, uint32_t mask, Source source) {
  for (uint32_t left = mask; left != 0; left &= left - 1) {
    const int lane = std::countr_zero(left);
    auto* operand = static_cast<ShuffleOperand*>(operands[lane]);
    const int from = source(lane, operand->argument, operand->width);
    operand->result = (mask >> from & 1) != 0
                          ? static_cast<const ShuffleOperand*>(operands[from])->value
                          : kNoValue;
  }
}

void PerformShuffle(void* const* operands, uint32_t mask) {
  ShuffleFrom(operands, mask, [](int lane, int argument, int width) {
    return (lane & ~(width - 1)) | (argument & (width - 1));
  });
}
void PerformShuffleUp(void* const* operands, uint32_t mask) {
  ShuffleFrom(operands, mask, [](int lane, int argument, int width) {
    return (lane & (width - 1)) < argument ? lane : lane - argument;
  });
}
void PerformShuffleDown(void* const* operands, uint32_t mask) {
  ShuffleFrom(operands, mask, [](int lane, int argument, int width) {
    return (lane & (width - 1)) + argument >= width ? lane : lane + argument;
  });
}
void PerformShuffleXor(void* const* operands, uint32_t mask) {
  ShuffleFrom(operands, mask, [](int lane, int argument, int width) {
    const int from = lane ^ argument;
    return from >= (lane & ~(width - 1)) + width || from > 31 ? lane : from;
  });
}

// The same result for every lane: combine over the values, in lane order.
template <class Combine>
void Fold(void* const* operands, uint32_t mask, Combine combine) {
  uint32_t result = static_cast<const WordOperand*>(operands[std::countr_zero(mask)])->value;
  for (uint32_t left = mask & (mask - 1); left != 0; left &= left - 1) {
    result =
        combine(result, static_cast<const WordOperand*>(operands[std::countr_zero(left)])->value);
  }
  for (uint32_t left = mask; left != 0; left &= left - 1) {
    static_cast<WordOperand*>(operands[std::countr_zero(left)])->result = result;
  }
}

void PerformSync(void* const*, uint32_t) {}

void PerformMatchAny(void* const* operands, uint32_t mask) {
  for (uint32_t left = mask; left != 0; left &= left - 1) {
    auto* operand = static_cast<WordOperand*>(operands[std::countr_zero(left)]);
    operand->result = 0;
    for (uint32_t others = mask; others != 0; others &= others - 1) {
      const int lane = std::countr_zero(others);
      if (static_cast<const WordOperand*>(operands[lane])->value == operand->value) {
        operand->result |= 1u << lane;
      }
    }
  }
}

void PerformBallot(void* const* operands, uint32_t mask) {
  uint32_t ballot = 0;
  for (uint32_t left = mask; left != 0; left &= left - 1) {
    const int lane = std::countr_zero(left);
    ballot |= static_cast<const WordOperand*>(operands[lane])->value << lane;
  }
  for (uint32_t left = mask; left != 0; left &= left - 1) {
    static_cast<WordOperand*>(operands[std::countr_zero(left)])->result = ballot;
  }
}

using Word = uint32_t;
bool SignedLess(Word a, Word b) { return static_cast<int32_t>(a) < static_cast<int32_t>(b); }

}  // namespace

const Collective kShuffle = {"__shfl_sync", PerformShuffle};
const Collective kShuffleUp = {"__shfl_up_sync", PerformShuffleUp};
const Collective kShuffleDown = {"__shfl_down_sync", PerformShuffleDown};
const Collective kShuffleXor = {"__shfl_xor_sync", PerformShuffleXor};
const Collective kSyncWarp = {"__syncwarp", PerformSync};
const Collective kBallot = {"a vote", PerformBallot};
const Collective kMatchAny = {"__match_any_sync", PerformMatchAny};
const Collective kReduceAdd = {"__reduce_add_sync", [](void* const* operands, Word mask) {
                                 Fold(operands, mask, [](Word a, Word b) { return a + b; });
                               }};
const Collective kReduceMinUnsigned = {"__reduce_min_sync", [](void* const* operands, Word mask) {
                                         Fold(operands, mask,
                                              [](Word a, Word b) { return a < b ? a : b; });
                                       }};
const Collective kReduceMaxUnsigned = {"__reduce_max_sync", [](void* const* operands, Word mask) {
                                         Fold(operands, mask,
                                              [](Word a, Word b) { return a < b ? b : a; });
                                       }};
const Collective kReduceMinSigned = {
    "__reduce_min_sync", [](void* const* operands, Word mask) {
      Fold(operands, mask, [](Word a, Word b) { return SignedLess(a, b) ? a : b; });
    }};
const Collective kReduceMaxSigned = {
    "__reduce_max_sync", [](void* const* operands, Word mask) {
      Fold(operands, mask, [](Word a, Word b) { return SignedLess(a, b) ? b : a; });
    }};
const Collective kReduceAnd = {"__reduce_and_sync", [](void* const* operands, Word mask) {
                                 Fold(operands, mask, [](Word a, Word b) { return a & b; });
                               }};
const Collective kReduceOr = {"__reduce_or_sync", [](void* const* operands, Word mask) {
                                Fold(operands, mask, [](Word a, Word b) { return a | b; });
                              }};
const Collective kReduceXor = {"__reduce_xor_sync", [](void* const* operands, Word mask) {
                                 Fold(operands, mask, [](Word a, Word b) { return a ^ b; });
                               }};

}  // namespace cuda_emulator
