// Blocks one after another in an order chosen by the seed. When those that run only spin, another
// starts beside them on one more thread of the host, as long as the device would hold it; so do all
// blocks of a cooperative launch.
#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <deque>
#include <fstream>
#include <numeric>
#include <thread>
#include <vector>

#include "block.h"

namespace cuda_emulator {
namespace {

uint3 IndexOf(const dim3& grid, uint64_t number) {
  return {static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
          static_cast<unsigned>(number / grid.x / grid.y)};
}

uint64_t BlocksOf(const Grid& grid) { return uint64_t{grid.grid.x} * grid.grid.y * grid.grid.z; }

// Blocks that do not run: their stacks serve any kernel, on any thread of the host.
class BlockStore {
 public:
  std::unique_ptr<Block> Take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (blocks_.empty()) {
      return std::make_unique<Block>();
    }
    std::unique_ptr<Block> block = std::move(blocks_.back());
    blocks_.pop_back();
    return block;
  }
  void Give(std::unique_ptr<Block> block) {
    const std::lock_guard<std::mutex> lock(mutex_);
    blocks_.push_back(std::move(block));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Block>> blocks_;
};

BlockStore& Store() {
  static auto* const store = new BlockStore;
  return *store;
}

// The blocks that have not begun, and the threads of the host that run blocks.
class Blocks {
 public:
  explicit Blocks(Grid* grid)
      : grid_(grid), count_(BlocksOf(*grid)), resident_(grid->resident_blocks) {
    // first, first + step, ... modulo the number of blocks meets every block once.
    Random random(grid->seed);
    first_ = random.Next() % count_;
    switch (random.Below(3)) {
      case 0:
        break;
      case 1:
        step_ = count_ - (count_ > 1 ? 1 : 0);
        break;
      default:
        for (step_ = 1 + random.Next() % count_; std::gcd(step_, count_) != 1; ++step_) {
        }
    }
  }

  void RunAll() {
    if (grid_->is_cooperative) {
      for (uint64_t i = 1; i < count_; ++i) {
        StartOther();
      }
    }
    RunRest();
    // Threads that others start while we look are in the list before those end.
    for (std::size_t i = 0; i < ThreadCount(); ++i) {
      others_[i].join();
    }
  }

  void StartOther() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (begun_ < count_ && others_.size() + 1 < resident_) {
      others_.emplace_back([this] { RunRest(); });
    }
  }

 private:
  // Until every block has begun somewhere.
  void RunRest() {
    std::unique_ptr<Block> block = Store().Take();
    block->MoveHere();
    for (uint64_t i = begun_++; i < count_ && !grid_->has_failed; i = begun_++) {
      const uint64_t number = (first_ + i * step_) % count_;
      block->Run(grid_, IndexOf(grid_->grid, number), number);
    }
    Store().Give(std::move(block));
  }
  std::size_t ThreadCount() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return others_.size();
  }

  Grid* grid_;
  uint64_t count_;
  uint64_t resident_;
  uint64_t first_ = 0;
  uint64_t step_ = 1;
  std::atomic<uint64_t> begun_{0};
  std::mutex mutex_;
  std::deque<std::thread> others_;  // under mutex; elements stay where they are
};

template <class T>
std::vector<T> ReadAt(std::ifstream& file, uint64_t offset, uint64_t bytes) {
  std::vector<T> items(bytes / sizeof(T));
  file.seekg(static_cast<std::streamoff>(offset));
  file.read(reinterpret_cast<char*>(items.data()), static_cast<std::streamsize>(bytes));
  return items;
}

// Kernels are local symbols, which dladdr does not know: read from the file's symbol table.
std::string SymbolAt(const std::string& path, uint64_t address) {
  std::ifstream file(path, std::ios::binary);
  const auto headers = ReadAt<ElfW(Ehdr)>(file, 0, sizeof(ElfW(Ehdr)));
  const auto sections = ReadAt<ElfW(Shdr)>(file, headers[0].e_shoff,
                                           uint64_t{headers[0].e_shnum} * sizeof(ElfW(Shdr)));
  for (const auto& section : sections) {
    if (section.sh_type != SHT_SYMTAB) {
      continue;
    }
    const auto& strings = sections[section.sh_link];
    const auto names = ReadAt<char>(file, strings.sh_offset, strings.sh_size);
    for (const auto& symbol : ReadAt<ElfW(Sym)>(file, section.sh_offset, section.sh_size)) {
      if (ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && symbol.st_value == address) {
        return names.data() + symbol.st_name;
      }
    }
  }
  return {};
}

}  // namespace

bool RunGrid(Grid* grid) {
  Blocks blocks(grid);
  grid->start_others = [&] { blocks.StartOther(); };
  blocks.RunAll();
  return !grid->has_failed;
}

std::string NameOfFunction(const void* address) {
  Dl_info info{};
  if (dladdr(address, &info) == 0) {
    return "a kernel";
  }
  const std::string symbol =
      SymbolAt(info.dli_fname,
               reinterpret_cast<uint64_t>(address) - reinterpret_cast<uint64_t>(info.dli_fbase));
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> name(
      abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status), std::free);
  return status == 0 ? name.get() : symbol;
}

}  // namespace cuda_emulator
