// One thread of a block as the emulator keeps it, and what kernels ask of the scheduler.
#ifndef COHORT_TESTS_CUDA_EMULATOR_THREAD_H_
#define COHORT_TESTS_CUDA_EMULATOR_THREAD_H_

#include <vector_types.h>

#include <cstdint>

namespace cuda_emulator {

class Block;

struct Thread {
  uint3 index;
  uint32_t number;  // in the block; number % 32 is the lane
  Block* block;
  unsigned char* dynamic_shared;  // of the block
};

// The library of the emulator has so little thread-local memory that the fast access model works.
// That of the kernels' library is all __shared__ variables.
#define COHORT_EMULATOR_THREAD_LOCAL \
  extern constinit thread_local __attribute__((tls_model("initial-exec")))

COHORT_EMULATOR_THREAD_LOCAL Thread* current;  // the running thread

// An operation for which the lanes of a mask meet. The last to come performs it for all of them:
// operands[lane] is what each lane brought, its results go there too.
struct Collective {
  const char* name;
  void (*perform)(void* const* operands, uint32_t mask);
};

void Meet(uint32_t mask, const Collective& collective, void* operand, const char* file, int line);

enum class Vote { kNone, kOr, kAnd, kCount };

// __syncthreads and its relatives.
int BlockBarrier(Vote vote, int predicate, const char* file, int line);
void NamedBarrier(int id, int threads, bool waits, const char* file, int line);

// Lets the others run: every operation that a spinning thread repeats comes here.
void Yield();

// The kernel cannot go on: reported with its name, the thread and the text. The device is lost.
[[noreturn]] void Fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// The compute capability that the kernels are compiled for, 90 for 9.0; and what only code for
// `least` to `most` can do.
int CompiledFor();
void RequireCompute(int least, int most, const char* what);

// A bit from the launch's seed: whether something that may happen early does.
bool HappensEarly();

// griddepcontrol.wait.
void WaitForPredecessor();
void LaunchSuccessor();

// Copies under way, see source/async_copy.cc.
void CopyAsync16(void* shared, const void* global, bool valid);
void CopyAsyncCommit();
void CopyAsyncWait(int pending);
void FenceProxyAsync();
void BarrierInit(uint64_t* barrier, uint32_t arrivals);
void BarrierArrive(uint64_t* barrier, uint32_t expected_bytes);
bool BarrierTest(uint64_t* barrier, uint32_t parity);
void BulkCopy(void* shared, const void* global, uint32_t bytes, uint64_t* barrier);

// See source/matrix.cc.
void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void LoadMatrix(uint32_t* r, int matrices, bool is_transposed, const void* shared_row);
uint32_t TransposeMatrix(uint32_t a);

uint64_t Nanoseconds();

}  // namespace cuda_emulator

// Of the running thread.
COHORT_EMULATOR_THREAD_LOCAL uint3 threadIdx;
COHORT_EMULATOR_THREAD_LOCAL uint3 blockIdx;
COHORT_EMULATOR_THREAD_LOCAL dim3 blockDim;
COHORT_EMULATOR_THREAD_LOCAL dim3 gridDim;

#endif  // COHORT_TESTS_CUDA_EMULATOR_THREAD_H_
