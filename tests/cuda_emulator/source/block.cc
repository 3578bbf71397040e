// The scheduler of a block: a thread runs until it waits, then hands over to another.
#include "block.h"

#include <dlfcn.h>
#include <link.h>
#include <sched.h>
#include <sys/mman.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "architecture.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

constinit thread_local uint3 threadIdx{};
constinit thread_local uint3 blockIdx{};
constinit thread_local dim3 blockDim{};
constinit thread_local dim3 gridDim{};

namespace cuda_emulator {

constinit thread_local Thread* current = nullptr;

namespace {

constexpr unsigned char kPoison = 0xff;  // NaN as fp32 and bf16, -1 as an integer
// Aligned as promised and not better.
constexpr std::size_t kSharedAlignment = 128;
constexpr auto kSpinLimit = std::chrono::seconds(30);

std::string Format(const char* format, va_list arguments) {
  char text[512];
  std::vsnprintf(text, sizeof(text), format, arguments);
  return text;
}

struct ThreadLocalMemory {
  const void* kernel;
  unsigned char* data;
  std::size_t bytes;
};

// Fills in the calling thread's thread-local memory of the library that `kernel` lies in: all of it
// is __shared__ variables.
int FindThreadLocalMemory(dl_phdr_info* info, std::size_t, void* out) {
  auto* found = static_cast<ThreadLocalMemory*>(out);
  const auto kernel = reinterpret_cast<std::uintptr_t>(found->kernel);
  std::size_t bytes = 0;
  bool is_here = false;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    const std::uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
    is_here = is_here ||
              (segment.p_type == PT_LOAD && kernel >= begin && kernel < begin + segment.p_memsz);
    bytes = segment.p_type == PT_TLS ? segment.p_memsz : bytes;
  }
  if (!is_here) {
    return 0;
  }
  found->data = static_cast<unsigned char*>(info->dlpi_tls_data);
  found->bytes = found->data != nullptr ? bytes : 0;
  return 1;
}

void PoisonBeyond(unsigned char* memory, std::size_t bytes, std::size_t capacity) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
  ASAN_POISON_MEMORY_REGION(memory + bytes, capacity - bytes);
#else
  static_cast<void>(memory);
  static_cast<void>(bytes);
  static_cast<void>(capacity);
#endif
}

}  // namespace

Block::Block() {
  // Room for the alignment and for what lies beyond the end, which must not be touched.
  shared_capacity_ = std::size_t{kMostSharedBytes} + 4096;
  void* memory = mmap(nullptr, shared_capacity_ + 2 * kSharedAlignment, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("cuda emulator: shared memory");
    std::abort();
  }
  shared_ = static_cast<unsigned char*>(memory) + kSharedAlignment;
}

Block::~Block() {
  PoisonBeyond(shared_, shared_capacity_, shared_capacity_);
  munmap(shared_ - kSharedAlignment, shared_capacity_ + 2 * kSharedAlignment);
}

void Block::MakeThreads() {
  const dim3& dim = grid_->block;
  while (threads_.size() < threads_count_) {
    threads_.push_back(std::make_unique<BlockThread>());
    stacks_.Give(threads_.size() - 1, &threads_.back()->fiber);
  }
  for (uint32_t i = 0; i < threads_count_; ++i) {
    BlockThread& thread = *threads_[i];
    thread.index = {i % dim.x, i / dim.x % dim.y, i / (dim.x * dim.y)};
    thread.number = i;
    thread.block = this;
    thread.dynamic_shared = shared_;
    thread.wait = {};
    thread.has_ended = false;
    thread.has_waited_for_predecessor = false;
    thread.copy_groups = 0;
    thread.waited_groups = 0;
    thread.copies.clear();
    PrepareFiber(&thread.fiber, [] {
      EnterFiber();
      Block* block = current->block;
      try {
        block->grid().call();
        block->End();
      } catch (const KernelFailure&) {
      }
      block->Abandon();
    });
  }
}

