// Matrix products of a warpgroup. Each warp computes its 16 rows, at once or, by the seed, only
// when it waits for them: until then their accumulators hold NaN, and shared memory is read as late
// as that. Operands are found as the hardware finds them: addresses from the descriptor, of which
// the swizzle changes bits 4 to 6 by bits 7 to 9.
#include "cuda_emulator/warpgroup.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "block.h"

namespace cuda_emulator {
namespace {

constexpr const char* kFile = "kernels/cuda/wgmma.cuh";
constexpr uint32_t kWholeWarp = 0xffffffffu;
constexpr uint32_t kWindowBegin = 128;  // of the dynamic shared memory; aligned as it is promised
constexpr int kSteps = ProductScratch::kSteps;

WarpState& OwnWarp() { return current->block->warpgroups().warp(current->number); }

unsigned char* Window() { return current->dynamic_shared - kWindowBegin; }

// A matrix of `lines`, rows of 128 bytes of which each product reads `chunks` of 16 bytes.
struct SharedOperand {
  uint32_t start;
  uint32_t tile_distance;
  uint32_t eight_distance;
  int first_line;
  int lines;
  int chunks;

  uint32_t Address(int line, int chunk) const {
    const auto at = static_cast<uint32_t>(first_line + line);
    const auto column = static_cast<uint32_t>(chunk);
    const uint32_t address = start + at / 8 * eight_distance + at % 8 * 128 +
                             column / 8 * tile_distance + column % 8 * 16;
    return address ^ (address >> 3 & 0x70);
  }
};

SharedOperand Decode(uint64_t descriptor, bool is_mn_major, int first_line, int extent) {
  const auto field = [&](int shift) {
    return static_cast<uint32_t>(descriptor >> shift & 0x3fff) << 4;
  };
  return {field(0),
          field(16),
          field(32),
          first_line,
          is_mn_major ? kSteps : extent,
          is_mn_major ? extent / 8 : 2};
}

void Check(uint64_t descriptor, bool is_mn_major, const SharedOperand& operand) {
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0) {
    Fail("the descriptor %016llx is not one with the 128-byte swizzle",
         static_cast<unsigned long long>(descriptor));
  }
  if ((operand.start & 0x380) != 0 || operand.eight_distance % 1024 != 0 ||
      (is_mn_major && operand.chunks > 8 && operand.tile_distance % 1024 != 0)) {
    Fail("a product reads a tile at the shared address %u that is not 1024-byte aligned",
         operand.start);
  }
  if ((operand.start & (is_mn_major ? 0x7f : 0x1f)) != 0) {
    Fail("a product begins inside a step of k, at the shared address %u", operand.start);
  }
  const std::size_t end = kWindowBegin + current->block->grid().shared_bytes;
  for (int line = 0; line < operand.lines; ++line) {
    for (int chunk = 0; chunk < operand.chunks; ++chunk) {
      const uint32_t address = operand.Address(line, chunk);
      if (address < kWindowBegin || address + 16 > end) {
        Fail("a product reads the shared address %u, beyond the block's memory", address);
      }
      const int64_t writer = current->block->unfenced_writes().Writer(address - kWindowBegin);
      if (writer >= 0) {
        Fail(
            "a product reads the shared address %u, copied by thread %lld without "
            "FenceProxyAsync() behind CopyAsyncWait()",
            address, static_cast<long long>(writer));
      }
    }
  }
}

void ReadEight(uint32_t address, float (&values)[8]) {
  uint16_t halves[8];
  std::memcpy(halves, Window() + address, sizeof(halves));
  for (int i = 0; i < 8; ++i) {
    const uint32_t bits = uint32_t{halves[i]} << 16;
    std::memcpy(&values[i], &bits, sizeof(bits));
  }
}

SharedOperand OperandA(const WgmmaShape& shape) {
  const int first = static_cast<int>(current->number / 32 % 4) * 16;
  return Decode(shape.a, false, first, 16);
}
SharedOperand OperandB(const WgmmaShape& shape) {
  return Decode(shape.b, shape.b_is_mn_major, 0, shape.columns);
}

void ReadA(const PendingProduct& product, ProductScratch* scratch) {
  auto& a = scratch->a;
  if (product.shape.a_in_registers) {
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4; ++i) {
        for (int half = 0; half < 2; ++half) {
          const uint32_t bits =
              half == 0 ? product.a[lane][i] << 16 : product.a[lane][i] & 0xffff0000u;
          std::memcpy(&a[lane / 4 + i % 2 * 8][lane % 4 * 2 + i / 2 * 8 + half], &bits,
                      sizeof(bits));
        }
      }
    }
    return;
  }
  const SharedOperand operand = OperandA(product.shape);
  for (int row = 0; row < 16; ++row) {
    for (int chunk = 0; chunk < 2; ++chunk) {
      float values[8];
      ReadEight(operand.Address(row, chunk), values);
      std::copy(values, values + 8, &a[row][chunk * 8]);
    }
  }
}

