#include "nccl_channels.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>

namespace cuda_emulator {
namespace {

// How far a transfer has come.
struct Progress {
  Transfer transfer;
  uint64_t done = 0;  // of the header and the data together
  bool is_over = false;
};

// Copies up to `bytes` between a ring at position `at` and memory.
template <class CopyPiece>
void AroundTheRing(uint64_t at, uint64_t bytes, CopyPiece copy) {
  const uint64_t offset = at % Channel::kBytes;
  const uint64_t first = std::min(bytes, Channel::kBytes - offset);
  copy(offset, uint64_t{0}, first);
  copy(uint64_t{0}, first, bytes - first);
}

void Put(Channel* channel, const char* data, uint64_t bytes) {
  const uint64_t at = channel->written.load(std::memory_order_relaxed);
  AroundTheRing(at, bytes, [&](uint64_t offset, uint64_t from, uint64_t count) {
    std::memcpy(channel->data + offset, data + from, count);
  });
  channel->written.store(at + bytes, std::memory_order_release);
}

void Take(Channel* channel, char* data, uint64_t bytes) {
  const uint64_t at = channel->read.load(std::memory_order_relaxed);
  AroundTheRing(at, bytes, [&](uint64_t offset, uint64_t to, uint64_t count) {
    std::memcpy(data + to, channel->data + offset, count);
  });
  channel->read.store(at + bytes, std::memory_order_release);
}

constexpr uint64_t kHeaderBytes = sizeof(uint64_t);

bool AdvanceSend(Channel* channel, Progress* progress) {
  Transfer& transfer = progress->transfer;
  const uint64_t before = progress->done;
  const auto room = [&] {
    return Channel::kBytes - (channel->written.load(std::memory_order_relaxed) -
                              channel->read.load(std::memory_order_acquire));
  };
  if (progress->done == 0 && room() >= kHeaderBytes) {
    Put(channel, reinterpret_cast<const char*>(&transfer.bytes), kHeaderBytes);
    progress->done = kHeaderBytes;
  }
  if (progress->done >= kHeaderBytes) {
    const uint64_t sent = progress->done - kHeaderBytes;
    const uint64_t count = std::min(room(), transfer.bytes - sent);
    Put(channel, transfer.data + sent, count);
    progress->done += count;
  }
  progress->is_over = progress->done == kHeaderBytes + transfer.bytes;
  return progress->done != before;
}

// False also when the lengths do not match, which `is_wrong` tells.
bool AdvanceReceive(Channel* channel, Progress* progress, bool* is_wrong) {
  Transfer& transfer = progress->transfer;
  const uint64_t before = progress->done;
  const auto there = [&] {
    return channel->written.load(std::memory_order_acquire) -
           channel->read.load(std::memory_order_relaxed);
  };
  if (progress->done == 0 && there() >= kHeaderBytes) {
    uint64_t bytes = 0;
    Take(channel, reinterpret_cast<char*>(&bytes), kHeaderBytes);
    if (bytes != transfer.bytes) {
      std::fprintf(stderr,
                   "emulated NCCL: a rank receives %llu bytes from rank %d, which sent %llu\n",
                   static_cast<unsigned long long>(transfer.bytes), transfer.peer,
                   static_cast<unsigned long long>(bytes));
      *is_wrong = true;
      return false;
    }
    progress->done = kHeaderBytes;
  }
  if (progress->done >= kHeaderBytes) {
    const uint64_t received = progress->done - kHeaderBytes;
    const uint64_t count = std::min(there(), transfer.bytes - received);
    Take(channel, transfer.data + received, count);
    progress->done += count;
  }
  progress->is_over = progress->done == kHeaderBytes + transfer.bytes;
  return progress->done != before;
}

}  // namespace

SharedRegion::SharedRegion(const std::string& name, int world) : name_(name), world_(world) {
  const int file = shm_open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) {
    return;
  }
  const std::size_t header = (sizeof(Header) + 4095) / 4096 * 4096;
  bytes_ = header + sizeof(Channel) * static_cast<std::size_t>(world * world);
  void* memory = MAP_FAILED;
  if (ftruncate(file, static_cast<off_t>(bytes_)) == 0) {
    memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  }
  close(file);
  if (memory != MAP_FAILED) {
    header_ = static_cast<Header*>(memory);
    channels_ = reinterpret_cast<Channel*>(static_cast<char*>(memory) + header);
  }
}

SharedRegion::~SharedRegion() {
  Unlink();
  if (header_ != nullptr) {
    munmap(header_, bytes_);
  }
}

void SharedRegion::Join(int rank, int host, int device) {
  header_->place_plus_one[rank] = host * kDevices + device + 1;
}

bool SharedRegion::HaveAllJoined() const {
  return std::all_of(header_->place_plus_one, header_->place_plus_one + world_,
                     [](const std::atomic<int>& place) { return place != 0; });
}

bool SharedRegion::HasTwiceTheSameDevice() const {
  for (int i = 0; i < world_; ++i) {
    for (int j = 0; j < i; ++j) {
      if (header_->place_plus_one[i] == header_->place_plus_one[j]) {
        return true;
      }
    }
  }
  return false;
}

void SharedRegion::Unlink() {
  if (!name_.empty()) {
    shm_unlink(name_.c_str());
    name_.clear();
  }
}

bool SharedRegion::Run(int self, std::vector<Transfer> transfers,
                       const std::function<bool()>& is_aborted) {
  std::vector<Progress> all;
  for (const Transfer& transfer : transfers) {
    all.push_back({transfer});
  }
  int idle = 0;
  for (bool is_over = false; !is_over;) {
    if (is_aborted()) {
      return false;
    }
    is_over = true;
    bool has_moved = false;
    bool is_wrong = false;
    // The first unfinished transfer of each peer and direction holds up the later ones.
    std::vector<bool> is_busy(static_cast<std::size_t>(2 * world_), false);
    for (Progress& progress : all) {
      const Transfer& transfer = progress.transfer;
      const auto way = static_cast<std::size_t>(2 * transfer.peer + (transfer.is_send ? 1 : 0));
      if (progress.is_over || is_busy[way]) {
        continue;
      }
      has_moved =
          (transfer.is_send ? AdvanceSend(&At(self, transfer.peer), &progress)
                            : AdvanceReceive(&At(transfer.peer, self), &progress, &is_wrong)) ||
          has_moved;
      is_busy[way] = !progress.is_over;
      is_over = is_over && progress.is_over;
    }
    if (is_wrong) {
      return false;
    }
    idle = has_moved ? 0 : idle + 1;
    if (idle > 64) {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    } else if (idle > 0) {
      sched_yield();
    }
  }
  return true;
}

}  // namespace cuda_emulator
