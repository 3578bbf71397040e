// Checkpoints in the safetensors format, one file or several with an index, memory-mapped and fully
// validated before a byte of data is read (github.com/huggingface/safetensors, README).
#ifndef COHORT_RUNTIME_SAFETENSORS_H_
#define COHORT_RUNTIME_SAFETENSORS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/status.h"

namespace cohort {

// One tensor of a file's header. Offsets are relative to the file's start.
struct StoredTensor {
  std::string name;
  std::string dtype;  // as the file spells it: "BF16", "F32", "F16", ...
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // bytes
  uint64_t end = 0;
  int file = 0;  // index into Checkpoint's files
};

// Parses and validates the header of a safetensors file of `file_bytes` bytes whose first bytes are
// `head` (the 8-byte length and the header at least). INVALID_ARGUMENT names `what` and the fault.
absl::StatusOr<std::vector<StoredTensor>> ParseSafetensorsHeader(StringView head,
                                                                 uint64_t file_bytes,
                                                                 StringView what);

// All tensors of a checkpoint directory. Maps the files read-only; pages are touched only where
// data is read.
class Checkpoint {
 public:
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& model_dir);
  ~Checkpoint();

  const std::vector<StoredTensor>& tensors() const;
  const StoredTensor* Find(StringView name) const;              // nullptr when absent
  const unsigned char* data(const StoredTensor& tensor) const;  // its first byte; any alignment

  // Advice to the system about a tensor's bytes [begin, end): they are read soon; and about all of
  // it: the pages read so far are not needed in memory any more.
  void WillRead(const StoredTensor& tensor, uint64_t begin, uint64_t end) const;
  void DropPages(const StoredTensor& tensor) const;

 private:
  class State;
  explicit Checkpoint(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_SAFETENSORS_H_
