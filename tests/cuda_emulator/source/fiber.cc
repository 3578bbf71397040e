#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

extern "C" void cuda_emulator_switch(void** save, void* load);

// The registers that a function must keep. The return goes by a jump: `ret` would be predicted to
// lead back to the caller before.
asm(R"(
.text
.p2align 4
.globl cuda_emulator_switch
.hidden cuda_emulator_switch
.type cuda_emulator_switch, @function
cuda_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmp *%rcx
.size cuda_emulator_switch, .-cuda_emulator_switch
)");

namespace cuda_emulator {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kColour = 13 * 64;
constexpr std::size_t kColours = std::size_t{16} << 10;
#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kStackBytes = std::size_t{256} << 10;
#else
constexpr std::size_t kStackBytes = std::size_t{64} << 10;
#endif

#if defined(__SANITIZE_ADDRESS__)
void BeforeSwitch(Fiber* from, Fiber* to, bool is_last) {
  if (to->stack == nullptr) {  // the host thread's stack
    pthread_attr_t attributes;
    pthread_getattr_np(pthread_self(), &attributes);
    void* bottom = nullptr;
    std::size_t bytes = 0;
    pthread_attr_getstack(&attributes, &bottom, &bytes);
    pthread_attr_destroy(&attributes);
    __sanitizer_start_switch_fiber(is_last ? nullptr : &from->sanitizer_state, bottom, bytes);
  } else {
    __sanitizer_start_switch_fiber(is_last ? nullptr : &from->sanitizer_state, to->stack,
                                   to->stack_bytes);
  }
}
void AfterSwitch(Fiber* self) {
  __sanitizer_finish_switch_fiber(self != nullptr ? self->sanitizer_state : nullptr, nullptr,
                                  nullptr);
}
void Unpoison(Fiber* fiber) { ASAN_UNPOISON_MEMORY_REGION(fiber->stack, fiber->stack_bytes); }
#else
void BeforeSwitch(Fiber*, Fiber*, bool) {}
void AfterSwitch(Fiber*) {}
void Unpoison(Fiber*) {}
#endif

}  // namespace

void PrepareFiber(Fiber* fiber, void (*entry)()) {
  Unpoison(fiber);
  // `entry` finds a return address of 0 at a stack pointer that is 8 beyond a multiple of 16. The
  // top of the stack is a multiple of 4096.
  const uint64_t frame[] = {0, 0, 0, 0, 0, 0, reinterpret_cast<uint64_t>(entry), 0};
  char* pointer = fiber->stack + fiber->stack_bytes - 16 - sizeof(frame);
  std::memcpy(pointer, frame, sizeof(frame));
  fiber->stack_pointer = pointer;
}

void SwitchFiber(Fiber* from, Fiber* to, bool is_last) {
  BeforeSwitch(from, to, is_last);
  cuda_emulator_switch(&from->stack_pointer, to->stack_pointer);
  AfterSwitch(from);
}

void EnterFiber() { AfterSwitch(nullptr); }

StackPool::~StackPool() {
  for (char* stack : stacks_) {
    munmap(stack, kStackBytes + kPage);
  }
}

void StackPool::Give(std::size_t i, Fiber* fiber) {
  while (stacks_.size() <= i) {
    void* memory = mmap(nullptr, kStackBytes + kPage, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, kPage, PROT_NONE) != 0) {
      std::perror("cuda emulator: memory for a stack");
      std::abort();
    }
    stacks_.push_back(static_cast<char*>(memory));
  }
  fiber->stack = stacks_[i] + kPage;
  // Tops at the same place of every stack would share a few sets of the caches.
  fiber->stack_bytes = kStackBytes - i * kColour % kColours;
}

}  // namespace cuda_emulator
