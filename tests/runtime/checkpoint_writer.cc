#include "tests/runtime/checkpoint_writer.h"

#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_join.h"
#include "kernels/bfloat16.h"
#include "kernels/check.h"

namespace cohort {
namespace {

// The IEEE half of a StoredValue(): zero, or of normal size and with seven significant bits.
uint16_t HalfBits(float value) {
  uint32_t word = 0;
  std::memcpy(&word, &value, sizeof(word));
  if (value == 0) {
    return 0;
  }
  const uint32_t exponent = ((word >> 23) & 0xffu) - 112u;
  return static_cast<uint16_t>((word >> 16 & 0x8000u) | exponent << 10 | (word >> 13 & 0x3ffu));
}

void AppendElement(StringView dtype, float value, std::string& bytes) {
  const uint16_t bits = dtype == "F16" ? HalfBits(value) : BFloat16::FromFloat(value).bits;
  if (dtype == "F32") {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
  } else {
    bytes.append(reinterpret_cast<const char*>(&bits), sizeof(bits));
  }
}

}  // namespace

TemporaryDirectory::TemporaryDirectory() {
  std::string path = (std::filesystem::temp_directory_path() / "cohort-test-XXXXXX").string();
  CHECK(mkdtemp(path.data()) != nullptr) << path;
  path_ = path;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void TemporaryDirectory::Write(StringView name, StringView content) const {
  std::ofstream file(Path(name), std::ios::binary);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  CHECK(file.good()) << Path(name);
}

std::string SafetensorsFile(StringView header, StringView data) {
  const uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof(length));
  return absl::StrCat(file, header, data);
}

std::string SafetensorsFile(const std::vector<WrittenTensor>& tensors) {
  std::vector<std::string> entries;
  std::string data;
  for (const WrittenTensor& tensor : tensors) {
    entries.push_back(absl::StrCat("\"", tensor.name, "\":{\"dtype\":\"", tensor.dtype,
                                   "\",\"shape\":[", absl::StrJoin(tensor.shape, ","),
                                   "],\"data_offsets\":[", data.size(), ",",
                                   data.size() + tensor.bytes.size(), "]}"));
    data += tensor.bytes;
  }
  return SafetensorsFile(absl::StrCat("{", absl::StrJoin(entries, ","), "}"), data);
}

float StoredValue(StringView tensor, int64_t index) {
  uint64_t hash = static_cast<uint64_t>(index) * 0x9e3779b97f4a7c15u;
  for (const char character : tensor) {
    hash = (hash ^ static_cast<unsigned char>(character)) * 0x100000001b3u;
  }
  return static_cast<float>(static_cast<int64_t>(hash >> 57) - 64) / 64.0f;
}

std::vector<WrittenTensor> TensorsOf(const ModelConfig& config, StringView dtype) {
  std::vector<WrittenTensor> tensors;
  for (const DeclaredTensor& declared : DeclareTensors(config)) {
    WrittenTensor tensor{declared.name, std::string(dtype), declared.shape, ""};
    int64_t elements = 1;
    for (const int64_t dim : declared.shape) {
      elements *= dim;
    }
    for (int64_t i = 0; i < elements; ++i) {
      AppendElement(dtype, StoredValue(declared.name, i), tensor.bytes);
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

std::string TinyConfigJson(const TinyShape& shape) {
  return absl::StrCat(
      R"({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", )",
      R"("rms_norm_eps": 1e-06, "rope_theta": 10000.0, "max_position_embeddings": )",
      shape.positions, ", ", R"("eos_token_id": 2, "hidden_size": )", shape.hidden,
      R"(, "num_hidden_layers": )", shape.layers, R"(, "num_attention_heads": )", shape.heads,
      R"(, "num_key_value_heads": )", shape.kv_heads, R"(, "intermediate_size": )",
      shape.ffn_columns, R"(, "vocab_size": )", shape.vocabulary, R"(, "tie_word_embeddings": )",
      shape.is_tied ? "true" : "false", "}");
}

ModelConfig TinyConfig(const TinyShape& shape) {
  const auto config = ParseModelConfig(TinyConfigJson(shape), "config.json");
  CHECK_OK(config.status());
  return *config;
}

}  // namespace cohort
