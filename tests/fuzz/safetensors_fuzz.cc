// Tensors of a header that parses lie within the file, one behind the other.
#include <algorithm>
#include <vector>

#include "kernels/check.h"
#include "runtime/safetensors.h"

namespace {

void Parse(cohort::StringView head, uint64_t file_bytes) {
  auto tensors = cohort::ParseSafetensorsHeader(head, file_bytes, "input");
  if (!tensors.ok()) return;
  std::sort(tensors->begin(), tensors->end(), [](const auto& a, const auto& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  uint64_t end = tensors->empty() ? file_bytes : tensors->front().begin;
  for (const cohort::StoredTensor& tensor : *tensors) {
    CHECK_EQ(tensor.begin, end) << tensor.name;
    CHECK_LE(tensor.begin, tensor.end) << tensor.name;
    end = tensor.end;
  }
  CHECK_EQ(end, file_bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const cohort::StringView head(reinterpret_cast<const char*>(data), size);
  Parse(head, size);
  // The head alone, of larger files: what a caller that reads only the beginning has.
  for (const uint64_t more : {uint64_t{1}, uint64_t{64}, uint64_t{1} << 40})
    Parse(head, size + more);
  return 0;
}