void Block::PoisonShared(uint64_t number) {
  PoisonBeyond(shared_, grid_->shared_bytes, shared_capacity_);
  std::memset(shared_, kPoison, grid_->shared_bytes);
  // Static shared memory of all kernels together: now and then is enough.
  if (number % 8 == 0) {
    if (statics_bytes_ == 0 || module_of_kernel_ != grid_->kernel) {
      ThreadLocalMemory found = {grid_->kernel, nullptr, 0};
      dl_iterate_phdr(FindThreadLocalMemory, &found);
      module_of_kernel_ = grid_->kernel;
      statics_ = found.data;
      statics_bytes_ = found.bytes;
    }
    if (statics_bytes_ > 0) {
      std::memset(statics_, kPoison, statics_bytes_);
    }
  }
}

void Block::Begin(Grid* grid, uint3 index, uint64_t number) {
  grid_ = grid;
  random_ = Random(grid->seed + number * 0x632be59bd9b4e019u);
  early_ = static_cast<int>(random_.Below(3));
  blockIdx = index;
  blockDim = grid->block;
  gridDim = grid->grid;
  threads_count_ = grid->block.x * grid->block.y * grid->block.z;
  alive_ = threads_count_;
  is_abandoned_ = false;
  idle_yields_ = 0;
  bulk_copies_.clear();
  warpgroups_.Reset(threads_count_);
  unfenced_writes_.Reset(threads_count_, grid->shared_bytes);
  PoisonShared(number);
  MakeThreads();
  warps_.assign((threads_count_ + 31) / 32, Warp{});
  if (threads_count_ % 32 != 0) {
    warps_.back().gone = ~0u << threads_count_ % 32;
  }
  for (NamedState& barrier : barriers_) {
    barrier.arrived = 0;
    barrier.waiting.clear();
  }
  using Order = ReadyThreads::Order;
  constexpr Order kOrders[] = {Order::kFirst, Order::kLast, Order::kAny};
  ready_.Reset(kOrders[random_.Below(3)], threads_count_);
  const uint32_t first = random_.Below(threads_count_);
  const uint32_t step = (random_.Next() & 1) != 0 ? 1 : threads_count_ - 1;
  uint32_t thread = first;
  for (uint32_t i = 0; i < threads_count_; ++i) {
    ready_.Push(thread);
    thread = (thread + step) % threads_count_;
  }
}

bool Block::Run(Grid* grid, uint3 index, uint64_t number) {
  Begin(grid, index, number);
  BlockThread* first = threads_[ready_.Pop(&random_)].get();
  MakeCurrent(first);
  SwitchFiber(&host_, &first->fiber, false);
  current = nullptr;
  return !is_abandoned_;
}

void Block::MakeCurrent(BlockThread* thread) {
  current = thread;
  threadIdx = thread->index;
}

void Block::SwitchToNext(bool is_last) {
  BlockThread* from = &self();
  BlockThread* to = threads_[ready_.Pop(&random_)].get();
  if (to != from) {
    MakeCurrent(to);
    SwitchFiber(&from->fiber, &to->fiber, is_last);
  }
  if (grid_->has_failed.load(std::memory_order_relaxed)) {
    Abandon();
  }
}

void Block::Suspend() {
  if (ready_.is_empty()) {
    ReportDeadlock();
  }
  idle_yields_ = 0;
  SwitchToNext(false);
}

void Block::Yield() {
  if (grid_->has_failed.load(std::memory_order_relaxed)) {
    Abandon();
  }
  // A thread that alone can go on spins for all: on a busy machine each of its yields takes long.
  const uint32_t round = 64 * alive_;
  const uint32_t before = idle_yields_;
  idle_yields_ += ready_.is_empty() ? alive_ : 1;
  if (before == 0) {
    spinning_since_ = std::chrono::steady_clock::now();
  } else if (before / round != idle_yields_ / round) {
    sched_yield();
    grid_->start_others();
    if (std::chrono::steady_clock::now() - spinning_since_ > kSpinLimit) {
      Fail("the threads of the block have only spun for 30 seconds");
    }
  }
  if (ready_.is_empty()) {
    sched_yield();
    return;
  }
  ready_.PushLast(current->number);
  SwitchToNext(false);
}

