// The host's side of the kernels on rows of logits: their memory and what is uploaded to it.
#include <algorithm>

#include "kernels/cuda/candidates.h"

namespace cohort::cuda {
namespace {

constexpr std::size_t kMaskWords = static_cast<std::size_t>(kMaxVocabulary / 32);

bool IsAllowed(const CohortCudaLogitEdits& edits, int32_t id) {
  return edits.only_allowed == 0 ||
         std::binary_search(edits.allowed, edits.allowed + edits.allowed_count, id);
}

}  // namespace

void SamplingMemoryDeleter::operator()(SamplingMemory* memory) const { delete memory; }

SamplingMemoryPointer MakeSamplingMemory(cudaStream_t stream, cudaError_t* result) {
  SamplingMemoryPointer memory(new SamplingMemory);
  *result = memory->Allocate(stream);
  return memory;
}

SamplingMemory::~SamplingMemory() { cudaFree(memory_); }

cudaError_t SamplingMemory::Allocate(cudaStream_t stream) {
  constexpr std::size_t kRows = kMaxLaunchRows;
  constexpr std::size_t kStates = kRows * sizeof(RowState);
  constexpr std::size_t kLargest = kRows * kMaxStretches * sizeof(Word);
  constexpr std::size_t kMasses = kRows * kMaxBlocks * sizeof(Word);
  constexpr std::size_t kEdits = kMaxVocabulary * sizeof(DeviceEdit);
  constexpr std::size_t kMasks = kRows * kMaskWords * sizeof(uint32_t);
  if (const cudaError_t result =
          cudaMalloc(&memory_, kStates + kLargest + kMasses + kEdits + kMasks);
      result != cudaSuccess) {
    return result;
  }
  unsigned char* next = static_cast<unsigned char*>(memory_);
  const auto take = [&next](std::size_t bytes) {
    unsigned char* taken = next;
    next += bytes;
    return static_cast<void*>(taken);
  };
  scratch_.states = static_cast<RowState*>(take(kStates));
  scratch_.stretches = static_cast<Word*>(take(kLargest));
  scratch_.block_masses = static_cast<Word*>(take(kMasses));
  scratch_.edits = static_cast<DeviceEdit*>(take(kEdits));
  scratch_.masks = static_cast<uint32_t*>(take(kMasks));
  return cudaMemsetAsync(scratch_.states, 0, kStates, stream);
}

Columns ColumnsOf(const CohortCudaTensor& logits, int64_t first_id, int64_t valid_ids) {
  const int64_t count = logits.dims[1];
  const int64_t valid = std::clamp<int64_t>(valid_ids - first_id, 0, count);
  return {first_id, static_cast<int32_t>(valid), static_cast<int32_t>(count)};
}

unsigned BlocksOf(const Columns& columns) {
  return static_cast<unsigned>(std::max(1, (columns.valid + kBlockColumns - 1) / kBlockColumns));
}

RowBatch::RowBatch(CohortCudaDevice* device, const Columns& columns)
    : device_(device), columns_(columns) {
  device->sampling->edits.clear();
  device->sampling->masks.clear();
}

bool RowBatch::Fits(int64_t row, const CohortCudaLogitEdits& edits) const {
  if (count_ == 0) {
    return true;
  }
  const auto is_same = [row](const RowRequest& request) { return request.row == row; };
  return count_ < kMaxLaunchRows &&
         device_->sampling->edits.size() + static_cast<std::size_t>(edits.id_count) <=
             static_cast<std::size_t>(kMaxVocabulary) &&
         std::none_of(requests_.row, requests_.row + count_, is_same);
}

RowRequest& RowBatch::Add(int64_t row, const CohortCudaLogitEdits& edits) {
  RowRequest& request = requests_.row[count_++];
  request.row = static_cast<int32_t>(row);
  request.repetition_penalty = edits.repetition_penalty;
  std::vector<DeviceEdit>& all = device_->sampling->edits;
  request.first_edit = static_cast<int32_t>(all.size());
  for (int64_t i = 0; i < edits.id_count; ++i) {
    const CohortCudaLogitEdit& edit = edits.ids[i];
    const int64_t column = edit.id - columns_.first_id;
    if (column >= 0 && column < columns_.valid && IsAllowed(edits, edit.id)) {
      all.push_back(
          {static_cast<int32_t>(column), edit.bias, edit.penalty, edit.is_repeated != 0 ? 1 : 0});
    }
  }
  request.edits = static_cast<int32_t>(all.size()) - request.first_edit;
  most_edits_ = std::max(most_edits_, request.edits);
  if (edits.only_allowed != 0) {
    AddMask(edits, &request);
  }
  return request;
}

void RowBatch::AddMask(const CohortCudaLogitEdits& edits, RowRequest* request) {
  std::vector<uint32_t>& masks = device_->sampling->masks;
  request->first_mask = static_cast<int32_t>(masks.size());
  masks.resize(masks.size() + static_cast<std::size_t>(columns_.count + 31) / 32, 0);
  uint32_t* mask = masks.data() + request->first_mask;
  for (int64_t i = 0; i < edits.allowed_count; ++i) {
    const int64_t column = edits.allowed[i] - columns_.first_id;
    if (column >= 0 && column < columns_.count) {
      mask[column / 32] |= uint32_t{1} << (column % 32);
    }
  }
}

void RowBatch::Upload() {
  const SamplingMemory& memory = *device_->sampling;
  const SamplingScratch& to = memory.scratch();
  // CUDA has read pageable memory when the call returns, so the vectors are free for the next
  // batch; what it overwrites on the device is ordered by the stream.
  cudaError_t result = cudaSuccess;
  if (!memory.edits.empty()) {
    result =
        cudaMemcpyAsync(to.edits, memory.edits.data(), memory.edits.size() * sizeof(DeviceEdit),
                        cudaMemcpyHostToDevice, device_->stream);
  }
  if (result == cudaSuccess && !memory.masks.empty()) {
    result = cudaMemcpyAsync(to.masks, memory.masks.data(), memory.masks.size() * sizeof(uint32_t),
                             cudaMemcpyHostToDevice, device_->stream);
  }
  if (result != cudaSuccess) {
    Stick(device_, FromCuda(result, "copy of logit edits"));
  }
}

}  // namespace cohort::cuda
