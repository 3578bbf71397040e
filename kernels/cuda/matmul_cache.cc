#include "kernels/cuda/matmul_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <optional>
#include <system_error>
#include <thread>

namespace cohort::cuda {
namespace {

constexpr std::size_t kAlgorithmBytes = sizeof(cublasLtMatmulAlgo_t);
constexpr char kLineFormat[] =
    "inner %" PRId64 " columns %" PRId64 " dtype %" PRId32 " out %" PRId32
    " bias %d tokens %" PRId64 " microseconds %g algorithm %s";
constexpr char kLinePattern[] =
    "inner %" SCNd64 " columns %" SCNd64 " dtype %" SCNd32 " out %" SCNd32
    " bias %d tokens %" SCNd64 " microseconds %g algorithm %255s%n";

std::string Hexadecimal(const cublasLtMatmulAlgo_t& algorithm) {
  unsigned char bytes[kAlgorithmBytes];
  std::memcpy(bytes, &algorithm, sizeof(bytes));
  std::string digits;
  for (const unsigned char byte : bytes) {
    digits += "0123456789abcdef"[byte / 16];
    digits += "0123456789abcdef"[byte % 16];
  }
  return digits;
}

bool FromHexadecimal(const std::string& digits, cublasLtMatmulAlgo_t* algorithm) {
  if (digits.size() != 2 * kAlgorithmBytes ||
      digits.find_first_not_of("0123456789abcdef") != std::string::npos) {
    return false;
  }
  unsigned char bytes[kAlgorithmBytes];
  for (std::size_t i = 0; i < kAlgorithmBytes; ++i) {
    bytes[i] = static_cast<unsigned char>(std::stoi(digits.substr(2 * i, 2), nullptr, 16));
  }
  std::memcpy(algorithm, bytes, sizeof(bytes));
  return true;
}

std::string Line(const Product& product, int64_t tokens, const TunedAlgorithm& tuned) {
  char line[512];
  std::snprintf(line, sizeof(line), kLineFormat, product.inner, product.columns, product.dtype,
                product.out_dtype, product.has_bias ? 1 : 0, tokens,
                static_cast<double>(tuned.microseconds), Hexadecimal(tuned.algorithm).c_str());
  return line;
}

bool ParseLine(const std::string& line, TunedAlgorithms* algorithms) {
  Product product;
  int has_bias = 0;
  int64_t tokens = 0;
  TunedAlgorithm tuned;
  char digits[256] = "";
  int length = -1;
  const int fields =
      std::sscanf(line.c_str(), kLinePattern, &product.inner, &product.columns, &product.dtype,
                  &product.out_dtype, &has_bias, &tokens, &tuned.microseconds, digits, &length);
  if (fields != 8 || length != static_cast<int>(line.size()) || product.inner < 1 ||
      product.columns < 1 || tokens < 1 || !FromHexadecimal(digits, &tuned.algorithm)) {
    return false;
  }
  product.has_bias = has_bias != 0;
  (*algorithms)[{product, tokens}] = tuned;
  return true;
}

// Held while a file is read and replaced. A holder that does not let go is not waited for: then a
// line may be lost, and is measured again at a later start.
class FileLock {
 public:
  explicit FileLock(const std::string& path)
      : file_(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    while (file_ >= 0 && flock(file_, LOCK_EX | LOCK_NB) != 0 &&
           std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  ~FileLock() {
    if (file_ >= 0) {
      close(file_);
    }
  }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int file_;
};

std::string SystemError() { return std::generic_category().message(errno); }

}  // namespace

std::string MatMulCacheHeader(const CohortCudaDevice& device) {
  cudaDeviceProp properties{};
  int driver = 0;
  cudaGetDeviceProperties(&properties, device.index);
  cudaDriverGetVersion(&driver);
  char header[512];
  std::snprintf(header, sizeof(header), "cohort cublaslt 1 | %s | driver %d | cublaslt %zu",
                properties.name, driver, cublasLtGetVersion());
  return header;
}

TunedAlgorithms ReadMatMulCache(const std::string& path, const std::string& header,
                                std::string* note) {
  std::ifstream file(path);
  std::string line;
  if (!file.is_open()) {
    return {};
  }
  if (!std::getline(file, line) || line != header) {
    *note = path + " is ignored: it begins with \"" + line + "\", not with \"" + header + "\"";
    return {};
  }
  TunedAlgorithms algorithms;
  for (int number = 2; std::getline(file, line); ++number) {
    if (!ParseLine(line, &algorithms)) {
      *note = path + " is ignored: line " + std::to_string(number) + " is no algorithm";
      return {};
    }
  }
  return algorithms;
}

bool AddToMatMulCache(const std::string& path, const std::string& header,
                      const TunedAlgorithms& measured, std::string* note) {
  const FileLock lock(path + ".lock");
  std::string ignored;  // a file that tells nothing was noted when it was read first
  TunedAlgorithms all = ReadMatMulCache(path, header, &ignored);
  for (const auto& [key, tuned] : measured) {
    all[key] = tuned;
  }
  const std::string temporary = path + "." + std::to_string(getpid());
  std::ofstream file(temporary);
  file << header << '\n';
  for (const auto& [key, tuned] : all) {
    file << Line(key.first, key.second, tuned) << '\n';
  }
  file.close();
  if (!file.fail() && std::rename(temporary.c_str(), path.c_str()) == 0) {
    return true;
  }
  *note = path + " cannot be written: " + SystemError();
  std::remove(temporary.c_str());
  return false;
}

}  // namespace cohort::cuda
