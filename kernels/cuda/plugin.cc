// The one exported function of libcohort_cuda.so.
#include "kernels/cuda/entries.h"
#include "kernels/cuda_plugin.h"

namespace cohort::cuda {
namespace {

constexpr CohortCudaTable kTable = {
    .version = kCohortCudaTableVersion,
    .bytes = sizeof(CohortCudaTable),
    .device_count = DeviceCount,
    .device_properties = DeviceProperties,
    .device_create = DeviceCreate,
    .device_destroy = DeviceDestroy,
    .memory_allocate = MemoryAllocate,
    .memory_free = MemoryFree,
    .copy_from_host = CopyFromHost,
    .copy_to_host = CopyToHost,
    .synchronize = Synchronize,
    .memory_info = MemoryInfo,
    .host_memory_allocate = HostMemoryAllocate,
    .host_memory_free = HostMemoryFree,
    .enqueue_copy_from_host = EnqueueCopyFromHost,
    .enqueue_copy_to_host = EnqueueCopyToHost,
    .mark_create = MarkCreate,
    .mark_destroy = MarkDestroy,
    .mark_set = MarkSet,
    .mark_wait = MarkWait,
    .recording_begin = RecordingBegin,
    .recording_end = RecordingEnd,
    .recording_enqueue = RecordingEnqueue,
    .recording_kernels = RecordingKernels,
    .recording_destroy = RecordingDestroy,
    .embed = Embed,
    .rms_norm = RmsNorm,
    .add_rms_norm = AddRmsNorm,
    .mat_mul = MatMul,
    .rope_and_store_kv = RopeAndStoreKv,
    .paged_attention = PagedAttention,
    .dual_chunk_attention = DualChunkAttention,
    .prefetch_weights = PrefetchWeights,
    .dense_layers = DenseLayers,
    .project_qkv = ProjectQkv,
    .project_gate_up = ProjectGateUp,
    .tune_mat_mul = TuneMatMul,
    .silu_multiply = SiluMultiply,
    .fill_random = FillRandom,
    .gather_rows = GatherRows,
    .route_top_k = RouteTopK,
    .routed_ffn = RoutedFfn,
    .count_ids = CountIds,
    .add_gated = AddGated,
    .local_candidates = LocalCandidates,
    .local_masses = LocalMasses,
    .local_pick = LocalPick,
    .edit_logits = EditLogits,
    .recorded_candidates = RecordedCandidates,
    .choose_recorded = ChooseRecorded,
    .recorded_masses = RecordedMasses,
    .recorded_picks = RecordedPicks,
    .take_picks = TakePicks,
    .select_ids = SelectIds,
    .store_tokens = StoreTokens,
    .sample = Sample,
    .unique_id_create = UniqueIdCreate,
    .communicator_create = CommunicatorCreate,
    .communicator_join = CommunicatorJoin,
    .all_reduce_sum = AllReduceSum,
    .all_gather = AllGather,
    .all_to_all = AllToAll,
    .all_reduce_add_rms_norm = AllReduceAddRmsNorm,
    .barrier = Barrier,
    .communicator_links = CommunicatorLinks,
    .communicator_poll = CommunicatorPoll,
    .communicator_abort = CommunicatorAbort,
    .communicator_destroy = CommunicatorDestroy,
};

}  // namespace
}  // namespace cohort::cuda

extern "C" __attribute__((visibility("default"))) const CohortCudaTable* cohort_cuda_table(
    uint32_t version) {
  return version == kCohortCudaTableVersion ? &cohort::cuda::kTable : nullptr;
}
