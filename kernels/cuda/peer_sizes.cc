// Which messages go over peer memory: found by the clock when a group has met, on zeros of every
// size, in every way. All ranks take the times of the slowest one, so they choose alike.
#include "kernels/cuda/peer_sizes.h"

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "kernels/cuda/communicator.h"
#include "kernels/cuda/entries.h"
#include "kernels/reduction_sizes.h"

namespace cohort::cuda {
namespace {

constexpr int kTimedReductions = 5;
constexpr int64_t kRowBytes = 4096;
constexpr int kSizes = 9;
constexpr int64_t kSmallestBytes = kRowBytes;
static_assert(kSmallestBytes << (kSizes - 1) == kMaxPeerBytes && kMaxPeerBytes <= kScratchBytes);

enum ReductionWay { kOneShot, kTwoShots, kNccl, kWays };

// Microseconds of a rank.
struct Times {
  std::array<std::array<float, kWays>, kSizes> of_size{};
};

class Stopwatch {
 public:
  explicit Stopwatch(CohortCudaCommunicator* c) : c_(c) {
    for (cudaEvent_t& event : events_) {
      if (status_ == cudaSuccess) {
        status_ = cudaEventCreate(&event);
      }
    }
  }
  ~Stopwatch() {
    for (const cudaEvent_t event : events_) {
      if (event != nullptr) {
        cudaEventDestroy(event);
      }
    }
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  // Microseconds of one run, between two places where all ranks have met.
  template <class Run>
  CohortCudaError Time(Run run, float* microseconds) {
    CohortCudaError error = FromCuda(c_, status_, "timing reductions");
    if (error.code == kCohortCudaOk) {
      error = run();  // the first of a size
    }
    if (error.code == kCohortCudaOk) {
      error = Barrier(c_);
    }
    if (error.code == kCohortCudaOk) {
      error = Record(0);
    }
    for (int i = 0; i < kTimedReductions && error.code == kCohortCudaOk; ++i) {
      error = run();
    }
    if (error.code == kCohortCudaOk) {
      error = Record(1);
    }
    if (error.code == kCohortCudaOk) {
      error = Barrier(c_);  // which waits for both events, with the communicator's deadline
    }
    float milliseconds = 0;
    if (error.code == kCohortCudaOk) {
      error = FromCuda(c_, cudaEventElapsedTime(&milliseconds, events_[0], events_[1]),
                       "timing reductions");
    }
    *microseconds = milliseconds * 1000 / kTimedReductions;
    return error;
  }

 private:
  CohortCudaError Record(int event) {
    return FromCuda(c_, cudaEventRecord(events_[event], c_->device->stream), "timing reductions");
  }

  CohortCudaCommunicator* c_;
  cudaEvent_t events_[2] = {};
  cudaError_t status_ = cudaSuccess;
};

// Zeros, whose sums are zeros.
CohortCudaTensor MessageOf(const CohortCudaCommunicator* c, int64_t bytes) {
  constexpr int64_t kColumns = kRowBytes / int64_t{sizeof(float)};
  return {c->scratch, {bytes / kRowBytes, kColumns}, kColumns, kCohortCudaF32, 2};
}

CohortCudaError TimeSize(CohortCudaCommunicator* c, int64_t bytes, std::array<float, kWays>* times,
                         Stopwatch* watch) {
  const CohortCudaTensor message = MessageOf(c, bytes);
  const auto over_peers = [&](bool is_two_shot) {
    PeerAllReduce(c->device, c->peers.group, is_two_shot, c->peers.blocks, message);
    return Ok();
  };
  times->fill(std::numeric_limits<float>::infinity());
  CohortCudaError error = Ok();
  if (bytes <= MostOneShotBytes(c->world)) {
    error = watch->Time([&] { return over_peers(false); }, &(*times)[kOneShot]);
  }
  if (error.code == kCohortCudaOk) {
    error = watch->Time([&] { return over_peers(true); }, &(*times)[kTwoShots]);
  }
  if (error.code == kCohortCudaOk) {
    error = watch->Time([&] { return ReduceOverNccl(c, message); }, &(*times)[kNccl]);
  }
  return error;
}

}  // namespace

int64_t MostOneShotBytes(int32_t world) { return kMaxPeerBytes * 2 / std::max(world, 2); }

CohortCudaError MeasureSizes(CohortCudaCommunicator* c) {
  Times own;
  Stopwatch watch(c);
  for (int i = 0; i < kSizes; ++i) {
    const CohortCudaError error = TimeSize(c, kSmallestBytes << i, &own.of_size[i], &watch);
    if (error.code != kCohortCudaOk) {
      return error;
    }
  }
  std::vector<Times> all;
  const CohortCudaError error = GatherFromAll(c, own, &all);
  if (error.code != kCohortCudaOk) {
    return error;
  }
  std::vector<ReductionTimes> slowest;
  for (int i = 0; i < kSizes; ++i) {
    ReductionTimes times;
    times.bytes = kSmallestBytes << i;
    for (const Times& of_rank : all) {
      times.one_shot = std::max(times.one_shot, of_rank.of_size[i][kOneShot]);
      times.two_shot = std::max(times.two_shot, of_rank.of_size[i][kTwoShots]);
      times.nccl = std::max(times.nccl, of_rank.of_size[i][kNccl]);
    }
    slowest.push_back(times);
  }
  const ReductionBorders borders = ChooseBorders(slowest);
  c->peers.sizes = {borders.one_shot, borders.two_shot};
  return Ok();
}

}  // namespace cohort::cuda
