#include <CLI/CLI.hpp>

#include "launcher/flags.h"

namespace cohort {
namespace {

FlagParser DurationInto(absl::Duration& target, absl::Duration minimum) {
  return Into(target, [minimum](StringView text) { return ParseDuration(text, minimum); });
}

void AddModelFlags(CLI::App& app, ServeOptions& options) {
  app.add_option(
         "MODEL", options.model,
         "Checkpoint directory as Hugging Face writes it, or pocket, the small checkpoint that is "
         "part of this program (default: pocket); with --load-format dummy also the name of a "
         "published config (Qwen2-0.5B, Qwen2-1.5B, Qwen2-7B, Qwen2-57B-A14B, Qwen2-72B)")
      ->type_name("");
  AddFlag(app, "--served-model-name",
          Into(options.served_model_name,
               [](StringView text) -> absl::StatusOr<std::string> { return std::string(text); }),
          "NAME", "Name that requests may give as `model` (default: the directory's name)");
  AddFlag(
      app, "--load-format",
      [&options](StringView text) -> absl::Status {
        std::string format;
        RETURN_IF_ERROR(WordInto(format, {"safetensors", "dummy"})(text));
        options.dummy_weights = format == "dummy";
        return absl::OkStatus();
      },
      "FORMAT",
      "safetensors, or dummy: seeded random weights from config.json alone "
      "(default: safetensors)");
  AddFlag(app, "--dtype", WordInto(options.dtype, {"fp32", "bf16"}), "DTYPE",
          "fp32 or bf16: of weights, activations, KV and reductions (default: fp32 for F32 files, "
          "else bf16)");
  AddFlag(app, "--generation-config", WordInto(options.generation_config, {"auto", "none"}), "WORD",
          "auto: sampling that a request leaves out is as the checkpoint's generation_config.json "
          "says; none: it is greedy. End ids are read either way (default: auto)");
  app.add_flag("--strict", options.strict,
               "Refuse a checkpoint with tensors the model does not have");
}

void AddLongContextFlags(CLI::App& app, ServeOptions& options) {
  AddFlag(app, "--rope-scaling", Into(options.overrides.yarn, ParseRopeScaling),
          "yarn:FACTOR[:ORIGINAL]",
          "YaRN, in place of the checkpoint's rope_scaling: sequences of up to ORIGINAL x FACTOR "
          "tokens, where the model was trained on ORIGINAL (default: what the checkpoint says, and "
          "its original_max_position_embeddings, else max_position_embeddings, for ORIGINAL)");
  AddFlag(
      app, "--yarn",
      [&options](StringView text) -> absl::Status {
        std::string word;
        RETURN_IF_ERROR(WordInto(word, {"always", "auto"})(text));
        options.overrides.yarn_auto = word == "auto";
        return absl::OkStatus();
      },
      "WORD",
      "auto: requests whose prompt and max_tokens fit the original length go without YaRN, so that "
      "short texts lose nothing by it (max_tokens is then what is left of that length, where a "
      "request leaves it out); always: all have YaRN (default: always)");
  AddFlag(app, "--dual-chunk", Into(options.overrides.dual_chunk, ParseDualChunks),
          "CHUNK:LOCAL[:ORIGINAL]",
          "Dual chunk attention, in place of the checkpoint's dual_chunk_attention_config: no "
          "distance appears longer than CHUNK, the nearest LOCAL are always exact, and sequences "
          "over ORIGINAL tokens attend more sharply (default: what the checkpoint says; ORIGINAL: "
          "never). Sequences may be of any length: give --max-model-len");
}

absl::StatusOr<std::string> AbsolutePath(StringView text) {
  if (!text.empty() && text.front() == '/') return std::string(text);
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is no absolute path, which every rank would read alike"));
}

void AddRankFlags(CLI::App& app, ServeOptions& options) {
  AddFlag(app, "--tp", IntegerInto(options.tp, 1, 65536), "N",
          "Ranks that each layer is cut over, from 1 to the number of query heads (default: 1)");
  AddFlag(app, "--dp", IntegerInto(options.dp, 1, 65536), "N",
          "Groups of --tp ranks that serve requests of their own, each with its own KV memory and "
          "limits; --tp x --dp ranks in all, at most 4096 (default: 1)");
  AddFlag(app, "--ep", IntegerInto(options.ep, 1, 65536), "N",
          "Groups of ranks that hold whole experts, each expert cut over the ranks of its group; "
          "it divides the number of ranks (default: 1, every expert cut over all ranks)");
  AddFlag(
      app, "--expert-exchange",
      WordInto(options.expert_exchange, {"auto", "replicated", "all-to-all"}), "WORD",
      "How rows reach their experts: replicated, every rank has the rows of all groups of --dp; "
      "all-to-all, only those with one of its experts (default: auto, which is all-to-all with "
      "--dp of at least 2)");
  AddFlag(app, "--device", WordInto(options.device, {"auto", "cpu", "cuda"}), "DEVICE",
          "auto, cpu or cuda (default: auto, which is cuda where it is available)");
  app.add_flag("--allow-shared-gpu", options.allow_shared_gpu,
               "For tests: let several ranks of a node have the same GPU, where it has fewer GPUs "
               "than ranks; slow, NCCL then goes through sockets");
  app.add_flag(
      "--require-nvlink", options.require_nvlink,
      "Refuse to serve where GPUs of a group on one node do not reach each other by NVLink");
  app.add_flag("--require-rdma", options.require_rdma,
               "Refuse to serve where GPUs of a group on several nodes do not reach each other by "
               "RDMA");
  AddFlag(app, "--peer-reduction", WordInto(options.peer_reduction, {"auto", "never", "always"}),
          "WORD",
          "Small reductions by stores to the memory of the other GPUs of a node instead of NCCL: "
          "never; auto, where NVLink links them all; always, where they reach it at all "
          "(default: auto)");
  AddFlag(
      app, "--reduction-sizes", Into(options.reduction_sizes, ParseReductionSizes),
      "measured|usual|ONE:TWO",
      "Which reductions go over that memory: of messages up to ONE bytes in one exchange, up to "
      "TWO in two; usual: by the number of ranks; measured: what is fastest when a group meets "
      "(default: measured)");
  AddFlag(app, "--product-tuning", WordInto(options.product_tuning, {"auto", "on", "off"}), "WORD",
          "Whether a GPU's rank chooses the algorithms of large products by the clock before it "
          "loads the weights: on, off, or auto, which is on (default: auto)");
  AddFlag(app, "--tuning-file", Into(options.tuning_file, AbsolutePath), "FILE",
          "Keeps these algorithms, so that each is timed once per machine; the same path on every "
          "node (default: cohort/products.txt in the user's cache)");
  AddFlag(app, "--recorded-steps", WordInto(options.recorded_steps, {"auto", "on", "off"}), "WORD",
          "Whether decode steps are recorded once per size and then repeated by the device, one "
          "ahead of what the host has read: on, off, or auto, which is on with cuda and off with "
          "cpu, which gains nothing by it (default: auto)");
  AddFlag(app, "--persistent-step", WordInto(options.persistent_steps, {"auto", "on", "off"}),
          "WORD",
          "Whether all layers of a decode step of up to 8 sequences are one GPU kernel, where one "
          "GPU has the whole of a dense model: on, off, or auto, where layers are small (up to 128 "
          "MiB) and no other rank may share the GPU (default: auto)");
  AddFlag(
      app, "--embedding-memory", WordInto(options.embedding_memory, {"auto", "device", "host"}),
      "WORD",
      "Where the embedding of a GPU's rank lies: device; host, pinned memory that the GPU reads "
      "rows of; auto, host where the device would have too little room (default: auto)");
  AddFlag(app, "--simulate-rank", Into(options.simulated, ParseSimulatedRank), "R/N",
          "For benchmarks: one rank serves alone with the slices of rank R of --tp N and "
          "collectives that do nothing; its tokens mean nothing");
  AddFlag(app, "--threads", IntegerInto(options.threads, 1, 4096), "N",
          "Threads of each rank (default: allowed cores / local ranks, at least 1)");
  AddFlag(app, "--step-timeout", DurationInto(options.step_timeout, absl::Milliseconds(1)),
          "DURATION", "A step that takes longer is taken for a lost rank (default: 300s)");
}

void AddLimitFlags(CLI::App& app, ServeOptions& options) {
  constexpr int64_t kMany = 1 << 20;
  AddFlag(app, "--max-model-len", IntegerInto(options.max_model_len, 1, int64_t{1} << 31), "N",
          "Tokens of a prompt and its completion together (default: max_position_embeddings, with "
          "YaRN the original length x its factor)");
  AddFlag(app, "--max-running", IntegerInto(options.max_running, 1, kMany), "N",
          "Sequences in progress at a time in each group of --dp (default: 256)");
  AddFlag(app, "--max-waiting", IntegerInto(options.max_waiting, 1, kMany), "N",
          "Requests in the queue before more are refused (default: 1024)");
  AddFlag(app, "--max-waiting-tokens", IntegerInto(options.max_waiting_tokens, 1, int64_t{1} << 40),
          "N", "Tokens in the queue before more are refused (default: 4194304)");
  AddFlag(app, "--max-batch-tokens", IntegerInto(options.max_batch_tokens, 1, kMany), "N",
          "Tokens computed in one step by each group of --dp (default: 512)");
  AddFlag(app, "--max-prefill-tokens", IntegerInto(options.max_prefill_tokens, 1, kMany), "N",
          "Prompt tokens of a step that also continues answers; fewer keep the pauses between "
          "their tokens shorter (default: 256)");
  AddFlag(app, "--kv-memory", Into(options.kv_memory_bytes, ParseByteSize), "SIZE",
          "KV memory of each rank: 512MiB, 2GB, plain bytes (default: 512MiB; with cuda what "
          "--gpu-memory leaves)");
  AddFlag(app, "--gpu-memory", Into(options.gpu_memory, ParseGpuMemory), "SIZE|FRACTION",
          "What each rank may take of its GPU, the reserve of `cohort plan` included: 140GB, 0.9 "
          "(default: all of it)");
  AddFlag(app, "--block-size", IntegerInto(options.block_size, 1, 4096), "N",
          "Tokens of one KV block (default: 16)");
  app.add_flag_callback(
      "--no-prefix-cache", [&options] { options.prefix_caching = false; },
      "Compute every prompt from its first token, also where it begins like an earlier one");
  app.add_flag("--deterministic", options.deterministic,
               "Serve only where every result is equal to the bit whatever is computed beside it, "
               "in whatever chunks: CPU ranks always are, at no cost; CUDA ranks are refused");
  app.add_flag_callback(
      "--no-mask-padding", [&options] { options.mask_padding = false; },
      "Let ids without a token (vocabulary padding) be chosen, as transformers does");
}

absl::StatusOr<std::string> AnyWord(StringView text) {
  if (text.empty()) return absl::InvalidArgumentError("it is empty");
  return std::string(text);
}

void AddJoinTokenFlags(CLI::App& app, JoinTokenOptions& options) {
  AddFlag(
      app, "--join-token", Into(options.value, AnyWord), "TOKEN",
      "Secret that the nodes of a group share; other users of this machine can see it in ps, so "
      "prefer the file or the environment variable COHORT_JOIN_TOKEN");
  AddFlag(app, "--join-token-file", Into(options.file, AnyWord), "FILE",
          "File that holds the join token");
}

void AddClusterFlags(CLI::App& app, ServeOptions& options) {
  AddFlag(
      app, "--agents", IntegerInto(options.agents, 1, 4096), "N",
      "Nodes that share the ranks, this one included; the others run `cohort node` (default: 1)");
  AddFlag(
      app, "--cluster-listen", Into(options.cluster_listen, ParseHostPort), "HOST:PORT",
      "Address of this machine where other nodes join; needs --agents of at least 2, and a join "
      "token unless HOST is loopback. Port 0 picks one");
  AddJoinTokenFlags(app, options.join_token);
  AddFlag(app, "--agents-timeout", DurationInto(options.agents_timeout, absl::Milliseconds(1)),
          "DURATION", "How long the other nodes may take to join at the start (default: 10m)");
  AddFlag(app, "--agent-timeout", DurationInto(options.agent_timeout, absl::Milliseconds(100)),
          "DURATION", "A node that is silent for so long is lost (default: 1500ms)");
}

}  // namespace

void AddNodeFlags(CLI::App& app, NodeOptions& options) {
  AddFlag(app, "--join", Into(options.join, ParseHostPort), "HOST:PORT",
          "Address of the coordinator's --cluster-listen")
      ->required();
  AddFlag(app, "--name", Into(options.name, AnyWord), "NAME",
          "Name of this node in the group (default: the host's name and the process id)");
  AddFlag(app, "--model", Into(options.model, AnyWord), "DIR",
          "This machine's path of the checkpoint (default: the coordinator's path)");
  AddFlag(app, "--address", Into(options.address, AnyWord), "HOST",
          "Address of this machine that the ranks of other nodes reach (default: the one that "
          "leads to the coordinator)");
  AddJoinTokenFlags(app, options.join_token);
  AddFlag(app, "--join-timeout", DurationInto(options.join_timeout, absl::Milliseconds(1)),
          "DURATION",
          "How long to try to join, at first and after the coordinator is lost (default: 10m)");
}

void AddServeFlags(CLI::App& app, ServeOptions& options) {
  AddModelFlags(app, options);
  AddLongContextFlags(app, options);
  AddRankFlags(app, options);
  AddLimitFlags(app, options);
  AddClusterFlags(app, options);
  AddFlag(app, "--listen", Into(options.listen, ParseHostPort), "HOST:PORT",
          "Address of the gRPC services; port 0 picks one (default: 127.0.0.1:9000)");
  AddFlag(app, "--drain-timeout", DurationInto(options.drain_timeout, absl::ZeroDuration()),
          "DURATION", "How long SIGTERM lets running requests finish (default: 30s)");
  app.add_flag_callback(
      "--no-reflection", [&options] { options.reflection = false; },
      "Do not serve gRPC reflection");
}

}  // namespace cohort
