#include "kernels/plugin_library.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <link.h>

#include <array>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "kernels/device.h"
#include "kernels/plugin_device.h"

namespace cohort {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// The layout both sides were compiled against; a change here must raise the version.
static_assert(kCohortCudaTableVersion == 5);
static_assert(sizeof(CohortCudaError) == 516);
static_assert(sizeof(CohortCudaTensor) == 56);
static_assert(offsetof(CohortCudaTensor, dims) == 8);
static_assert(offsetof(CohortCudaTensor, row_stride) == 40);
static_assert(offsetof(CohortCudaTensor, dtype) == 48);
static_assert(offsetof(CohortCudaTensor, rank) == 52);
static_assert(sizeof(CohortCudaProperties) == 168);
static_assert(sizeof(CohortCudaBatch) == 32 + 6 * sizeof(CohortCudaTensor));
static_assert(sizeof(CohortCudaKv) == 2 * sizeof(CohortCudaTensor));
static_assert(sizeof(CohortCudaRope) == 8 + 2 * sizeof(CohortCudaTensor));
static_assert(sizeof(CohortCudaSamplingRow) == 40);
static_assert(sizeof(CohortCudaLogitEdits) == 40);
static_assert(sizeof(CohortCudaCandidateRequest) == 56);
static_assert(sizeof(CohortCudaMassRequest) == 64);
static_assert(sizeof(CohortCudaRange) == 16);
static_assert(sizeof(CohortCudaUniqueId) == 128);
static_assert(sizeof(CohortCudaGroup) == 56 + sizeof(CohortCudaUniqueId));
static_assert(offsetof(CohortCudaTable, version) == 0);
static_assert(offsetof(CohortCudaTable, bytes) == 4);
static_assert(offsetof(CohortCudaTable, device_count) == 8);
static_assert(sizeof(CohortCudaTable) == 8 + 73 * sizeof(void*));

std::string BuiltPlugin() { return std::string(COHORT_BINARY_DIR) + "/lib/libcohort_cuda.so"; }

bool IsBuilt() { return std::filesystem::exists(BuiltPlugin()); }

// Whether the libraries that the plugin needs are here too.
bool IsLoadable() { return IsBuilt() && LoadPlugin({BuiltPlugin()}).ok(); }

void ExpectOneLineReason(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  const std::string message(status.message());
  EXPECT_THAT(message, HasSubstr("CUDA is not usable here: "));
  EXPECT_THAT(message, HasSubstr("use --device cpu"));
  EXPECT_THAT(message, Not(HasSubstr("\n")));
}

// Where the loader found a library that this program uses.
std::string PathOf(const char* library_name) {
  void* library = dlopen(library_name, RTLD_NOW | RTLD_NOLOAD);
  if (library == nullptr) {
    return "";
  }
  link_map* map = nullptr;
  const std::string path = dlinfo(library, RTLD_DI_LINKMAP, &map) == 0 ? map->l_name : "";
  dlclose(library);
  return path;
}

TEST(LoadPlugin, SaysWhereItLookedForAMissingFile) {
  const absl::Status status = LoadPlugin({"/nowhere/a.so", "/nowhere/b.so"}).status();
  ExpectOneLineReason(status);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nowhere/a.so, /nowhere/b.so"));
}

TEST(LoadPlugin, PassesOnWhyALibraryCannotBeLoaded) {
  const std::string path = testing::TempDir() + "/cohort_not_a_library.so";
  std::ofstream(path) << "text";
  const absl::Status status = LoadPlugin({path}).status();
  std::filesystem::remove(path);
  ExpectOneLineReason(status);
  EXPECT_THAT(std::string(status.message()), HasSubstr(path + " cannot be loaded ("));
}

TEST(LoadPlugin, RefusesALibraryWithoutTheTable) {
  const std::string path = PathOf("libstdc++.so.6");
  if (path.empty()) {
    GTEST_SKIP() << "the C++ library is linked statically";
  }
  const absl::Status status = LoadPlugin({path}).status();
  ExpectOneLineReason(status);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no function cohort_cuda_table"));
}

TEST(PluginPaths, AreRelativeToTheProgram) {
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe");
  const std::string folder = program.parent_path().string();
  const std::string parent = program.parent_path().parent_path().string();
  EXPECT_THAT(PluginPaths(),
              ElementsAre(parent + "/lib/libcohort_cuda.so", folder + "/libcohort_cuda.so"));
}

TEST(MissingEntries, NamesNullEntriesInOrder) {
  CohortCudaTable table;
  std::memset(&table, 1, sizeof(table));
  EXPECT_THAT(MissingEntries(table), IsEmpty());
  table.sample = nullptr;
  table.embed = nullptr;
  EXPECT_THAT(MissingEntries(table), ElementsAre("embed", "sample"));
  table = {};
  const std::vector<std::string> all = MissingEntries(table);
  ASSERT_EQ(all.size(), 73u);
  EXPECT_EQ(all.front(), "device_count");
  EXPECT_EQ(all.back(), "communicator_destroy");
}

TEST(FromPlugin, GivesEveryCodeItsStatus) {
  const auto code_of = [](int32_t code) {
    CohortCudaError error{};
    error.code = code;
    std::strcpy(error.message, "why");
    const absl::Status status = FromPlugin(error);
    EXPECT_EQ(status.message(), code == kCohortCudaOk ? "" : "why");
    return status.code();
  };
  EXPECT_EQ(code_of(kCohortCudaOk), absl::StatusCode::kOk);
  EXPECT_EQ(code_of(kCohortCudaNotUsable), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(code_of(kCohortCudaOutOfMemory), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(code_of(kCohortCudaInvalidArgument), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code_of(kCohortCudaDeadline), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(code_of(kCohortCudaAborted), absl::StatusCode::kAborted);
  EXPECT_EQ(code_of(kCohortCudaPeerLost), absl::StatusCode::kUnavailable);
  EXPECT_EQ(code_of(kCohortCudaFailed), absl::StatusCode::kInternal);
}

TEST(PluginAvailable, IsOkOrSaysInOneLineWhatIsMissing) {
  const absl::Status status = PluginAvailable();
  if (status.ok()) {
    EXPECT_TRUE(MakePluginDevice({}).ok());
    return;
  }
  ExpectOneLineReason(status);
  EXPECT_EQ(MakePluginDevice({}).status(), status);
  if (!IsBuilt()) {
    EXPECT_THAT(std::string(status.message()), HasSubstr("there is no libcohort_cuda.so"));
  }
}

TEST(PluginAvailable, NamesTheMissingDriver) {
  const bool has_driver = std::filesystem::exists("/proc/driver/nvidia/version");
  if (!IsLoadable() || has_driver || PluginAvailable().ok()) {  // the last: an emulated GPU
    GTEST_SKIP() << "needs the plugin and a host without a driver";
  }
  EXPECT_THAT(std::string(PluginAvailable().message()), HasSubstr("no NVIDIA driver"));
}

TEST(MakePluginDevice, RefusesAnOrdinalThatIsNotThere) {
  if (!PluginAvailable().ok()) {
    GTEST_SKIP() << PluginAvailable();
  }
  EXPECT_EQ(MakePluginDevice({.index = -1}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MakePluginDevice({.index = 1000}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(BuiltPlugin, FillsTheTableOfItsVersionOnly) {
  if (!IsLoadable()) {
    GTEST_SKIP() << "the plugin is not built or cannot be loaded here";
  }
  EXPECT_THAT(MissingEntries(**LoadPlugin({BuiltPlugin()})), IsEmpty());
  void* library = dlopen(BuiltPlugin().c_str(), RTLD_NOW | RTLD_NOLOAD);
  ASSERT_NE(library, nullptr);
  const auto function =
      reinterpret_cast<CohortCudaTableFunction>(dlsym(library, COHORT_CUDA_TABLE_SYMBOL));
  ASSERT_NE(function, nullptr);
  EXPECT_EQ(function(0), nullptr);
  EXPECT_EQ(function(kCohortCudaTableVersion + 1), nullptr);
  EXPECT_NE(function(kCohortCudaTableVersion), nullptr);
  dlclose(library);
}

TEST(BuiltPlugin, ExportsOneSymbol) {
  if (!IsBuilt()) {
    GTEST_SKIP() << "the plugin is not built";
  }
  const std::string command = "nm -D --defined-only '" + BuiltPlugin() + "' 2>/dev/null";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  ASSERT_NE(pipe, nullptr);
  std::vector<std::string> symbols;
  std::array<char, 1024> line;
  while (std::fgets(line.data(), line.size(), pipe.get()) != nullptr) {
    const std::string text(line.data());
    const std::size_t name = text.rfind(' ') + 1;
    symbols.push_back(text.substr(name, text.find('\n') - name));
  }
  if (symbols.empty()) {
    GTEST_SKIP() << "no nm here";
  }
  EXPECT_THAT(symbols, ElementsAre("cohort_cuda_table"));
}

}  // namespace
}  // namespace cohort
