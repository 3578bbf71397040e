#include <CLI/CLI.hpp>

#include "launcher/flags.h"

namespace cohort {
namespace {

void AddMachineFlags(CLI::App& app, PlanOptions& options) {
  constexpr int64_t kMany = 1 << 16;
  AddFlag(app, "--gpus", IntegerInto(options.gpus, 1, kMany), "N",
          "GPUs of all nodes together (default: tp x dp, else 1)");
  AddFlag(app, "--nodes", IntegerInto(options.nodes, 1, kMany), "N",
          "Nodes that the GPUs are spread over (default: 8 GPUs on each)");
  AddFlag(app, "--gpu", TextInto(options.gpu), "NAME",
          "A100, L40S, H100, H200, B200, or CPU for ranks on this machine (default: H200)");
  AddFlag(app, "--gpu-memory", Into(options.gpu_memory_bytes, ParseByteSize), "SIZE",
          "Memory of each GPU in place of that kind's: 24GiB, 96GB, plain bytes");
}

void AddDegreeFlags(CLI::App& app, PlanOptions& options) {
  constexpr int64_t kMany = 1 << 16;
  AddFlag(app, "--tp", IntegerInto(options.tp, 1, kMany), "N",
          "Ranks that each layer is cut over (default: what is best)");
  AddFlag(app, "--dp", IntegerInto(options.dp, 1, kMany), "N",
          "Groups that attend to their own sequences (default: as many as the GPUs hold)");
  AddFlag(app, "--ep", IntegerInto(options.ep, 1, kMany), "N",
          "Groups that hold whole experts (default: what is best)");
}

}  // namespace

void AddPlanFlags(CLI::App& app, PlanOptions& options) {
  constexpr int64_t kMany = int64_t{1} << 24;
  app.add_option(
         "MODEL", options.model,
         "Checkpoint directory, its config.json, pocket, or the name of a published config: "
         "Qwen2-0.5B, Qwen2-1.5B, Qwen2-7B, Qwen2-57B-A14B, Qwen2-72B")
      ->required()
      ->type_name("");
  AddMachineFlags(app, options);
  AddDegreeFlags(app, options);
  AddFlag(app, "--context", IntegerInto(options.context, 1, kMany), "N",
          "Tokens of a sequence that must fit (default: 4096, or the model's length if less)");
  AddFlag(app, "--concurrency", IntegerInto(options.concurrency, 1, 1 << 20), "N",
          "Sequences of that length that must fit at a time (default: 1)");
  AddFlag(app, "--dtype", WordInto(options.dtype, {"fp32", "bf16"}), "DTYPE",
          "fp32 or bf16: of weights, activations and KV (default: as the config says)");
  app.add_flag("--json", options.json, "Print one JSON object");
  AddFlag(app, "--svg", TextInto(options.svg), "FILE", "Draw the ranks and their memory into FILE");
}

}  // namespace cohort
