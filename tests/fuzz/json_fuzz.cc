// What is read as JSON is written so that it reads the same.
#include "kernels/check.h"
#include "runtime/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const cohort::StringView text(reinterpret_cast<const char*>(data), size);
  const auto json = cohort::ParseJson(text, "input");
  if (!json.ok()) {
    CHECK(absl::IsInvalidArgument(json.status())) << json.status().ToString();
    return 0;
  }
  const std::string dumped = json->Dump();
  const auto again = cohort::ParseJson(dumped, "dump");
  CHECK(again.ok()) << again.status().ToString() << " in " << dumped;
  CHECK_EQ(again->Dump(), dumped);
  return 0;
}
