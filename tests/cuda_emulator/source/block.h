// A block of threads as fibers on one thread of the host, and the grid that it belongs to.
#ifndef COHORT_TESTS_CUDA_EMULATOR_BLOCK_H_
#define COHORT_TESTS_CUDA_EMULATOR_BLOCK_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cuda_emulator/thread.h"
#include "fiber.h"
#include "warpgroup.h"

namespace cuda_emulator {

// One launch.
struct Grid {
  const void* kernel = nullptr;
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;
  bool is_cooperative = false;
  bool is_programmatic = false;
  uint64_t resident_blocks = 1;  // that the device holds at a time
  std::function<void()> call;    // runs one thread
  uint64_t seed = 0;

  // Starts more of the grid's blocks beside those that run, which only spin. (grid.cc)
  std::function<void()> start_others;

  std::atomic<bool> has_failed{false};
  std::mutex mutex;
  std::string failure;  // the first, under mutex
};

// Small, fast, the same everywhere.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint32_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return static_cast<uint32_t>(z >> 32);
  }
  uint32_t Below(uint32_t bound) { return static_cast<uint32_t>((uint64_t{Next()} * bound) >> 32); }

 private:
  uint64_t state_;
};

// cp.async of one thread.
struct PendingCopy {
  void* shared;
  const void* global;
  bool valid;
  uint32_t group;
};

struct PendingBulkCopy {
  void* shared;
  const void* global;
  uint32_t bytes;
  uint64_t* barrier;
};

// Ends a thread that found that the kernel is wrong.
struct KernelFailure {};

// What a thread waits for, for the report.
struct Wait {
  const char* what = nullptr;  // null: it does not
  const char* file = nullptr;
  int line = 0;
  uint32_t mask = 0;  // of the lanes, for a warp's operation
};

struct BlockThread : Thread {
  Fiber fiber;
  Wait wait;
  const Collective* collective = nullptr;
  void* operand = nullptr;
  int vote = 0;  // what its barrier voted
  bool has_ended = false;
  bool has_waited_for_predecessor = false;
  uint32_t copy_groups = 0;    // committed
  uint32_t waited_groups = 0;  // of those, that have come
  std::vector<PendingCopy> copies;
};

struct Warp {
  uint32_t waiting = 0;  // lanes inside a collective
  uint32_t gone = 0;     // lanes that have ended or never were
};

// Ready threads, first in first out, last in first out or at random.
class ReadyThreads {
 public:
  enum class Order { kFirst, kLast, kAny };
  void Reset(Order order, std::size_t capacity);
  bool is_empty() const { return count_ == 0; }
  void Push(uint32_t thread) { Slot(count_++) = thread; }
  // To be taken after all others.
  void PushLast(uint32_t thread);
  uint32_t Pop(Random* random);

 private:
  uint32_t& Slot(std::size_t i) { return slots_[(first_ + i) & (slots_.size() - 1)]; }

  Order order_ = Order::kFirst;
  std::vector<uint32_t> slots_;  // a ring; its size is a power of two
  std::size_t first_ = 0;
  std::size_t count_ = 0;
};

// Runs block after block.
class Block {
 public:
  Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block();

  // Runs on this thread of the host from now on.
  void MoveHere() { statics_bytes_ = 0; }
  // Whether it ended well; else grid->failure says why.
  bool Run(Grid* grid, uint3 index, uint64_t number);

  // The rest is called by the block's threads.
  void Meet(uint32_t mask, const Collective& collective, void* operand, const char* file, int line);
  int Barrier(Vote vote, int predicate, const char* file, int line);
  void Named(int id, int threads, bool waits, const char* file, int line);
  void Yield();
  [[noreturn]] void End();
  // Leaves the block as it is.
  [[noreturn]] void Abandon();
  [[noreturn]] void Fail(const std::string& what);
  bool Flip() { return early_ == 2 ? (random_.Next() & 1) != 0 : early_ == 1; }
  BlockThread& self() { return *static_cast<BlockThread*>(current); }
  Grid& grid() { return *grid_; }
  Random& random() { return random_; }
  std::vector<PendingBulkCopy>& bulk_copies() { return bulk_copies_; }
  Warpgroups& warpgroups() { return warpgroups_; }
  UnfencedWrites& unfenced_writes() { return unfenced_writes_; }

 private:
  struct NamedState {
    int expected = 0;
    int arrived = 0;
    Vote vote = Vote::kNone;
    int any = 0;
    int all = 1;
    int count = 0;
    const char* file = nullptr;
    int line = 0;
    std::vector<uint32_t> waiting;
  };

  void Begin(Grid* grid, uint3 index, uint64_t number);
  void MakeThreads();
  void PoisonShared(uint64_t number);
  void Suspend();
  void SwitchToNext(bool is_last);
  void MakeCurrent(BlockThread* thread);
  bool AllMeet(uint32_t warp, uint32_t mask, const Collective& collective) const;
  void Perform(uint32_t warp, uint32_t mask, const Collective& collective);
  void Release(NamedState* barrier);
  void ReportDeadlock();
  std::string Describe(const BlockThread& thread) const;

  Grid* grid_ = nullptr;
  Random random_{0};
  int early_ = 0;  // 0 never, 1 always, 2 now and then
  uint32_t threads_count_ = 0;
  uint32_t alive_ = 0;
  bool is_abandoned_ = false;
  std::vector<std::unique_ptr<BlockThread>> threads_;
  std::vector<Warp> warps_;
  NamedState barriers_[16];
  ReadyThreads ready_;
  std::vector<PendingBulkCopy> bulk_copies_;
  Warpgroups warpgroups_;
  UnfencedWrites unfenced_writes_;
  StackPool stacks_;
  Fiber host_;
  unsigned char* shared_ = nullptr;
  std::size_t shared_capacity_ = 0;
  const void* module_of_kernel_ = nullptr;  // whose thread-local memory is `statics_`
  unsigned char* statics_ = nullptr;
  std::size_t statics_bytes_ = 0;
  uint32_t idle_yields_ = 0;
  std::chrono::steady_clock::time_point spinning_since_;
};

// Runs all blocks; false when the kernel failed.
bool RunGrid(Grid* grid);

// The name of the function at `address`, as C++ writes it.
std::string NameOfFunction(const void* address);

}  // namespace cuda_emulator

#endif  // COHORT_TESTS_CUDA_EMULATOR_BLOCK_H_
