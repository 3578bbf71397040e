// Finds, opens and checks libcohort_cuda.so.
#ifndef COHORT_KERNELS_PLUGIN_LIBRARY_H_
#define COHORT_KERNELS_PLUGIN_LIBRARY_H_

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "kernels/cuda_plugin.h"
#include "kernels/status.h"

namespace cohort {

// Where the plugin may lie, best first: ../lib beside the folder of the running program, then that
// folder itself.
std::vector<std::string> PluginPaths();

// The table of the first of `paths` that exists. The library stays loaded as long as the process
// (CUDA's libraries cannot be unloaded safely), so the pointer never dangles.
// FAILED_PRECONDITION, one line: no such file, a library it needs is missing, another version.
absl::StatusOr<const CohortCudaTable*> LoadPlugin(absl::Span<const std::string> paths);

// The names of the null entries, in the order of the table.
std::vector<std::string> MissingEntries(const CohortCudaTable& table);

// LoadPlugin(PluginPaths()) and everything a device needs: no entry missing, a driver, at least one
// device.
absl::StatusOr<const CohortCudaTable*> LoadUsablePlugin();

// OK for kCohortCudaOk, else the code that fits with the plugin's message.
absl::Status FromPlugin(const CohortCudaError& error);

}  // namespace cohort

#endif  // COHORT_KERNELS_PLUGIN_LIBRARY_H_
