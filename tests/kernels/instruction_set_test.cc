#include "kernels/cpu/instruction_set.h"

#include <gtest/gtest.h>

#include "kernels/device.h"

namespace cohort {
namespace {

TEST(InstructionSet, TheBestOneIsTheDefault) {
  const std::vector<InstructionSet> supported = SupportedInstructionSets();
  ASSERT_FALSE(supported.empty());
  EXPECT_EQ(supported.front(), InstructionSet::kPortable);
  const absl::StatusOr<InstructionSet> chosen = ChooseInstructionSet("");
  ASSERT_TRUE(chosen.ok()) << chosen.status();
  EXPECT_EQ(*chosen, supported.back());
}

TEST(InstructionSet, IsFoundByItsName) {
  for (const InstructionSet set : SupportedInstructionSets()) {
    const absl::StatusOr<InstructionSet> chosen = ChooseInstructionSet(NameOf(set));
    ASSERT_TRUE(chosen.ok()) << chosen.status();
    EXPECT_EQ(*chosen, set);
  }
}

TEST(InstructionSet, NamesWhatThereIs) {
  const absl::Status unknown = ChooseInstructionSet("mmx").status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(unknown.message(),
            "unknown instruction set \"mmx\": expected portable, avx2, avx512, avx512_bf16");
}

TEST(InstructionSet, IsPartOfTheDevicesDescription) {
  DeviceOptions options;
  options.instruction_set = "portable";
  const absl::StatusOr<std::unique_ptr<Device>> device = Device::Create(options);
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_EQ((*device)->description(), "cpu, 1 thread, portable");
  options.instruction_set = "mmx";
  EXPECT_EQ(Device::Create(options).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace cohort