void Block::End() {
  BlockThread& thread = self();
  if (grid_->is_programmatic && !thread.has_waited_for_predecessor) {
    Fail("a thread of a programmatic launch ended without WaitForPredecessor()");
  }
  if (const char* reason = warpgroups_.ReasonAgainstEnd(thread.number, alive_ == 1)) {
    Fail(reason);
  }
  thread.has_ended = true;
  thread.wait.what = nullptr;
  idle_yields_ = 0;
  warps_[thread.number / 32].gone |= 1u << thread.number % 32;
  --alive_;
  NamedState& barrier = barriers_[0];
  if (barrier.arrived > 0 && barrier.arrived == static_cast<int>(alive_)) {
    Release(&barrier);
  }
  if (alive_ == 0) {
    if (!bulk_copies_.empty()) {
      Fail("a block ended while bulk copies into its shared memory were under way");
    }
    SwitchFiber(&thread.fiber, &host_, true);
  } else if (ready_.is_empty()) {
    ReportDeadlock();
  }
  SwitchToNext(true);
  std::abort();  // nobody switches back
}

void Block::Abandon() {
  is_abandoned_ = true;
  SwitchFiber(&self().fiber, &host_, true);
  std::abort();
}

bool Block::AllMeet(uint32_t warp, uint32_t mask, const Collective& collective) const {
  if ((warps_[warp].waiting & mask) != mask) {
    return false;
  }
  for (uint32_t left = mask; left != 0; left &= left - 1) {
    const BlockThread& other = *threads_[warp * 32 + static_cast<uint32_t>(__builtin_ctz(left))];
    if (other.collective != &collective || other.wait.mask != mask) {
      return false;
    }
  }
  return true;
}

void Block::Perform(uint32_t warp, uint32_t mask, const Collective& collective) {
  void* operands[32] = {};
  for (uint32_t left = mask; left != 0; left &= left - 1) {
    const auto lane = static_cast<uint32_t>(__builtin_ctz(left));
    operands[lane] = threads_[warp * 32 + lane]->operand;
  }
  collective.perform(operands, mask);
  warps_[warp].waiting &= ~mask;
  const uint32_t flip = random_.Below(32);
  for (uint32_t i = 0; i < 32; ++i) {
    const uint32_t lane = i ^ flip;
    const uint32_t number = warp * 32 + lane;
    if ((mask >> lane & 1) != 0) {
      threads_[number]->wait.what = nullptr;
      if (number != current->number) {
        ready_.Push(number);
      }
    }
  }
}

void Block::Meet(uint32_t mask, const Collective& collective, void* operand, const char* file,
                 int line) {
  BlockThread& thread = self();
  const uint32_t warp = thread.number / 32;
  const uint32_t bit = 1u << thread.number % 32;
  thread.wait = {collective.name, file, line, mask};
  if ((mask & bit) == 0 || (mask & warps_[warp].gone) != 0) {
    Fail((mask & bit) == 0 ? "the mask lacks the calling lane"
                           : "the mask names lanes that have ended or do not exist");
  }
  thread.collective = &collective;
  thread.operand = operand;
  warps_[warp].waiting |= bit;
  if (AllMeet(warp, mask, collective)) {
    Perform(warp, mask, collective);
  } else {
    Suspend();
  }
}

void Block::Release(NamedState* barrier) {
  const int results[] = {0, barrier->any, barrier->all, barrier->count};
  const std::size_t count = barrier->waiting.size();
  const std::size_t first = count > 0 ? random_.Below(static_cast<uint32_t>(count)) : 0;
  for (std::size_t i = 0; i < count; ++i) {
    const uint32_t number = barrier->waiting[(first + i) % count];
    threads_[number]->vote = results[static_cast<int>(barrier->vote)];
    threads_[number]->wait.what = nullptr;
    ready_.Push(number);
  }
  barrier->waiting.clear();
  barrier->arrived = 0;
}

int Block::Barrier(Vote vote, int predicate, const char* file, int line) {
  BlockThread& thread = self();
  NamedState& barrier = barriers_[0];
  thread.wait = {"__syncthreads", file, line, 0};
  if (barrier.arrived == 0) {
    barrier.vote = vote;
    barrier.any = 0;
    barrier.all = 1;
    barrier.count = 0;
    barrier.file = file;
    barrier.line = line;
  } else if (barrier.line != line || std::strcmp(barrier.file, file) != 0 || barrier.vote != vote) {
    Fail("threads of a block meet in different __syncthreads: others are at " +
         std::string(barrier.file) + ":" + std::to_string(barrier.line));
  }
  barrier.any |= predicate != 0;
  barrier.all &= predicate != 0;
  barrier.count += predicate != 0;
  barrier.waiting.push_back(thread.number);
  if (++barrier.arrived == static_cast<int>(alive_)) {
    Release(&barrier);
  }
  Suspend();
  return thread.vote;
}

