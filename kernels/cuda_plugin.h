/* The boundary between the core and libcohort_cuda.so: one exported C function that returns one
 * versioned table of functions over plain structs. Nothing is thrown across it and no C++ type lies
 * on it; kernels/plugin_device.h, kernels/plugin_ops.h and parallel/plugin_communicator.h adapt it
 * to the interfaces of the core, kernels/cuda/ fills it.
 *
 * Any change of a struct or of the table raises the version. */
#ifndef COHORT_KERNELS_CUDA_PLUGIN_H_
#define COHORT_KERNELS_CUDA_PLUGIN_H_

#include "kernels/cuda_plugin_types.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { kCohortCudaTableVersion = 5 };

/* A null entry is a verb this backend does not have. Unless said otherwise an entry is called from
 * the thread of the device's rank. Entries that return nothing enqueue; their first error sticks to
 * the device and comes out of `synchronize`. Semantics of the operations: kernels/ops.h. */
typedef struct CohortCudaTable {
  uint32_t version;
  uint32_t bytes; /* sizeof(CohortCudaTable) where the plugin was built */

  /* Devices. */
  CohortCudaError (*device_count)(int32_t* count);
  CohortCudaError (*device_properties)(int32_t index, CohortCudaProperties* properties);
  CohortCudaError (*device_create)(int32_t index, CohortCudaDevice** device);
  void (*device_destroy)(CohortCudaDevice* device);
  CohortCudaError (*memory_allocate)(CohortCudaDevice* device, uint64_t bytes, void** memory);
  /* Any thread; also after the device object is gone. */
  void (*memory_free)(int32_t index, void* memory);
  void (*copy_from_host)(CohortCudaDevice* device, const void* source, void* destination,
                         uint64_t bytes);
  void (*copy_to_host)(CohortCudaDevice* device, const void* source, void* destination,
                       uint64_t bytes);
  /* Waits for the stream; the first error since the last call. */
  CohortCudaError (*synchronize)(CohortCudaDevice* device);
  /* Bytes, of all processes together. */
  CohortCudaError (*memory_info)(CohortCudaDevice* device, uint64_t* free_bytes,
                                 uint64_t* total_bytes);
  /* Pinned memory of the host, at the same address for the host and for kernels. */
  CohortCudaError (*host_memory_allocate)(CohortCudaDevice* device, uint64_t bytes, void** memory);
  /* Any thread; also after the device object is gone. */
  void (*host_memory_free)(int32_t index, void* memory);
  /* They enqueue; the host's side is of host_memory_allocate and is left alone until a mark set
   * afterwards is reached. */
  void (*enqueue_copy_from_host)(CohortCudaDevice* device, const void* source, void* destination,
                                 uint64_t bytes);
  void (*enqueue_copy_to_host)(CohortCudaDevice* device, const void* source, void* destination,
                               uint64_t bytes);
  /* Pins memory of the host where it lies, whole pages that may be only readable. Any thread;
   * unpinning also after the device object is gone. */
  CohortCudaError (*host_memory_pin)(int32_t index, const void* memory, uint64_t bytes);
  void (*host_memory_unpin)(int32_t index, const void* memory);
  CohortCudaError (*copy_queue_create)(CohortCudaDevice* device, CohortCudaCopyQueue** queue);
  /* Waits for its copies. */
  void (*copy_queue_destroy)(CohortCudaCopyQueue* queue);
  /* As enqueue_copy_from_host, in order with the queue's own copies alone; the host's side may also
   * be pinned where it lies. */
  void (*copy_queue_enqueue)(CohortCudaCopyQueue* queue, const void* source, void* destination,
                             uint64_t bytes);
  /* In `queue`, or with null in the device's stream. */
  CohortCudaError (*mark_create)(CohortCudaDevice* device, CohortCudaCopyQueue* queue,
                                 CohortCudaMark** mark);
  void (*mark_destroy)(CohortCudaMark* mark);
  /* Behind everything enqueued so far. */
  void (*mark_set)(CohortCudaMark* mark);
  /* kCohortCudaDeadline while the device has not come to where the mark was set last; else as
   * `synchronize`: the first error since the last call of either. */
  CohortCudaError (*mark_wait)(CohortCudaMark* mark, int64_t timeout_us);
  /* What is enqueued between the two is recorded and not computed. recording_end gives the first
   * error in between, and no recording then. */
  CohortCudaError (*recording_begin)(CohortCudaDevice* device);
  CohortCudaError (*recording_end)(CohortCudaDevice* device, CohortCudaRecording** recording);
  void (*recording_enqueue)(CohortCudaRecording* recording);
  void (*recording_kernels)(const CohortCudaRecording* recording,
                            CohortCudaRecordedKernels* kernels);
  void (*recording_destroy)(CohortCudaRecording* recording);

  /* The operations of kernels/ops.h. */
  void (*embed)(CohortCudaDevice* device, const CohortCudaTensor* ids,
                const CohortCudaTensor* table, int64_t first_row, const CohortCudaTensor* out);
  void (*rms_norm)(CohortCudaDevice* device, const CohortCudaTensor* x,
                   const CohortCudaTensor* gamma, float eps, const CohortCudaTensor* out);
  void (*add_rms_norm)(CohortCudaDevice* device, const CohortCudaTensor* residual,
                       const CohortCudaTensor* x, const CohortCudaTensor* gamma, float eps,
                       const CohortCudaTensor* out);
  /* `bias` may be null. */
  void (*mat_mul)(CohortCudaDevice* device, const CohortCudaTensor* x,
                  const CohortCudaTensor* weight, const CohortCudaTensor* bias,
                  const CohortCudaTensor* out);
  void (*rope_and_store_kv)(CohortCudaDevice* device, const CohortCudaTensor* qkv,
                            int64_t query_heads, const CohortCudaRope* rope,
                            const CohortCudaBatch* batch, const CohortCudaKv* kv);
  /* `kv_head_of_query` is host memory, one entry per query head. */
  void (*paged_attention)(CohortCudaDevice* device, const CohortCudaTensor* queries,
                          const int32_t* kv_head_of_query, int64_t query_heads,
                          const CohortCudaBatch* batch, const CohortCudaKv* kv, float scale,
                          const CohortCudaTensor* out);
  void (*dual_chunk_attention)(CohortCudaDevice* device, const CohortCudaTensor* queries,
                               const int32_t* kv_head_of_query, int64_t query_heads,
                               const CohortCudaDualChunks* chunks, const CohortCudaBatch* batch,
                               const CohortCudaKv* kv, float scale, const CohortCudaTensor* out);
  void (*prefetch_weights)(CohortCudaDevice* device, const CohortCudaNextWeights* next);
  /* The layers of a step in one kernel where it takes their shape: 1. Else 0, and nothing is done.
   * With `always` also where the other verbs are expected to be as fast. */
  int32_t (*dense_layers)(CohortCudaDevice* device, const CohortCudaDenseStep* step,
                          int32_t always);
  void (*project_qkv)(CohortCudaDevice* device, const CohortCudaTensor* x,
                      const CohortCudaTensor* weight, const CohortCudaTensor* bias,
                      const CohortCudaTensor* qkv, int64_t query_heads, const CohortCudaRope* rope,
                      const CohortCudaBatch* batch, const CohortCudaKv* kv);
  void (*project_gate_up)(CohortCudaDevice* device, const CohortCudaTensor* x,
                          const CohortCudaTensor* weight, const CohortCudaTensor* gate_up,
                          const CohortCudaTensor* out);
  /* From now on each product has the library's fastest algorithm for its number of tokens (and
   * those down to the next smaller one given): what the file at `path` says, else what a
   * measurement finds, which is then written there. `path` may be null. Takes device memory for a
   * moment, waits for the device; not while it records. */
  CohortCudaError (*tune_mat_mul)(CohortCudaDevice* device, const CohortCudaProduct* products,
                                  int64_t count, const char* path, CohortCudaTuning* tuning);
  void (*silu_multiply)(CohortCudaDevice* device, const CohortCudaTensor* gate_up,
                        const CohortCudaTensor* out);
  void (*fill_random)(CohortCudaDevice* device, const CohortCudaRandomFill* fill,
                      const CohortCudaTensor* out);
  void (*gather_rows)(CohortCudaDevice* device, const CohortCudaTensor* x,
                      const CohortCudaTensor* rows, const CohortCudaTensor* out);
  void (*route_top_k)(CohortCudaDevice* device, const CohortCudaTensor* logits, int32_t normalize,
                      const CohortCudaRouting* routing);
  void (*routed_ffn)(CohortCudaDevice* device, const CohortCudaTensor* x,
                     const CohortCudaRouting* routing, const CohortCudaExperts* experts,
                     const CohortCudaExpertScratch* scratch, const CohortCudaTensor* out);
  void (*count_ids)(CohortCudaDevice* device, const CohortCudaTensor* ids,
                    const CohortCudaTensor* counts);
  void (*add_gated)(CohortCudaDevice* device, const CohortCudaTensor* x,
                    const CohortCudaTensor* gate, const CohortCudaTensor* out);
  /* Requests, edits and rows are host memory, one entry per row of logits (or per request); they
   * may be reused after the call. */
  void (*local_candidates)(CohortCudaDevice* device, const CohortCudaTensor* logits,
                           const CohortCudaCandidateRequest* requests,
                           const CohortCudaVocabularySlice* slice, const CohortCudaTensor* out);
  void (*local_masses)(CohortCudaDevice* device, const CohortCudaTensor* logits,
                       const CohortCudaMassRequest* requests,
                       const CohortCudaVocabularySlice* slice, const CohortCudaTensor* out);
  void (*local_pick)(CohortCudaDevice* device, const CohortCudaTensor* logits,
                     const CohortCudaMassRequest* requests, const CohortCudaVocabularySlice* slice,
                     const CohortCudaTensor* out);
  void (*edit_logits)(CohortCudaDevice* device, const CohortCudaTensor* logits,
                      const CohortCudaLogitEdits* edits, int64_t first_id,
                      const CohortCudaTensor* out);
  void (*recorded_candidates)(CohortCudaDevice* device, const CohortCudaTensor* logits,
                              const CohortCudaTensor* sampling, int32_t candidates,
                              const CohortCudaVocabularySlice* slice, const CohortCudaTensor* out);
  void (*choose_recorded)(CohortCudaDevice* device, const CohortCudaTensor* records, int64_t ranks,
                          const CohortCudaTensor* sampling, int64_t valid_ids,
                          const CohortCudaTensor* tokens);
  void (*recorded_masses)(CohortCudaDevice* device, const CohortCudaTensor* logits,
                          const CohortCudaRecordedRows* rows,
                          const CohortCudaVocabularySlice* slice, const CohortCudaTensor* out);
  void (*recorded_picks)(CohortCudaDevice* device, const CohortCudaTensor* logits,
                         const CohortCudaRecordedRows* rows, const CohortCudaTensor* masses,
                         int64_t rank, const CohortCudaVocabularySlice* slice,
                         const CohortCudaTensor* out);
  void (*take_picks)(CohortCudaDevice* device, const CohortCudaTensor* picks,
                     const CohortCudaTensor* tokens);
  void (*sample_undecided)(CohortCudaDevice* device, const CohortCudaTensor* logits,
                           const CohortCudaTensor* sampling, int64_t valid_ids,
                           const CohortCudaTensor* tokens);
  void (*select_ids)(CohortCudaDevice* device, const CohortCudaTensor* sources,
                     const CohortCudaTensor* last_tokens, const CohortCudaTensor* ids);
  void (*store_tokens)(CohortCudaDevice* device, const CohortCudaTensor* tokens,
                       const CohortCudaTensor* slots, const CohortCudaTensor* last_tokens);
  void (*sample)(CohortCudaDevice* device, const CohortCudaTensor* logits,
                 const CohortCudaSamplingRow* rows, int64_t valid_ids, const CohortCudaTensor* out);

  /* Collectives over NCCL. The id is made by one rank that will live and handed to all. */
  CohortCudaError (*unique_id_create)(CohortCudaUniqueId* id);
  /* Begins to join the group; waits for nobody. */
  CohortCudaError (*communicator_create)(CohortCudaDevice* device, const CohortCudaGroup* group,
                                         CohortCudaCommunicator** communicator);
  /* Waits for all ranks and runs every collective once, so that later ones only enqueue; a call of
   * communicator_abort from another thread ends it. */
  CohortCudaError (*communicator_join)(CohortCudaCommunicator* communicator);
  /* The collectives of parallel/communicator.h. They enqueue on the device's stream; a wait of the
   * host for NCCL's own launch is bounded by the timeout. */
  CohortCudaError (*all_reduce_sum)(CohortCudaCommunicator* communicator,
                                    const CohortCudaTensor* inout);
  CohortCudaError (*all_gather)(CohortCudaCommunicator* communicator, const CohortCudaTensor* shard,
                                const CohortCudaRange* parts, const CohortCudaTensor* out);
  CohortCudaError (*all_to_all)(CohortCudaCommunicator* communicator,
                                const CohortCudaExchange* send, const CohortCudaExchange* receive);
  /* all_reduce_sum of x, which may be left unsummed, then add_rms_norm of the sums. */
  CohortCudaError (*all_reduce_add_rms_norm)(CohortCudaCommunicator* communicator,
                                             const CohortCudaTensor* x,
                                             const CohortCudaTensor* residual,
                                             const CohortCudaTensor* gamma, float eps,
                                             const CohortCudaTensor* out);
  /* Returns when every rank has reached it on its stream. */
  CohortCudaError (*barrier)(CohortCudaCommunicator* communicator);
  /* After the join: CohortCudaLink to every rank, and whether small reductions go over peer memory.
   */
  int32_t (*communicator_links)(CohortCudaCommunicator* communicator, int32_t* links);
  /* After the join: up to how many bytes a message goes over peer memory in one shot, and in two
   * where it has more; 0: never. */
  void (*communicator_sizes)(CohortCudaCommunicator* communicator, int64_t* one_shot_bytes,
                             int64_t* two_shot_bytes);
  /* Any thread. NCCL's asynchronous error, or the wait for a peer that a kernel gave up; of the
   * collectives and replayed recordings that the device was given, how many it got and how many it
   * is known to have finished (a lower bound, brought up to date where the device's thread waits).
   */
  CohortCudaError (*communicator_poll)(CohortCudaCommunicator* communicator, uint64_t* submitted,
                                       uint64_t* finished);
  /* Any thread, idempotent: kernels that wait for a peer leave, later calls return
   * kCohortCudaAborted. */
  void (*communicator_abort)(CohortCudaCommunicator* communicator);
  /* Not while another thread is inside this communicator. Aborts what is still under way. */
  void (*communicator_destroy)(CohortCudaCommunicator* communicator);
} CohortCudaTable;

/* The only symbol the plugin exports. Null when it does not speak `version`. The table lives as
 * long as the library is loaded. */
#define COHORT_CUDA_TABLE_SYMBOL "cohort_cuda_table"
typedef const CohortCudaTable* (*CohortCudaTableFunction)(uint32_t version);

#ifdef __cplusplus
}
#endif

#endif /* COHORT_KERNELS_CUDA_PLUGIN_H_ */
