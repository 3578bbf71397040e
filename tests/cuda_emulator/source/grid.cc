// Blocks one after another in an order chosen by the seed; those of a cooperative launch at once,
// each on a thread of the host.
#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <link.h>

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

// The host thread's block: its stacks serve all kernels it runs.
Block& OwnBlock() {
  thread_local std::unique_ptr<Block> block;
  if (block == nullptr) {
    block = std::make_unique<Block>();
  }
  return *block;
}

void RunInTurn(Grid* grid) {
  const uint64_t blocks = BlocksOf(*grid);
  Random random(grid->seed);
  // first, first + step, ... modulo the number of blocks meets every block once.
  uint64_t step = 1;
  switch (random.Below(3)) {
    case 0:
      break;
    case 1:
      step = blocks - (blocks > 1 ? 1 : 0);
      break;
    default:
      for (step = 1 + random.Next() % blocks; std::gcd(step, blocks) != 1; ++step) {
      }
  }
  uint64_t number = random.Next() % blocks;
  Block& block = OwnBlock();
  for (uint64_t i = 0; i < blocks; ++i) {
    if (!block.Run(grid, IndexOf(grid->grid, number), number)) {
      return;
    }
    number = (number + step) % blocks;
  }
}

void RunTogether(Grid* grid) {
  std::vector<std::thread> threads;
  for (uint64_t number = 0; number < BlocksOf(*grid); ++number) {
    threads.emplace_back([=] { OwnBlock().Run(grid, IndexOf(grid->grid, number), number); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

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
  if (grid->is_cooperative) {
    RunTogether(grid);
  } else {
    RunInTurn(grid);
  }
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
