// What the warpgroups of a block have under way.
#ifndef COHORT_TESTS_CUDA_EMULATOR_SOURCE_WARPGROUP_H_
#define COHORT_TESTS_CUDA_EMULATOR_SOURCE_WARPGROUP_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "cuda_emulator/warpgroup.h"

namespace cuda_emulator {

// One warp's 16 rows of a product.
struct PendingProduct {
  WgmmaShape shape;
  uint32_t group;
  float* d[32];
  uint32_t a[32][4];
  // What d held, lane by lane: d itself holds NaN until the product happens. Empty while an earlier
  // product into d is under way.
  std::vector<float> before;
};

// What one product is computed in; too large for the stack of a thread.
struct ProductScratch {
  static constexpr int kSteps = 16;  // of k
  static constexpr int kMaxColumns = 256;
  float a[16][kSteps];
  float b[kSteps][kMaxColumns];
  float d[16][kMaxColumns];
};

struct WarpState {
  std::vector<PendingProduct> pending;
  uint32_t groups = 0;  // committed
  uint64_t issued = 0;
  int registers = 0;  // 0: as launched
  bool is_fenced = false;
};

// The warps of a group issue the same products; those that not all four have issued yet.
struct WarpgroupState {
  struct Issued {
    WgmmaShape shape;
    int warps;
  };
  std::deque<Issued> issued;
  uint64_t first = 0;  // number of the first
};

class Warpgroups {
 public:
  void Reset(uint32_t threads);
  WarpState& warp(uint32_t thread) { return warps_[thread / 32]; }
  // The thread's warp issues its next product; null, or what is wrong with it.
  const char* Issue(uint32_t thread, const WgmmaShape& shape);
  // Why the thread, or the last thread and with it the block, must not end; null: it may.
  const char* ReasonAgainstEnd(uint32_t thread, bool is_last) const;
  ProductScratch& scratch() {
    if (scratch_ == nullptr) {
      scratch_ = std::make_unique<ProductScratch>();
    }
    return *scratch_;
  }

 private:
  uint32_t threads_ = 0;
  std::vector<WarpState> warps_;
  std::vector<WarpgroupState> groups_;
  std::unique_ptr<ProductScratch> scratch_;
};

// Which 16 bytes of shared memory a thread has written by cp.async, the generic proxy, and not told
// the asynchronous one, through which products read.
class UnfencedWrites {
 public:
  void Reset(uint32_t threads, std::size_t shared_bytes);
  // Group `group` of the thread's copies writes 16 bytes at `offset`.
  void Write(uint32_t offset, uint32_t thread, uint32_t group);
  // The thread tells of its groups before `waited`, which have come.
  void Fence(uint32_t thread, uint32_t waited);
  // The thread whose write at `offset` is untold; -1: none.
  int64_t Writer(uint32_t offset) const;

 private:
  static constexpr uint32_t kNobody = 0xffffffffu;
  struct Write16 {
    uint32_t thread = kNobody;
    uint32_t group = 0;
  };
  std::vector<Write16> writes_;
  std::vector<std::vector<uint32_t>> places_;  // in writes_, by thread; perhaps overwritten since
};

}  // namespace cuda_emulator

#endif  // COHORT_TESTS_CUDA_EMULATOR_SOURCE_WARPGROUP_H_
