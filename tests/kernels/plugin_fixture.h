// The other side of the plugin's boundary, over host memory: it notes what arrives. The adapters
// are what is tested; the CUDA backend itself is tested through Device::Create where there is a
// device.
#ifndef COHORT_TESTS_KERNELS_PLUGIN_FIXTURE_H_
#define COHORT_TESTS_KERNELS_PLUGIN_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/plugin_device.h"

struct CohortCudaDevice {
  std::string verb;
  std::vector<CohortCudaTensor> tensors;
  std::vector<CohortCudaSamplingRow> sampling_rows;
  std::vector<CohortCudaLogitEdits> edits;  // of every row; their arrays end with the call
  std::vector<CohortCudaLogitEdit> edited_ids;
  std::vector<int32_t> allowed;
  CohortCudaCandidateRequest candidate_request{};
  CohortCudaMassRequest mass_request{};
  CohortCudaVocabularySlice slice{};
  std::vector<int32_t> heads;
  int64_t number = 0;
  float real = 0;
  bool takes_dense_layers = false;
  bool is_out_of_memory = false;
  bool is_destroyed = false;
  CohortCudaError error{};

  template <class... Tensors>
  void Note(const char* name, const Tensors*... seen) {
    verb = name;
    tensors = {*seen...};
  }
  template <class Request>
  void NoteEdits(const Request* rows, int64_t count) {
    edits.clear();
    edited_ids.clear();
    allowed.clear();
    for (int64_t i = 0; i < count; ++i) {
      const CohortCudaLogitEdits* of_row = reinterpret_cast<const CohortCudaLogitEdits*>(rows + i);
      edits.push_back(*of_row);
      edited_ids.insert(edited_ids.end(), of_row->ids, of_row->ids + of_row->id_count);
      allowed.insert(allowed.end(), of_row->allowed, of_row->allowed + of_row->allowed_count);
    }
  }
};

// They note what becomes of them in `verb` of the device, and share its error.
struct CohortCudaMark {
  CohortCudaDevice* device = nullptr;
};
struct CohortCudaCopyQueue {
  CohortCudaDevice* device = nullptr;
};
struct CohortCudaRecording {
  CohortCudaDevice* device = nullptr;
};

namespace cohort {

// Every entry that the tests use.
CohortCudaTable MakeTable();

class PluginDeviceTest : public testing::Test {
 protected:
  // A view that must arrive unchanged; its address is never read.
  TensorView View(Shape shape, DType dtype) {
    next_address_ += 0x1000;
    return TensorView(reinterpret_cast<void*>(next_address_), dtype, shape);
  }
  // The addresses of what arrived, in order.
  std::vector<void*> Arrived() const {
    std::vector<void*> addresses;
    for (const CohortCudaTensor& tensor : other_side_.tensors) {
      addresses.push_back(tensor.data);
    }
    return addresses;
  }

  uintptr_t next_address_ = 0x10000;
  CohortCudaTable table_ = MakeTable();
  CohortCudaDevice other_side_;
  PluginDevice device_{&table_, &other_side_, 3, "cuda:3 something"};
};

}  // namespace cohort

#endif  // COHORT_TESTS_KERNELS_PLUGIN_FIXTURE_H_
