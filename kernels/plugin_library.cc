#include "kernels/plugin_library.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_join.h"

namespace cohort {
namespace {

constexpr char kFileName[] = "libcohort_cuda.so";

absl::Status NotUsable(StringView reason, StringView way_out) {
  return absl::FailedPreconditionError(
      absl::StrCat("CUDA is not usable here: ", reason, "; ", way_out, "use --device cpu"));
}

struct Entry {
  const char* name;
  std::size_t offset;
};

// Every function pointer of the table; plugin_device_test holds that none is left out.
#define COHORT_ENTRY(name) \
  Entry { #name, offsetof(CohortCudaTable, name) }
constexpr Entry kEntries[] = {
    COHORT_ENTRY(device_count),
    COHORT_ENTRY(device_properties),
    COHORT_ENTRY(device_create),
    COHORT_ENTRY(device_destroy),
    COHORT_ENTRY(memory_allocate),
    COHORT_ENTRY(memory_free),
    COHORT_ENTRY(copy_from_host),
    COHORT_ENTRY(copy_to_host),
    COHORT_ENTRY(synchronize),
    COHORT_ENTRY(memory_info),
    COHORT_ENTRY(host_memory_allocate),
    COHORT_ENTRY(host_memory_free),
    COHORT_ENTRY(enqueue_copy_from_host),
    COHORT_ENTRY(enqueue_copy_to_host),
    COHORT_ENTRY(host_memory_pin),
    COHORT_ENTRY(host_memory_unpin),
    COHORT_ENTRY(copy_queue_create),
    COHORT_ENTRY(copy_queue_destroy),
    COHORT_ENTRY(copy_queue_enqueue),
    COHORT_ENTRY(mark_create),
    COHORT_ENTRY(mark_destroy),
    COHORT_ENTRY(mark_set),
    COHORT_ENTRY(mark_wait),
    COHORT_ENTRY(recording_begin),
    COHORT_ENTRY(recording_end),
    COHORT_ENTRY(recording_enqueue),
    COHORT_ENTRY(recording_kernels),
    COHORT_ENTRY(recording_destroy),
    COHORT_ENTRY(embed),
    COHORT_ENTRY(rms_norm),
    COHORT_ENTRY(add_rms_norm),
    COHORT_ENTRY(mat_mul),
    COHORT_ENTRY(rope_and_store_kv),
    COHORT_ENTRY(paged_attention),
    COHORT_ENTRY(dual_chunk_attention),
    COHORT_ENTRY(prefetch_weights),
    COHORT_ENTRY(dense_layers),
    COHORT_ENTRY(project_qkv),
    COHORT_ENTRY(project_gate_up),
    COHORT_ENTRY(tune_mat_mul),
    COHORT_ENTRY(silu_multiply),
    COHORT_ENTRY(fill_random),
    COHORT_ENTRY(gather_rows),
    COHORT_ENTRY(route_top_k),
    COHORT_ENTRY(routed_ffn),
    COHORT_ENTRY(count_ids),
    COHORT_ENTRY(add_gated),
    COHORT_ENTRY(local_candidates),
    COHORT_ENTRY(local_masses),
    COHORT_ENTRY(local_pick),
    COHORT_ENTRY(edit_logits),
    COHORT_ENTRY(recorded_candidates),
    COHORT_ENTRY(choose_recorded),
    COHORT_ENTRY(recorded_masses),
    COHORT_ENTRY(recorded_picks),
    COHORT_ENTRY(take_picks),
    COHORT_ENTRY(sample_undecided),
    COHORT_ENTRY(select_ids),
    COHORT_ENTRY(store_tokens),
    COHORT_ENTRY(sample),
    COHORT_ENTRY(unique_id_create),
    COHORT_ENTRY(communicator_create),
    COHORT_ENTRY(communicator_join),
    COHORT_ENTRY(all_reduce_sum),
    COHORT_ENTRY(all_gather),
    COHORT_ENTRY(all_to_all),
    COHORT_ENTRY(all_reduce_add_rms_norm),
    COHORT_ENTRY(barrier),
    COHORT_ENTRY(communicator_links),
    COHORT_ENTRY(communicator_sizes),
    COHORT_ENTRY(communicator_poll),
    COHORT_ENTRY(communicator_abort),
    COHORT_ENTRY(communicator_destroy),
};
#undef COHORT_ENTRY
static_assert(sizeof(kEntries) / sizeof(Entry) * sizeof(void*) ==
                  sizeof(CohortCudaTable) - offsetof(CohortCudaTable, device_count),
              "kEntries must list every entry of the table");

absl::Status CheckEntries(const CohortCudaTable& table) {
  const std::vector<std::string> missing = MissingEntries(table);
  if (missing.empty()) {
    return absl::OkStatus();
  }
  const std::size_t shown = std::min<std::size_t>(missing.size(), 3);
  return NotUsable(
      absl::StrCat("its backend has no ",
                   absl::StrJoin(missing.begin(), missing.begin() + shown, ", "),
                   missing.size() > shown ? absl::StrCat(" and ", missing.size() - shown, " more")
                                          : std::string()),
      "");
}

}  // namespace

std::vector<std::string> PluginPaths() {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) {
    return {};
  }
  const std::filesystem::path folder = program.parent_path();
  return {(folder.parent_path() / "lib" / kFileName).string(), (folder / kFileName).string()};
}

absl::StatusOr<const CohortCudaTable*> LoadPlugin(absl::Span<const std::string> paths) {
  const auto found = std::find_if(paths.begin(), paths.end(), [](const std::string& path) {
    std::error_code error;
    return std::filesystem::exists(path, error);
  });
  if (found == paths.end()) {
    return NotUsable(
        absl::StrCat("there is no ", kFileName, " (looked for ", absl::StrJoin(paths, ", "), ")"),
        "build Cohort where nvcc and NCCL are installed or ");
  }
  void* library = dlopen(found->c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    return NotUsable(absl::StrCat(*found, " cannot be loaded (", dlerror(), ")"),
                     "install the CUDA 13 libraries and NCCL or ");
  }
  const auto function =
      reinterpret_cast<CohortCudaTableFunction>(dlsym(library, COHORT_CUDA_TABLE_SYMBOL));
  if (function == nullptr) {
    return NotUsable(absl::StrCat(*found, " is not a plugin of Cohort (it has no function ",
                                  COHORT_CUDA_TABLE_SYMBOL, ")"),
                     "put back the file this program was built with or ");
  }
  const CohortCudaTable* table = function(kCohortCudaTableVersion);
  if (table == nullptr || table->version != kCohortCudaTableVersion ||
      table->bytes != sizeof(CohortCudaTable)) {
    return NotUsable(absl::StrCat(*found, " does not speak version ",
                                  static_cast<int>(kCohortCudaTableVersion), " of the boundary"),
                     "use the file this program was built with or ");
  }
  return table;
}

std::vector<std::string> MissingEntries(const CohortCudaTable& table) {
  std::vector<std::string> missing;
  for (const Entry& entry : kEntries) {
    void* function = nullptr;
    std::memcpy(&function, reinterpret_cast<const char*>(&table) + entry.offset, sizeof(function));
    if (function == nullptr) {
      missing.emplace_back(entry.name);
    }
  }
  return missing;
}

absl::StatusOr<const CohortCudaTable*> LoadUsablePlugin() {
  ASSIGN_OR_RETURN(const CohortCudaTable* table, LoadPlugin(PluginPaths()));
  RETURN_IF_ERROR(CheckEntries(*table));
  int32_t count = 0;
  const CohortCudaError error = table->device_count(&count);
  if (error.code != kCohortCudaOk) {
    return NotUsable(error.message, "");
  }
  if (count == 0) {
    return NotUsable("there is no CUDA device", "");
  }
  return table;
}

absl::Status FromPlugin(const CohortCudaError& error) {
  switch (error.code) {
    case kCohortCudaOk:
      return absl::OkStatus();
    case kCohortCudaNotUsable:
      return absl::FailedPreconditionError(error.message);
    case kCohortCudaOutOfMemory:
      return absl::ResourceExhaustedError(error.message);
    case kCohortCudaInvalidArgument:
      return absl::InvalidArgumentError(error.message);
    case kCohortCudaDeadline:
      return absl::DeadlineExceededError(error.message);
    case kCohortCudaAborted:
      return absl::AbortedError(error.message);
    case kCohortCudaPeerLost:
      return absl::UnavailableError(error.message);
    default:
      return absl::InternalError(error.message);
  }
}

}  // namespace cohort
