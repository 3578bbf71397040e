/* What crosses the boundary of the CUDA plugin (cuda_plugin.h): plain structs. Any change of one
 * raises the table's version. */
#ifndef COHORT_KERNELS_CUDA_PLUGIN_TYPES_H_
#define COHORT_KERNELS_CUDA_PLUGIN_TYPES_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { kCohortCudaMessageBytes = 512, kCohortCudaUniqueIdBytes = 128, kCohortCudaMaxRank = 4 };

enum CohortCudaCode {
  kCohortCudaOk = 0,
  kCohortCudaNotUsable = 1,       /* no driver, no such device */
  kCohortCudaOutOfMemory = 2,     /* of the device */
  kCohortCudaInvalidArgument = 3, /* a size this backend cannot serve */
  kCohortCudaDeadline = 4,        /* a wait of a communicator took too long */
  kCohortCudaAborted = 5,         /* communicator_abort was called */
  kCohortCudaPeerLost = 6,        /* the network told that a rank is gone */
  kCohortCudaFailed = 7           /* any other error of CUDA, cuBLASLt or NCCL */
};

/* `message` is one line without its end, terminated by 0, empty when code is kCohortCudaOk. */
typedef struct CohortCudaError {
  int32_t code;
  char message[kCohortCudaMessageBytes];
} CohortCudaError;

enum CohortCudaDType { kCohortCudaF32 = 0, kCohortCudaBF16 = 1, kCohortCudaI32 = 2 };

/* cohort::TensorView. `data` is device memory unless the function says otherwise. */
typedef struct CohortCudaTensor {
  void* data;
  int64_t dims[kCohortCudaMaxRank]; /* outermost first, 0 beyond the rank */
  int64_t row_stride;               /* elements between rows; inside a row all is dense */
  int32_t dtype;
  int32_t rank;
} CohortCudaTensor;

typedef struct CohortCudaProperties {
  char name[128];
  uint64_t memory_bytes;
  int32_t compute_major;
  int32_t compute_minor;
  int32_t multiprocessors;
  int32_t driver_version;  /* as CUDA writes it: 13000 is 13.0 */
  int32_t runtime_version; /* what the plugin was built with */
  int32_t nccl_version;    /* as NCCL writes it: 22809 is 2.28.9 */
  int32_t host_node;       /* the NUMA node nearest to it; -1 where the system does not say */
} CohortCudaProperties;

/* The structs of kernels/ops.h and kernels/sampling.h, field by field; a tensor that the verb does
 * not read may be left empty. */
typedef struct CohortCudaRope {
  CohortCudaTensor cosine;
  CohortCudaTensor sine;
  int32_t keys_only;
} CohortCudaRope;

typedef struct CohortCudaBatch {
  int64_t tokens;
  int64_t sequences;
  CohortCudaTensor positions;
  CohortCudaTensor sequence_of_token;
  CohortCudaTensor block_table;
  CohortCudaTensor rope_rows;     /* only where the verb rotates */
  CohortCudaTensor logit_factors; /* only for dual chunk attention */
  CohortCudaTensor first_rows;
  int64_t leading_decodes;
  int64_t longest_chunk;
} CohortCudaBatch;

typedef struct CohortCudaKv {
  CohortCudaTensor keys;
  CohortCudaTensor values;
} CohortCudaKv;

typedef struct CohortCudaDenseLayer {
  CohortCudaTensor attention_norm;
  CohortCudaTensor qkv;
  CohortCudaTensor qkv_bias; /* without data: none */
  CohortCudaTensor attention_out;
  CohortCudaTensor ffn_norm;
  CohortCudaTensor gate_up;
  CohortCudaTensor down;
  CohortCudaKv kv;
} CohortCudaDenseLayer;

typedef struct CohortCudaDenseStep {
  const CohortCudaDenseLayer* layers; /* host memory */
  int64_t layer_count;
  CohortCudaTensor final_norm;
  float eps;
  float scale;
  CohortCudaRope rope;
  CohortCudaBatch batch;
  const int32_t* kv_head_of_query; /* host memory */
  int64_t query_heads;
  CohortCudaTensor residual;
  CohortCudaTensor normed;
  CohortCudaTensor partial;
  CohortCudaTensor qkv;
  CohortCudaTensor attended;
  CohortCudaTensor activated;
} CohortCudaDenseStep;

typedef struct CohortCudaDualChunks {
  int64_t chunk_size;
  int64_t chunk_length;
  CohortCudaRope rope;
} CohortCudaDualChunks;

/* A tensor without data is not there. */
typedef struct CohortCudaNextWeights {
  CohortCudaTensor product;
  CohortCudaTensor gate_up;
} CohortCudaNextWeights;

typedef struct CohortCudaRandomFill {
  uint64_t key;
  int64_t stored_columns;
  int64_t first_row;
  int64_t first_column;
  float center;
  float width;
} CohortCudaRandomFill;

typedef struct CohortCudaRouting {
  CohortCudaTensor ids;
  CohortCudaTensor weights;
} CohortCudaRouting;

typedef struct CohortCudaExperts {
  CohortCudaTensor gate_up;
  CohortCudaTensor down;
  int64_t first;
} CohortCudaExperts;