void ReadB(const PendingProduct& product, ProductScratch* scratch) {
  auto& b = scratch->b;
  const SharedOperand operand = OperandB(product.shape);
  for (int line = 0; line < operand.lines; ++line) {
    for (int chunk = 0; chunk < operand.chunks; ++chunk) {
      float values[8];
      ReadEight(operand.Address(line, chunk), values);
      for (int i = 0; i < 8; ++i) {
        (product.shape.b_is_mn_major ? b[line][chunk * 8 + i] : b[chunk * 8 + i][line]) = values[i];
      }
    }
  }
}

// The accumulators of all lanes, one lane after another. Products of bf16 are exact in fp32; they
// are summed in the order of k, and what was there last.
std::vector<float> Multiply(const PendingProduct& product) {
  ProductScratch& scratch = current->block->warpgroups().scratch();
  auto& [a, b, d] = scratch;
  ReadA(product, &scratch);
  ReadB(product, &scratch);
  const int columns = product.shape.columns;
  for (int row = 0; row < 16; ++row) {
    std::fill_n(d[row], columns, 0.0f);
    for (int k = 0; k < kSteps; ++k) {
      for (int column = 0; column < columns; ++column) {
        d[row][column] += a[row][k] * b[k][column];
      }
    }
  }
  std::vector<float> values = product.before;
  for (int lane = 0; lane < 32; ++lane) {
    float* const of_lane = &values[static_cast<std::size_t>(lane * columns / 2)];
    for (int i = 0; i < columns / 2; ++i) {
      const float sum = d[lane / 4 + i / 2 % 2 * 8][i / 4 * 8 + lane % 4 * 2 + i % 2];
      of_lane[i] = product.shape.add ? of_lane[i] + sum : sum;
    }
  }
  return values;
}

void Read(const PendingProduct& product, std::vector<float>* values) {
  const auto count = static_cast<std::size_t>(product.shape.columns) / 2;
  values->resize(32 * count);
  for (std::size_t lane = 0; lane < 32; ++lane) {
    std::copy_n(product.d[lane], count, values->begin() + static_cast<int64_t>(lane * count));
  }
}

void Write(const PendingProduct& product, const std::vector<float>& values) {
  const auto count = static_cast<std::size_t>(product.shape.columns) / 2;
  for (std::size_t lane = 0; lane < 32; ++lane) {
    std::copy_n(values.begin() + static_cast<int64_t>(lane * count), count, product.d[lane]);
  }
}

// The oldest product happens.
void PerformFirst(WarpState* warp) {
  const PendingProduct product = std::move(warp->pending.front());
  warp->pending.erase(warp->pending.begin());
  std::vector<float> values = Multiply(product);
  const auto next = std::find_if(warp->pending.begin(), warp->pending.end(),
                                 [&](const auto& other) { return other.d[0] == product.d[0]; });
  if (next == warp->pending.end()) {
    Write(product, values);
  } else {
    next->before = std::move(values);
  }
}

struct WgmmaOperand {
  const WgmmaShape* shape;
  float* d;
  const uint32_t* a;
};

void PerformIssue(void* const* operands, uint32_t) {
  WarpState& warp = OwnWarp();
  const WgmmaShape& shape = *static_cast<const WgmmaOperand*>(operands[0])->shape;
  PendingProduct product = {shape, warp.groups, {}, {}, {}};
  for (int lane = 0; lane < 32; ++lane) {
    const auto* operand = static_cast<const WgmmaOperand*>(operands[lane]);
    if (*operand->shape != shape) {
      Fail("the threads of a warp issue different products");
    }
    product.d[lane] = operand->d;
    if (shape.a_in_registers) {
      std::copy_n(operand->a, 4, product.a[lane]);
    }
  }
  if (const char* reason = current->block->warpgroups().Issue(current->number, shape)) {
    Fail("%s", reason);
  }
  if (!warp.is_fenced) {
    Fail("a product without WgmmaFence() behind the last WgmmaWait()");
  }
  Check(shape.b, shape.b_is_mn_major, OperandB(shape));
  if (!shape.a_in_registers) {
    Check(shape.a, false, OperandA(shape));
  }
  const bool is_chained = std::any_of(warp.pending.begin(), warp.pending.end(),
                                      [&](const auto& o) { return o.d[0] == product.d[0]; });
  if (!is_chained) {
    Read(product, &product.before);
    constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();
    Write(product, std::vector<float>(product.before.size(), kPoison));
  }
  const bool happens_now = warp.pending.empty() && HappensEarly();
  warp.pending.push_back(std::move(product));
  if (happens_now) {
    PerformFirst(&warp);
  }
}

void PerformFence(void* const*, uint32_t) { OwnWarp().is_fenced = true; }
void PerformCommit(void* const*, uint32_t) { ++OwnWarp().groups; }
void PerformWait(void* const* operands, uint32_t) {
  WarpState& warp = OwnWarp();
  const auto pending = static_cast<uint32_t>(*static_cast<const int*>(operands[0]));
  while (!warp.pending.empty() && warp.pending.front().group + pending < warp.groups) {
    PerformFirst(&warp);
  }
  warp.is_fenced = false;
}
void PerformSetRegisters(void* const* operands, uint32_t) {
  OwnWarp().registers = *static_cast<const int*>(operands[0]);
}

