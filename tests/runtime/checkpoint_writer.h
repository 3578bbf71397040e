// Checkpoints written by hand: safetensors files, indexes and configs, right or wrong on purpose.
#ifndef COHORT_TESTS_RUNTIME_CHECKPOINT_WRITER_H_
#define COHORT_TESTS_RUNTIME_CHECKPOINT_WRITER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/status.h"
#include "runtime/model_config.h"
#include "runtime/weights.h"

namespace cohort {

// A folder of its own, removed with its content at the end of the scope.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string Path(StringView name) const { return absl::StrCat(path_, "/", name); }
  void Write(StringView name, StringView content) const;

 private:
  std::string path_;
};

struct WrittenTensor {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

// A file with exactly this header text and these bytes of data.
std::string SafetensorsFile(StringView header, StringView data);
// A valid file; the tensors' data in their order. Entries carry only what the format requires.
std::string SafetensorsFile(const std::vector<WrittenTensor>& tensors);

// The number that element `index` of `tensor` is stored as by TensorsOf(): small, exact in F16 and
// BF16, different from its neighbours and from those of other tensors.
float StoredValue(StringView tensor, int64_t index);

// All tensors of a model, filled with StoredValue() in `dtype` (F32, F16 or BF16).
std::vector<WrittenTensor> TensorsOf(const ModelConfig& config, StringView dtype);

// The sizes of a model whose head_dim is hidden / heads.
struct TinyShape {
  int64_t hidden = 24;
  int64_t heads = 3;
  int64_t kv_heads = 1;
  int64_t ffn_columns = 10;
  int64_t layers = 2;
  int64_t vocabulary = 19;
  int64_t positions = 128;
  bool is_tied = false;
};
std::string TinyConfigJson(const TinyShape& shape);
ModelConfig TinyConfig(const TinyShape& shape);

}  // namespace cohort

#endif  // COHORT_TESTS_RUNTIME_CHECKPOINT_WRITER_H_
