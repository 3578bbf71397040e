#include "launcher/flag_values.h"

#include <gtest/gtest.h>

#include <cmath>

namespace cohort {
namespace {

TEST(ParseDuration, TakesUnitsAndRefusesTheRest) {
  const absl::Duration none = absl::ZeroDuration();
  EXPECT_EQ(*ParseDuration("30s", none), absl::Seconds(30));
  EXPECT_EQ(*ParseDuration("500ms", none), absl::Milliseconds(500));
  EXPECT_EQ(*ParseDuration("2m", none), absl::Minutes(2));
  EXPECT_EQ(*ParseDuration("1h30m", none), absl::Minutes(90));
  for (const char* text : {"", "30", "s", "-1s", "inf", "1 day"}) {
    EXPECT_FALSE(ParseDuration(text, none).ok()) << text;
  }
  EXPECT_FALSE(ParseDuration("0s", absl::Milliseconds(1)).ok());
}

TEST(ParseByteSize, TakesBinaryAndDecimalUnits) {
  EXPECT_EQ(*ParseByteSize("512MiB"), int64_t{512} << 20);
  EXPECT_EQ(*ParseByteSize("1.5GiB"), int64_t{3} << 29);
  EXPECT_EQ(*ParseByteSize("2GB"), 2'000'000'000);
  EXPECT_EQ(*ParseByteSize("4096"), 4096);
  EXPECT_EQ(*ParseByteSize("10 kb"), 10'000);
  for (const char* text : {"", "many", "MiB", "-1", "0", "1EiB", "1.2.3KB", "99999999TiB", "nan"}) {
    EXPECT_FALSE(ParseByteSize(text).ok()) << text;
  }
}

TEST(ParseRopeScaling, TakesAFactorAndTheOriginalLength) {
  EXPECT_EQ(ParseRopeScaling("yarn:4.0:32768")->factor, 4);
  EXPECT_EQ(ParseRopeScaling("yarn:4.0:32768")->original_positions, 32768);
  EXPECT_EQ(ParseRopeScaling("yarn:2.5")->factor, 2.5);
  EXPECT_EQ(ParseRopeScaling("yarn:2.5")->original_positions, 0);
  for (const char* text : {"", "yarn", "yarn:", "yarn:0.5", "yarn:inf", "yarn:4:0", "yarn:4:-1",
                           "yarn:4:32768:1", "linear:4", "4", "yarn:4:x"}) {
    EXPECT_FALSE(ParseRopeScaling(text).ok()) << text;
  }
}

TEST(ParseDualChunks, TakesChunkLocalSizeAndOriginalLength) {
  EXPECT_EQ(ParseDualChunks("8192:1024:32768")->chunk_size, 8192);
  EXPECT_EQ(ParseDualChunks("8192:1024:32768")->local_size, 1024);
  EXPECT_EQ(ParseDualChunks("8192:1024:32768")->original_positions, 32768);
  EXPECT_EQ(ParseDualChunks("2:1")->original_positions, 0);
  for (const char* text : {"", "8192", "8192:", "8:8", "8:9", "8:0", "8:4:0", "8:4:2:1", "8:-4",
                           "x:4", "99999999:4"}) {
    EXPECT_FALSE(ParseDualChunks(text).ok()) << text;
  }
}

TEST(ParseHostPort, TakesNamesAddressesAndBrackets) {
  EXPECT_EQ(ParseHostPort("127.0.0.1:9000")->ToString(), "127.0.0.1:9000");
  EXPECT_EQ(ParseHostPort("localhost:0")->port, 0);
  EXPECT_EQ(ParseHostPort("[::1]:80")->host, "::1");
  EXPECT_EQ(ParseHostPort("[::1]:80")->ToString(), "[::1]:80");
  for (const char* text : {"nowhere", ":9000", "a:", "a:65536", "a:-1", "a:x", "::1:80", "a b:1"}) {
    EXPECT_FALSE(ParseHostPort(text).ok()) << text;
  }
}

TEST(ParseLogitBias, TakesAnIdAndANumberEach) {
  using Biases = std::vector<std::pair<uint32_t, double>>;
  EXPECT_EQ(*ParseLogitBias("1:0.5, 2:-100"), (Biases{{1, 0.5}, {2, -100}}));
  for (const char* text : {"", "1", "1:", ":1", "1:x", "-1:1", "1:1,", "1:1,1:2", "1:1:1"}) {
    EXPECT_FALSE(ParseLogitBias(text).ok()) << text;
  }
}

TEST(ParseTokenIds, TakesListsOfUnsignedIntegers) {
  EXPECT_EQ(*ParseTokenIds("1,2,3"), (std::vector<uint32_t>{1, 2, 3}));
  EXPECT_EQ(*ParseTokenIds(" 7 , 4294967295"), (std::vector<uint32_t>{7, 4294967295}));
  for (const char* text : {"", "1,,2", "1,x", "-1", "4294967296", "1.5", "+1"}) {
    EXPECT_FALSE(ParseTokenIds(text).ok()) << text;
  }
}

TEST(ParseInteger, SaysTheLegalRange) {
  EXPECT_EQ(*ParseInteger("7", 1, 8), 7);
  const absl::Status status = ParseInteger("9", 1, 8).status();
  EXPECT_EQ(status.message(), "'9' is not an integer from 1 to 8");
  EXPECT_FALSE(ParseInteger("two", 1, 8).ok());
}

TEST(ParseReal, LeavesNonFiniteNumbersToTheServer) {
  EXPECT_TRUE(std::isnan(*ParseReal("nan")));
  EXPECT_TRUE(std::isinf(*ParseReal("inf")));
  EXPECT_EQ(*ParseReal("-0.5"), -0.5);
  EXPECT_FALSE(ParseReal("0.5x").ok());
  EXPECT_FALSE(ParseReal("").ok());
}

TEST(FlagValues, GpuMemoryIsAFractionOrASize) {
  EXPECT_EQ(ParseGpuMemory("0.9").value(), (GpuMemoryLimit{.fraction = 0.9, .bytes = 0}));
  EXPECT_EQ(ParseGpuMemory("1").value(), (GpuMemoryLimit{.fraction = 1, .bytes = 0}));
  EXPECT_EQ(ParseGpuMemory("2GB").value(), (GpuMemoryLimit{.fraction = 0, .bytes = 2000000000}));
  for (const char* text : {"", "0", "-1", "nan", "much", "0.9GB of it"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseGpuMemory(text).status())) << text;
  }
}

TEST(FlagValues, ASimulatedRankIsOneOfItsGroup) {
  EXPECT_EQ(ParseSimulatedRank("0/8").value(), (SimulatedRank{.rank = 0, .size = 8}));
  EXPECT_EQ(ParseSimulatedRank("63/64").value(), (SimulatedRank{.rank = 63, .size = 64}));
  for (const char* text : {"", "3", "0/1", "8/8", "-1/8", "1/8/2", "a/b", "0/5000"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseSimulatedRank(text).status())) << text;
  }
}

TEST(FlagValues, SizesOfReductionsAreMeasuredUsualOrTwo) {
  EXPECT_EQ(ParseReductionSizes("measured").value(), ReductionSizes());
  const ReductionSizes usual = {.are_measured = false, .one_shot = 0, .two_shot = 0};
  EXPECT_EQ(ParseReductionSizes("usual").value(), usual);
  const ReductionSizes given = {.are_measured = false, .one_shot = 1 << 18, .two_shot = 1 << 20};
  EXPECT_EQ(ParseReductionSizes("256KiB:1MiB").value(), given);
  for (const char* text : {"", "auto", "1MiB", "1MiB:", ":1MiB", "0:1MiB", "1:2:3"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseReductionSizes(text).status())) << text;
  }
}

}  // namespace
}  // namespace cohort
