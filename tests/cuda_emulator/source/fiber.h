// Stacks that the threads of a block run on, and the switch between them (x86-64).
#ifndef COHORT_TESTS_CUDA_EMULATOR_FIBER_H_
#define COHORT_TESTS_CUDA_EMULATOR_FIBER_H_

#include <cstddef>
#include <vector>

namespace cuda_emulator {

struct Fiber {
  void* stack_pointer = nullptr;  // while it does not run
  char* stack = nullptr;          // lowest address; null for the host thread's own
  std::size_t stack_bytes = 0;
  void* sanitizer_state = nullptr;
};

// Makes `fiber`, which has a stack, begin at `entry` when it is switched to. `entry` never returns.
void PrepareFiber(Fiber* fiber, void (*entry)());

// Leaves `from` and goes on in `to`. When `from` will not be switched to again, `is_last`.
void SwitchFiber(Fiber* from, Fiber* to, bool is_last);

// What a fiber calls first, once it is switched to.
void EnterFiber();

// Stacks with a guard page below each, kept until the pool goes.
class StackPool {
 public:
  StackPool() = default;
  StackPool(const StackPool&) = delete;
  StackPool& operator=(const StackPool&) = delete;
  ~StackPool();

  // The i-th stack.
  void Give(std::size_t i, Fiber* fiber);

 private:
  std::vector<char*> stacks_;
};

}  // namespace cuda_emulator

#endif  // COHORT_TESTS_CUDA_EMULATOR_FIBER_H_