void Block::Named(int id, int threads, bool waits, const char* file, int line) {
  BlockThread& thread = self();
  thread.wait = {"NamedBarrier", file, line, 0};
  if (id < 1 || id > 15 || threads <= 0 || threads % 32 != 0) {
    Fail("barrier " + std::to_string(id) + " of " + std::to_string(threads) +
         " threads: ids are 1 to 15, threads a multiple of 32");
  }
  NamedState& barrier = barriers_[id];
  if (barrier.arrived > 0 && barrier.expected != threads) {
    Fail("barrier " + std::to_string(id) + " of " + std::to_string(threads) +
         " threads, while others expect " + std::to_string(barrier.expected));
  }
  barrier.vote = Vote::kNone;
  barrier.expected = threads;
  if (waits) {
    barrier.waiting.push_back(thread.number);
  } else {
    thread.wait.what = nullptr;
  }
  if (++barrier.arrived == threads) {
    Release(&barrier);
  }
  if (waits) {
    Suspend();
  }
}

std::string Block::Describe(const BlockThread& thread) const {
  char text[256];
  const uint3& at = thread.index;
  int used = std::snprintf(text, sizeof(text), "thread (%u, %u, %u)", at.x, at.y, at.z);
  if (thread.wait.what != nullptr) {
    used += std::snprintf(text + used, sizeof(text) - static_cast<std::size_t>(used),
                          " in %s at %s:%d", thread.wait.what, thread.wait.file, thread.wait.line);
    if (thread.wait.mask != 0) {
      std::snprintf(text + used, sizeof(text) - static_cast<std::size_t>(used),
                    " for the lanes %08x", thread.wait.mask);
    }
  }
  return text;
}

void Block::ReportDeadlock() {
  std::string what = "no thread of the block can go on:";
  int shown = 0;
  const Wait* last = nullptr;
  for (uint32_t i = 0; i < threads_count_ && shown < 8; ++i) {
    const BlockThread& thread = *threads_[i];
    if (thread.has_ended || (last != nullptr && last->line == thread.wait.line &&
                             last->what == thread.wait.what && last->mask == thread.wait.mask)) {
      continue;
    }
    last = &thread.wait;
    ++shown;
    what += "\n  " + Describe(thread);
  }
  what += "\n  " + std::to_string(threads_count_ - alive_) + " threads have ended";
  self().wait.what = nullptr;
  Fail(what);
}

void Block::Fail(const std::string& what) {
  const uint3& at = blockIdx;
  char place[96];
  std::snprintf(place, sizeof(place), "block (%u, %u, %u), ", at.x, at.y, at.z);
  const std::string text =
      NameOfFunction(grid_->kernel) + ": " + place + Describe(self()) + ": " + what;
  {
    const std::lock_guard<std::mutex> lock(grid_->mutex);
    if (grid_->failure.empty()) {
      grid_->failure = text;
      std::fprintf(stderr, "emulated GPU: %s\n", text.c_str());
    }
  }
  grid_->has_failed = true;
  throw KernelFailure();
}

void Meet(uint32_t mask, const Collective& collective, void* operand, const char* file, int line) {
  current->block->Meet(mask, collective, operand, file, line);
}
int BlockBarrier(Vote vote, int predicate, const char* file, int line) {
  return current->block->Barrier(vote, predicate, file, line);
}
void NamedBarrier(int id, int threads, bool waits, const char* file, int line) {
  current->block->Named(id, threads, waits, file, line);
}
void Yield() { current->block->Yield(); }
bool HappensEarly() { return current->block->Flip(); }
void WaitForPredecessor() { current->block->self().has_waited_for_predecessor = true; }
void LaunchSuccessor() {}
void Fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const std::string text = Format(format, arguments);
  va_end(arguments);
  current->block->Fail(text);
}

uint64_t Nanoseconds() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
}

}  // namespace cuda_emulator
