#include "launcher/plan_command.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "absl/strings/str_join.h"
#include "launcher/plan_report.h"
#include "launcher/pocket_checkpoint.h"
#include "runtime/json.h"
#include "runtime/model_config.h"
#include "runtime/planner.h"

namespace cohort {
namespace {

constexpr int kDoesNotFit = 3;

absl::StatusOr<ModelConfig> FindConfig(const std::string& model) {
  ASSIGN_OR_RETURN(const std::string path, ResolveModel(model));
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return LoadModelConfig(path);
  if (std::filesystem::exists(path, ignored)) {
    ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxConfigBytes));
    return ParseModelConfig(text, path);
  }
  if (const char* config = PublishedConfig(model); config != nullptr) {
    return ParseModelConfig(config, model);
  }
  return absl::NotFoundError(absl::StrCat(
      "'", model, "' is neither a checkpoint directory nor a config.json nor a published config (",
      absl::StrJoin(PublishedConfigNames(), ", "), ")"));
}

std::string ModelName(const std::string& model) {
  const std::filesystem::path path(model);
  std::error_code ignored;
  if (std::filesystem::is_regular_file(path, ignored) && path.has_parent_path()) {
    return path.parent_path().filename().string();
  }
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

absl::StatusOr<Hardware> FindMachine(const PlanOptions& options) {
  absl::StatusOr<Hardware> hardware = FindHardware(options.gpu);
  if (!hardware.ok()) return Annotate(hardware.status(), "--gpu");
  if (hardware->is_shared) {
    const int64_t memory = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
    *hardware = WithMemory(*hardware, memory);
  }
  if (options.gpu_memory_bytes.has_value()) {
    *hardware = WithMemory(*hardware, *options.gpu_memory_bytes);
  }
  return hardware;
}

absl::StatusOr<PlanRequest> MakeRequest(const PlanOptions& options) {
  PlanRequest request;
  ASSIGN_OR_RETURN(request.config, FindConfig(options.model));
  const bool is_fp32 = options.dtype.empty() ? request.config.checkpoint_dtype == "float32"
                                             : options.dtype == NameOf(DType::kF32);
  request.dtype = is_fp32 ? DType::kF32 : DType::kBF16;
  ASSIGN_OR_RETURN(request.hardware, FindMachine(options));
  request.gpus = options.gpus.value_or(options.tp.value_or(1) * options.dp.value_or(1));
  request.nodes = options.nodes;
  request.tp = options.tp;
  request.dp = options.dp;
  request.ep = options.ep;
  request.context = options.context;
  request.concurrency = options.concurrency;
  return request;
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  return file ? absl::OkStatus()
              : absl::UnavailableError(absl::StrCat("--svg ", path, " cannot be written"));
}

}  // namespace

absl::StatusOr<PlanOutput> PlanCommand(const PlanOptions& options) {
  ASSIGN_OR_RETURN(const PlanRequest request, MakeRequest(options));
  ASSIGN_OR_RETURN(const Plan plan, MakePlan(request));
  const PlanSubject subject = {.model = ModelName(options.model),
                               .dtype = request.dtype,
                               .hardware = request.hardware,
                               .gpus = request.gpus};
  PlanOutput output;
  output.text = options.json ? PlanJson(subject, plan).dump() + "\n" : PlanTable(subject, plan);
  output.exit_code = plan.best.fits ? 0 : kDoesNotFit;
  if (!options.svg.empty()) {
    RETURN_IF_ERROR(WriteFile(options.svg, PlanSvg(subject, plan.best)));
  }
  return output;
}

int RunPlan(const PlanOptions& options) {
  const absl::StatusOr<PlanOutput> output = PlanCommand(options);
  if (!output.ok()) {
    std::cerr << "cohort: " << output.status().message() << std::endl;
    return 1;
  }
  std::cout << output->text << std::flush;
  return output->exit_code;
}

}  // namespace cohort