typedef struct CohortCudaExpertScratch {
  CohortCudaTensor gate_up;
  CohortCudaTensor activated;
} CohortCudaExpertScratch;

typedef struct CohortCudaLogitEdit {
  int32_t id;
  int32_t is_repeated;
  float bias;
  float penalty;
} CohortCudaLogitEdit;

/* Both arrays are host memory. */
typedef struct CohortCudaLogitEdits {
  const CohortCudaLogitEdit* ids;
  int64_t id_count;
  const int32_t* allowed;
  int64_t allowed_count;
  float repetition_penalty;
  int32_t only_allowed;
} CohortCudaLogitEdits;

typedef struct CohortCudaVocabularySlice {
  int64_t first_id;
  int64_t valid_ids;
} CohortCudaVocabularySlice;

typedef struct CohortCudaCandidateRequest {
  CohortCudaLogitEdits edits;
  int32_t candidates;
  float temperature;
  int32_t target;
} CohortCudaCandidateRequest;

typedef struct CohortCudaMassRequest {
  CohortCudaLogitEdits edits;
  int32_t row;
  float temperature;
  float largest;
  float lowest;
  uint64_t wanted;
} CohortCudaMassRequest;

typedef struct CohortCudaSamplingRow {
  float temperature;
  float top_p;
  int32_t top_k;
  float min_p;
  uint32_t sequence_index;
  uint64_t seed;
  uint64_t position;
} CohortCudaSamplingRow;

typedef struct CohortCudaRecordedRows {
  CohortCudaTensor records;
  int64_t ranks;
  CohortCudaTensor sampling;
  CohortCudaTensor tokens;
} CohortCudaRecordedRows;

/* cohort::Range, ExchangeView. */
typedef struct CohortCudaRange {
  int64_t begin;
  int64_t end;
} CohortCudaRange;

typedef struct CohortCudaExchange {
  CohortCudaTensor rows;
  CohortCudaTensor counts;
} CohortCudaExchange;

/* A product that mat_mul will be asked for: x [tokens, columns] by weight [rows, columns]. */
typedef struct CohortCudaProduct {
  int64_t rows;
  int64_t columns;
  int64_t tokens;
  int32_t dtype; /* of x and the weight */
  int32_t out_dtype;
  int32_t has_bias; /* of the dtype of out */
} CohortCudaProduct;

/* What tuning did: products whose algorithm the file knew, and products that were measured. `note`
 * is one line about a file that could not be used or written, or empty. */
typedef struct CohortCudaTuning {
  int64_t known;
  int64_t measured;
  char note[kCohortCudaMessageBytes];
} CohortCudaTuning;

typedef struct CohortCudaUniqueId {
  char bytes[kCohortCudaUniqueIdBytes];
} CohortCudaUniqueId;

/* How a rank's GPU reaches another's. */
enum CohortCudaLink {
  kCohortCudaLinkSelf = 0,
  kCohortCudaLinkNvlink = 1,
  kCohortCudaLinkPcie = 2,    /* its memory, over PCIe */
  kCohortCudaLinkSameGpu = 3, /* another rank, the same GPU */
  kCohortCudaLinkHost = 4,    /* the same host, not its memory */
  kCohortCudaLinkNetwork = 5  /* another host */
};

/* When small reductions go over peer memory instead of NCCL. */
enum CohortCudaPeerMode {
  kCohortCudaPeersNever = 0,
  kCohortCudaPeersAuto = 1,  /* where all GPUs are linked by NVLink */
  kCohortCudaPeersAlways = 2 /* where they reach each other's memory at all */
};

/* One rank's place in a group. */
typedef struct CohortCudaGroup {
  int32_t world;
  int32_t rank;
  CohortCudaUniqueId id; /* not needed in a world of one */
  int64_t join_timeout_ms;
  int64_t timeout_ms;     /* of every later wait of the host, and of kernels for peers */
  int32_t peer_mode;      /* CohortCudaPeerMode: reductions over peer memory */
  int64_t one_shot_bytes; /* of messages that go in one or two shots; 0: as is usual */
  int64_t two_shot_bytes;
  int32_t measures_sizes; /* joining finds them by the clock instead */
} CohortCudaGroup;

/* The kernels of a recording: those that wait for another one are pairs with it, in a programmatic
 * one the second may start before the first has ended. */
typedef struct CohortCudaRecordedKernels {
  int64_t count;
  int64_t pairs;
  int64_t programmatic;
} CohortCudaRecordedKernels;

/* One device with its stream, its cuBLASLt handle and its workspaces. */
typedef struct CohortCudaDevice CohortCudaDevice;
/* Copies to a device beside its stream. Must not outlive it. */
typedef struct CohortCudaCopyQueue CohortCudaCopyQueue;
/* A place in a device's stream or copy queue. Must not outlive its device. */
typedef struct CohortCudaMark CohortCudaMark;
/* Work of a device that can be enqueued again. Must not outlive its device. */
typedef struct CohortCudaRecording CohortCudaRecording;
/* One rank's end of an NCCL communicator. Must not outlive its device. */
typedef struct CohortCudaCommunicator CohortCudaCommunicator;

#ifdef __cplusplus
}
#endif

#endif /* COHORT_KERNELS_CUDA_PLUGIN_TYPES_H_ */