const Collective kIssue = {"WgmmaBf16", PerformIssue};
const Collective kFence = {"WgmmaFence", PerformFence};
const Collective kCommit = {"WgmmaCommit", PerformCommit};
const Collective kWait = {"WgmmaWait", PerformWait};
const Collective kSetRegisters = {"setmaxnreg", PerformSetRegisters};

}  // namespace

void Warpgroups::Reset(uint32_t threads) {
  threads_ = threads;
  warps_.assign((threads + 31) / 32, WarpState{});
  groups_.assign((threads + 127) / 128, WarpgroupState{});
}

const char* Warpgroups::Issue(uint32_t thread, const WgmmaShape& shape) {
  if (thread / 128 >= threads_ / 128) {
    return "a product of a warpgroup that lacks threads";
  }
  WarpgroupState& group = groups_[thread / 128];
  const uint64_t index = warp(thread).issued++ - group.first;
  if (index == group.issued.size()) {
    group.issued.push_back({shape, 0});
  }
  WarpgroupState::Issued& issued = group.issued[index];
  if (issued.shape != shape) {
    return "the warps of a warpgroup issue different products";
  }
  ++issued.warps;
  while (!group.issued.empty() && group.issued.front().warps == 4) {
    group.issued.pop_front();
    ++group.first;
  }
  return nullptr;
}

const char* Warpgroups::ReasonAgainstEnd(uint32_t thread, bool is_last) const {
  if (!warps_[thread / 32].pending.empty()) {
    return "a thread ends while products of its warp are under way";
  }
  if (!is_last) {
    return nullptr;
  }
  const bool is_uneven = std::any_of(groups_.begin(), groups_.end(),
                                     [](const auto& group) { return !group.issued.empty(); });
  if (is_uneven) {
    return "not all warps of a warpgroup issued the same number of products";
  }
  int registers = 0;
  for (const WarpState& state : warps_) {
    registers += state.registers * 32;
  }
  return registers > 65536 ? "setmaxnreg gave the block's threads more than 65536 registers"
                           : nullptr;
}

void UnfencedWrites::Reset(uint32_t threads, std::size_t shared_bytes) {
  writes_.assign(shared_bytes / 16 + 1, {});
  places_.resize(threads);
  for (auto& places : places_) {
    places.clear();
  }
}

void UnfencedWrites::Write(uint32_t offset, uint32_t thread, uint32_t group) {
  Write16& write = writes_[offset / 16];
  if (write.thread != thread) {
    places_[thread].push_back(offset / 16);
  }
  write = {thread, group};
}

void UnfencedWrites::Fence(uint32_t thread, uint32_t waited) {
  auto& places = places_[thread];
  const auto end = std::remove_if(places.begin(), places.end(), [&](uint32_t place) {
    Write16& write = writes_[place];
    const bool is_told = write.thread == thread && write.group < waited;
    if (is_told) {
      write.thread = kNobody;
    }
    return is_told || write.thread != thread;
  });
  places.erase(end, places.end());
}

int64_t UnfencedWrites::Writer(uint32_t offset) const {
  const uint32_t thread = writes_[offset / 16].thread;
  return thread == kNobody ? -1 : int64_t{thread};
}

uint32_t SharedAddress(const void* shared) {
  const auto* const begin = current->dynamic_shared;
  const auto* const at = static_cast<const unsigned char*>(shared);
  if (at < begin || at >= begin + current->block->grid().shared_bytes) {
    Fail("%p is not in the block's dynamic shared memory", shared);
  }
  return static_cast<uint32_t>(at - begin) + kWindowBegin;
}

void WgmmaFence() {
  RequireCompute(90, 90, "wgmma");
  Meet(kWholeWarp, kFence, nullptr, kFile, 0);
}
void WgmmaCommit() { Meet(kWholeWarp, kCommit, nullptr, kFile, 0); }
void WgmmaWait(int pending) { Meet(kWholeWarp, kWait, &pending, kFile, 0); }
void Wgmma(const WgmmaShape& shape, float* d, const uint32_t* a) {
  WgmmaOperand operand = {&shape, d, a};
  Meet(kWholeWarp, kIssue, &operand, kFile, 0);
}

void RequireIdle(const float* d) {
  const uint32_t lane = current->number % 32;
  for (const PendingProduct& product : OwnWarp().pending) {
    const float* const begin = product.d[lane];
    if (d >= begin && d < begin + product.shape.columns / 2) {
      Fail("accumulators are used before WgmmaWait()");
    }
  }
}

void SetRegisters(int count) {
  RequireCompute(90, 90, "setmaxnreg");
  if (count < 24 || count > 256 || count % 8 != 0) {
    Fail("setmaxnreg to %d registers: 24 to 256, a multiple of 8", count);
  }
  Meet(kWholeWarp, kSetRegisters, &count, kFile, 0);
}

}  // namespace cuda_emulator
