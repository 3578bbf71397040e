// The functions of the table (kernels/cuda_plugin.h), one file of definitions per subject.
// noexcept: running out of host memory ends the process here instead of throwing into the core.
#ifndef COHORT_KERNELS_CUDA_ENTRIES_H_
#define COHORT_KERNELS_CUDA_ENTRIES_H_

#include "kernels/cuda_plugin.h"

namespace cohort::cuda {

// device.cc
CohortCudaError DeviceCount(int32_t* count) noexcept;
CohortCudaError DeviceProperties(int32_t index, CohortCudaProperties* properties) noexcept;
CohortCudaError DeviceCreate(int32_t index, CohortCudaDevice** device) noexcept;
void DeviceDestroy(CohortCudaDevice* device) noexcept;
CohortCudaError MemoryAllocate(CohortCudaDevice* device, uint64_t bytes, void** memory) noexcept;
void MemoryFree(int32_t index, void* memory) noexcept;
void CopyFromHost(CohortCudaDevice* device, const void* source, void* destination,
                  uint64_t bytes) noexcept;
void CopyToHost(CohortCudaDevice* device, const void* source, void* destination,
                uint64_t bytes) noexcept;
CohortCudaError Synchronize(CohortCudaDevice* device) noexcept;

// host_memory.cc
CohortCudaError MemoryInfo(CohortCudaDevice* device, uint64_t* free_bytes,
                           uint64_t* total_bytes) noexcept;
CohortCudaError HostMemoryAllocate(CohortCudaDevice* device, uint64_t bytes,
                                   void** memory) noexcept;
void HostMemoryFree(int32_t index, void* memory) noexcept;
void EnqueueCopyFromHost(CohortCudaDevice* device, const void* source, void* destination,
                         uint64_t bytes) noexcept;
void EnqueueCopyToHost(CohortCudaDevice* device, const void* source, void* destination,
                       uint64_t bytes) noexcept;

// copy_queue.cc
CohortCudaError HostMemoryPin(int32_t index, const void* memory, uint64_t bytes) noexcept;
void HostMemoryUnpin(int32_t index, const void* memory) noexcept;
CohortCudaError CopyQueueCreate(CohortCudaDevice* device, CohortCudaCopyQueue** queue) noexcept;
void CopyQueueDestroy(CohortCudaCopyQueue* queue) noexcept;
void CopyQueueEnqueue(CohortCudaCopyQueue* queue, const void* source, void* destination,
                      uint64_t bytes) noexcept;

// recording.cc
CohortCudaError MarkCreate(CohortCudaDevice* device, CohortCudaCopyQueue* queue,
                           CohortCudaMark** mark) noexcept;
void MarkDestroy(CohortCudaMark* mark) noexcept;
void MarkSet(CohortCudaMark* mark) noexcept;
CohortCudaError MarkWait(CohortCudaMark* mark, int64_t timeout_us) noexcept;
CohortCudaError RecordingBegin(CohortCudaDevice* device) noexcept;
CohortCudaError RecordingEnd(CohortCudaDevice* device, CohortCudaRecording** recording) noexcept;
void RecordingEnqueue(CohortCudaRecording* recording) noexcept;
void RecordingKernels(const CohortCudaRecording* recording,
                      CohortCudaRecordedKernels* kernels) noexcept;
void RecordingDestroy(CohortCudaRecording* recording) noexcept;

// steps.cu
void SelectIds(CohortCudaDevice* device, const CohortCudaTensor* sources,
               const CohortCudaTensor* last_tokens, const CohortCudaTensor* ids) noexcept;
void StoreTokens(CohortCudaDevice* device, const CohortCudaTensor* tokens,
                 const CohortCudaTensor* slots, const CohortCudaTensor* last_tokens) noexcept;

// norm.cu
void RmsNorm(CohortCudaDevice* device, const CohortCudaTensor* x, const CohortCudaTensor* gamma,
             float eps, const CohortCudaTensor* out) noexcept;
void AddRmsNorm(CohortCudaDevice* device, const CohortCudaTensor* residual,
                const CohortCudaTensor* x, const CohortCudaTensor* gamma, float eps,
                const CohortCudaTensor* out) noexcept;

// pointwise.cu
void Embed(CohortCudaDevice* device, const CohortCudaTensor* ids, const CohortCudaTensor* table,
           int64_t first_row, const CohortCudaTensor* out) noexcept;
void SiluMultiply(CohortCudaDevice* device, const CohortCudaTensor* gate_up,
                  const CohortCudaTensor* out) noexcept;
void GatherRows(CohortCudaDevice* device, const CohortCudaTensor* x, const CohortCudaTensor* rows,
                const CohortCudaTensor* out) noexcept;

// fill.cu
void FillRandom(CohortCudaDevice* device, const CohortCudaRandomFill* fill,
                const CohortCudaTensor* out) noexcept;

// matmul.cc
void MatMul(CohortCudaDevice* device, const CohortCudaTensor* x, const CohortCudaTensor* weight,
            const CohortCudaTensor* bias, const CohortCudaTensor* out) noexcept;

// matmul_tune.cc
CohortCudaError TuneMatMul(CohortCudaDevice* device, const CohortCudaProduct* products,
                           int64_t count, const char* path, CohortCudaTuning* tuning) noexcept;

// project_qkv.cu
void ProjectQkv(CohortCudaDevice* device, const CohortCudaTensor* x, const CohortCudaTensor* weight,
                const CohortCudaTensor* bias, const CohortCudaTensor* qkv, int64_t query_heads,
                const CohortCudaRope* rope, const CohortCudaBatch* batch,
                const CohortCudaKv* kv) noexcept;

// project_gate_up.cu
void ProjectGateUp(CohortCudaDevice* device, const CohortCudaTensor* x,
                   const CohortCudaTensor* weight, const CohortCudaTensor* gate_up,
                   const CohortCudaTensor* out) noexcept;

// rope.cu
void RopeAndStoreKv(CohortCudaDevice* device, const CohortCudaTensor* qkv, int64_t query_heads,
                    const CohortCudaRope* rope, const CohortCudaBatch* batch,
                    const CohortCudaKv* kv) noexcept;

// attention.cu
void PagedAttention(CohortCudaDevice* device, const CohortCudaTensor* queries,
                    const int32_t* kv_head_of_query, int64_t query_heads,
                    const CohortCudaBatch* batch, const CohortCudaKv* kv, float scale,
                    const CohortCudaTensor* out) noexcept;
void DualChunkAttention(CohortCudaDevice* device, const CohortCudaTensor* queries,
                        const int32_t* kv_head_of_query, int64_t query_heads,
                        const CohortCudaDualChunks* chunks, const CohortCudaBatch* batch,
                        const CohortCudaKv* kv, float scale, const CohortCudaTensor* out) noexcept;

// prefetch.cu
void PrefetchWeights(CohortCudaDevice* device, const CohortCudaNextWeights* next) noexcept;

// dense_layers.cu
int32_t DenseLayers(CohortCudaDevice* device, const CohortCudaDenseStep* step,
                    int32_t always) noexcept;

// experts_route.cu
void RouteTopK(CohortCudaDevice* device, const CohortCudaTensor* logits, int32_t normalize,
               const CohortCudaRouting* routing) noexcept;
void CountIds(CohortCudaDevice* device, const CohortCudaTensor* ids,
              const CohortCudaTensor* counts) noexcept;
void AddGated(CohortCudaDevice* device, const CohortCudaTensor* x, const CohortCudaTensor* gate,
              const CohortCudaTensor* out) noexcept;

// experts.cu
void RoutedFfn(CohortCudaDevice* device, const CohortCudaTensor* x,
               const CohortCudaRouting* routing, const CohortCudaExperts* experts,
               const CohortCudaExpertScratch* scratch, const CohortCudaTensor* out) noexcept;

// sampling.cu
void SampleUndecided(CohortCudaDevice* device, const CohortCudaTensor* logits,
                     const CohortCudaTensor* sampling, int64_t valid_ids,
                     const CohortCudaTensor* tokens) noexcept;
void Sample(CohortCudaDevice* device, const CohortCudaTensor* logits,
            const CohortCudaSamplingRow* rows, int64_t valid_ids,
            const CohortCudaTensor* out) noexcept;

// candidates.cu
void LocalCandidates(CohortCudaDevice* device, const CohortCudaTensor* logits,
                     const CohortCudaCandidateRequest* requests,
                     const CohortCudaVocabularySlice* slice, const CohortCudaTensor* out) noexcept;
void RecordedCandidates(CohortCudaDevice* device, const CohortCudaTensor* logits,
                        const CohortCudaTensor* sampling, int32_t candidates,
                        const CohortCudaVocabularySlice* slice,
                        const CohortCudaTensor* out) noexcept;

// candidates_edits.cu
void EditLogits(CohortCudaDevice* device, const CohortCudaTensor* logits,
                const CohortCudaLogitEdits* edits, int64_t first_id,
                const CohortCudaTensor* out) noexcept;

// candidates_mass.cu
void LocalMasses(CohortCudaDevice* device, const CohortCudaTensor* logits,
                 const CohortCudaMassRequest* requests, const CohortCudaVocabularySlice* slice,
                 const CohortCudaTensor* out) noexcept;
void LocalPick(CohortCudaDevice* device, const CohortCudaTensor* logits,
               const CohortCudaMassRequest* requests, const CohortCudaVocabularySlice* slice,
               const CohortCudaTensor* out) noexcept;
void RecordedMasses(CohortCudaDevice* device, const CohortCudaTensor* logits,
                    const CohortCudaRecordedRows* rows, const CohortCudaVocabularySlice* slice,
                    const CohortCudaTensor* out) noexcept;
void RecordedPicks(CohortCudaDevice* device, const CohortCudaTensor* logits,
                   const CohortCudaRecordedRows* rows, const CohortCudaTensor* masses, int64_t rank,
                   const CohortCudaVocabularySlice* slice, const CohortCudaTensor* out) noexcept;

// candidates_choose.cu
void TakePicks(CohortCudaDevice* device, const CohortCudaTensor* picks,
               const CohortCudaTensor* tokens) noexcept;
void ChooseRecorded(CohortCudaDevice* device, const CohortCudaTensor* records, int64_t ranks,
                    const CohortCudaTensor* sampling, int64_t valid_ids,
                    const CohortCudaTensor* tokens) noexcept;

// communicator.cc
int32_t NcclVersion() noexcept;
CohortCudaError UniqueIdCreate(CohortCudaUniqueId* id) noexcept;
CohortCudaError CommunicatorCreate(CohortCudaDevice* device, const CohortCudaGroup* group,
                                   CohortCudaCommunicator** communicator) noexcept;
CohortCudaError CommunicatorJoin(CohortCudaCommunicator* communicator) noexcept;
CohortCudaError CommunicatorPoll(CohortCudaCommunicator* communicator, uint64_t* submitted,
                                 uint64_t* finished) noexcept;
int32_t CommunicatorLinks(CohortCudaCommunicator* communicator, int32_t* links) noexcept;
void CommunicatorSizes(CohortCudaCommunicator* communicator, int64_t* one_shot_bytes,
                       int64_t* two_shot_bytes) noexcept;
void CommunicatorAbort(CohortCudaCommunicator* communicator) noexcept;
void CommunicatorDestroy(CohortCudaCommunicator* communicator) noexcept;

// collectives.cc
CohortCudaError AllReduceSum(CohortCudaCommunicator* communicator,
                             const CohortCudaTensor* inout) noexcept;
CohortCudaError AllGather(CohortCudaCommunicator* communicator, const CohortCudaTensor* shard,
                          const CohortCudaRange* parts, const CohortCudaTensor* out) noexcept;
CohortCudaError AllToAll(CohortCudaCommunicator* communicator, const CohortCudaExchange* send,
                         const CohortCudaExchange* receive) noexcept;
CohortCudaError AllReduceAddRmsNorm(CohortCudaCommunicator* communicator, const CohortCudaTensor* x,
                                    const CohortCudaTensor* residual, const CohortCudaTensor* gamma,
                                    float eps, const CohortCudaTensor* out) noexcept;
CohortCudaError Barrier(CohortCudaCommunicator* communicator) noexcept;

}  // namespace cohort::cuda

#endif  // COHORT_KERNELS_CUDA_ENTRIES_H_
