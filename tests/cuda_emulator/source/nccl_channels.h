// The memory that the ranks of an emulated NCCL communicator share, threads and processes alike.
#ifndef COHORT_TESTS_CUDA_EMULATOR_NCCL_CHANNELS_H_
#define COHORT_TESTS_CUDA_EMULATOR_NCCL_CHANNELS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace cuda_emulator {

inline constexpr int kMaxRanks = 64;

// A ring of bytes from one rank to another.
struct Channel {
  static constexpr uint64_t kBytes = uint64_t{64} << 10;
  alignas(64) std::atomic<uint64_t> written;
  alignas(64) std::atomic<uint64_t> read;
  alignas(64) char data[kBytes];
};

// A message to or from a peer; its length goes ahead of it.
struct Transfer {
  bool is_send;
  int peer;
  char* data;
  uint64_t bytes;
};

class SharedRegion {
 public:
  // Opens the region of this name, or makes it. Null `region` when the system refuses.
  SharedRegion(const std::string& name, int world);
  SharedRegion(const SharedRegion&) = delete;
  SharedRegion& operator=(const SharedRegion&) = delete;
  ~SharedRegion();

  bool is_open() const { return header_ != nullptr; }
  void Join(int rank, int host, int device);
  int HostOf(int rank) const { return Place(rank) / kDevices; }
  int DeviceOf(int rank) const { return Place(rank) % kDevices; }
  bool HaveAllJoined() const;
  // Whether two ranks of this host joined with the same device.
  bool HasTwiceTheSameDevice() const;
  // Once all have joined nobody needs the name any more.
  void Unlink();

  // Runs the transfers of rank `self` together; per peer and direction in their order. False when
  // `is_aborted()` said so or lengths do not match.
  bool Run(int self, std::vector<Transfer> transfers, const std::function<bool()>& is_aborted);

 private:
  static constexpr int kDevices = 64;  // of a host, at most
  struct Header {
    std::atomic<int> place_plus_one[kMaxRanks];  // host * kDevices + device; 0: not joined
  };
  int Place(int rank) const { return header_->place_plus_one[rank] - 1; }
  Channel& At(int from, int to) { return channels_[from * world_ + to]; }

  std::string name_;
  int world_;
  std::size_t bytes_ = 0;
  Header* header_ = nullptr;
  Channel* channels_ = nullptr;
};

}  // namespace cuda_emulator

#endif  // COHORT_TESTS_CUDA_EMULATOR_NCCL_CHANNELS_H_
