// One suite for every communicator: a group of one, threads, processes, several hosts.
#include "parallel/communicator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "kernels/bfloat16.h"
#include "kernels/device.h"
#include "tests/parallel/fork_ranks.h"
#include "tests/parallel/spawn_gpu_ranks.h"
#include "tests/parallel/spawn_hosts.h"
#include "tests/parallel/spawn_ranks.h"

namespace cohort {
namespace {

using Body = std::function<void(Communicator&)>;

struct Group {
  std::string name;
  int size;
  std::function<void(const Body&)> run;
};

void PrintTo(const Group& group, std::ostream* out) { *out << group.name << group.size; }

Group Self() {
  return {"Self", 1, [](const Body& body) { body(*MakeSelfCommunicator()); }};
}

Group Threads(int size) {
  return {"Threads", size, [size](const Body& body) { SpawnRanks(size, body); }};
}

Group Processes(int size, int spin_iterations) {
  return {spin_iterations > 0 ? "Spinning" : "Sleeping", size,
          [size, spin_iterations](const Body& body) {
            ForkRanks({.size = size, .spin_iterations = spin_iterations}, body);
          }};
}

Group Hosts(const std::string& name, const std::vector<int>& ranks_of_hosts) {
  const int size = std::accumulate(ranks_of_hosts.begin(), ranks_of_hosts.end(), 0);
  return {"Hosts" + name + "Of", size,
          [ranks_of_hosts](const Body& body) { SpawnHosts(ranks_of_hosts, body); }};
}

// Empty without a GPU for every rank.
std::vector<Group> GpuGroups() {
  std::vector<Group> groups;
  for (const int size : {2, 3, 4}) {
    for (const PeerReduction reduction : {PeerReduction::kNever, PeerReduction::kAlways}) {
      if (!HaveGpus(size)) {
        continue;
      }
      PluginCommunicatorOptions options;
      options.peer_reduction = reduction;
      groups.push_back({reduction == PeerReduction::kNever ? "Gpus" : "PeerGpus", size,
                        [size, options](const Body& body) {
                          SpawnGpuRanks(size, options, [&](Device& device, Communicator& group) {
                            StagedCommunicator staged(device, group);
                            body(staged);
                          });
                        }});
    }
  }
  return groups;
}

class CommunicatorTest : public testing::TestWithParam<Group> {};

std::string GroupName(const testing::TestParamInfo<Group>& info) {
  return info.param.name + std::to_string(info.param.size);
}

INSTANTIATE_TEST_SUITE_P(InProcess, CommunicatorTest,
                         testing::Values(Self(), Threads(2), Threads(3), Threads(5)), GroupName);
INSTANTIATE_TEST_SUITE_P(HostProcess, CommunicatorTest,
                         testing::Values(Processes(1, 0), Processes(2, 0), Processes(2, 2000),
                                         Processes(3, 0), Processes(5, 0)),
                         GroupName);

INSTANTIATE_TEST_SUITE_P(Nccl, CommunicatorTest, testing::ValuesIn(GpuGroups()), GroupName);
INSTANTIATE_TEST_SUITE_P(Gloo, CommunicatorTest,
                         testing::Values(Hosts("1and1", {1, 1}), Hosts("2and1", {2, 1}),
                                         Hosts("1and2and1", {1, 2, 1})),
                         GroupName);

// More than two buffers full, and no multiple of anything.
constexpr int64_t kManyElements = 2 * 65536 + 13;

// The same values wherever they are computed; magnitudes so different that every change in the
// order of a sum shows.
template <class T>
std::vector<T> ValuesOfRank(int rank, int64_t count) {
  std::mt19937 generator(static_cast<uint32_t>(17 + rank));
  std::uniform_real_distribution<float> mantissa(-1, 1);
  std::vector<T> values(count);
  for (T& value : values) {
    value = FromFloat<T>(std::ldexp(mantissa(generator), static_cast<int>(generator() % 24)));
  }
  return values;
}

template <class T>
std::vector<T> SumOverRanks(int ranks, int64_t count) {
  std::vector<std::vector<T>> values;
  for (int rank = 0; rank < ranks; ++rank) {
    values.push_back(ValuesOfRank<T>(rank, count));
  }
  std::vector<T> sums(count);
  for (int64_t i = 0; i < count; ++i) {
    float sum = ToFloat(values[0][i]);
    for (int rank = 1; rank < ranks; ++rank) {
      sum += ToFloat(values[rank][i]);
    }
    sums[i] = FromFloat<T>(sum);
  }
  return sums;
}

template <class T>
void ExpectSameBits(const std::vector<T>& actual, const std::vector<T>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_EQ(std::memcmp(&actual[i], &expected[i], sizeof(T)), 0)
        << "element " << i << " of " << actual.size() << ": " << ToFloat(actual[i]) << " vs "
        << ToFloat(expected[i]);
  }
}

template <class T>
void ExpectAllReduceSumsInRankOrder(Communicator& group, int64_t count) {
  std::vector<T> values = ValuesOfRank<T>(group.rank(), count);
  group.AllReduceSum(TensorView(values.data(), DTypeOf<T>(), {count}));
  ASSERT_TRUE(group.status().ok()) << group.status();
  ExpectSameBits(values, SumOverRanks<T>(group.size(), count));
}

TEST_P(CommunicatorTest, KnowsItsPlace) {
  GetParam().run([](Communicator& group) {
    EXPECT_EQ(group.size(), GetParam().size);
    EXPECT_GE(group.rank(), 0);
    EXPECT_LT(group.rank(), group.size());
    EXPECT_TRUE(group.status().ok());
  });
}

TEST_P(CommunicatorTest, AllReduceSumsInRankOrderToTheBit) {
  GetParam().run([](Communicator& group) {
    for (const int64_t count : {int64_t{0}, int64_t{1}, int64_t{7}, int64_t{8192}, int64_t{8193},
                                int64_t{20000}, kManyElements}) {
      SCOPED_TRACE(count);
      ExpectAllReduceSumsInRankOrder<float>(group, count);
      ExpectAllReduceSumsInRankOrder<BFloat16>(group, count);
    }
  });
}

// Column c of row r of the gathered matrix.
int32_t GatheredValue(int64_t row, int64_t column) {
  return static_cast<int32_t>(row * 1000003 + column);
}

// Shards and output lie inside wider matrices, whose other columns must not change.
template <class T>
void ExpectAllGather(Communicator& group, int64_t rows, const std::vector<Range>& parts) {
  constexpr int64_t kMargin = 3;
  const Range part = parts[group.rank()];
  const int64_t columns = parts.back().end;
  const auto value = [](int64_t row, int64_t column) {
    return FromFloat<T>(static_cast<float>(GatheredValue(row, column)));
  };
  const T untouched = FromFloat<T>(-1);
  const int64_t shard_stride = part.size() + kMargin;
  const int64_t out_stride = columns + kMargin;
  std::vector<T> shard(rows * shard_stride + 1, untouched);
  std::vector<T> out(rows * out_stride + 1, untouched);
  std::vector<T> expected = out;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      expected[row * out_stride + column] = value(row, column);
      if (column >= part.begin && column < part.end) {
        shard[row * shard_stride + column - part.begin] = value(row, column);
      }
    }
  }
  group.AllGather(TensorView(shard.data(), DTypeOf<T>(), {rows, part.size()}, shard_stride), parts,
                  TensorView(out.data(), DTypeOf<T>(), {rows, columns}, out_stride));
  ASSERT_TRUE(group.status().ok()) << group.status();
  ExpectSameBits(out, expected);
}

// `lengths` are repeated over the ranks.
std::vector<Range> Parts(int ranks, const std::vector<int64_t>& lengths) {
  std::vector<Range> parts;
  int64_t begin = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    const int64_t end = begin + lengths[rank % lengths.size()];
    parts.push_back({begin, end});
    begin = end;
  }
  return parts;
}

TEST_P(CommunicatorTest, AllGatherJoinsUnevenAndEmptyPartsOfStridedRows) {
  GetParam().run([](Communicator& group) {
    for (const int64_t rows : {0, 1, 7}) {
      for (const std::vector<int64_t>& lengths :
           std::vector<std::vector<int64_t>>{{0}, {1}, {7, 0, 1}, {0, 5}, {64, 63}}) {
        SCOPED_TRACE(testing::Message() << rows << " rows, first part " << lengths[0]);
        ExpectAllGather<float>(group, rows, Parts(group.size(), lengths));
        ExpectAllGather<BFloat16>(group, rows, Parts(group.size(), lengths));
      }
    }
  });
}

TEST_P(CommunicatorTest, AllGatherMovesMoreThanABuffer) {
  GetParam().run([](Communicator& group) {
    // 3 * 40,001 elements of the even ranks, 3 * 5 of the odd ones, chunk borders inside rows.
    ExpectAllGather<float>(group, 3, Parts(group.size(), {40001, 5}));
    ExpectAllGather<BFloat16>(group, 2, Parts(group.size(), {0, 140001}));
  });
}

TEST_P(CommunicatorTest, AllGatherCarriesIntegers) {
  GetParam().run([](Communicator& group) {
    const std::vector<Range> parts = Parts(group.size(), {2, 1});
    const Range part = parts[group.rank()];
    std::vector<int32_t> shard;
    std::vector<int32_t> expected;
    for (int64_t column = 0; column < parts.back().end; ++column) {
      expected.push_back(GatheredValue(9, column));
      if (column >= part.begin && column < part.end) {
        shard.push_back(expected.back());
      }
    }
    std::vector<int32_t> out(expected.size());
    group.AllGather(TensorView(shard.data(), DType::kI32, {1, part.size()}), parts,
                    TensorView(out.data(), DType::kI32, {1, parts.back().end}));
    EXPECT_EQ(out, expected);
  });
}

TEST_P(CommunicatorTest, AllGatherTakesAShardThatAlreadyLiesInTheOutput) {
  GetParam().run([](Communicator& group) {
    const std::vector<Range> parts = Parts(group.size(), {3, 2});
    const Range part = parts[group.rank()];
    std::vector<float> out(parts.back().end, -1.0f);
    std::vector<float> expected(parts.back().end);
    for (size_t i = 0; i < expected.size(); ++i) {
      expected[i] = static_cast<float>(i);
    }
    std::copy(expected.begin() + part.begin, expected.begin() + part.end, out.begin() + part.begin);
    const TensorView view(out.data(), DType::kF32, {1, parts.back().end});
    group.AllGather(view.Columns(part.begin, part.size()), parts, view);
    EXPECT_EQ(out, expected);
  });
}

// Row i of those that `from` sends to `to`.
template <class T>
T ExchangedValue(int from, int to, int64_t i, int64_t column) {
  return FromFloat<T>(static_cast<float>((from * 8 + to) * 16 + i % 16 + column % 2));
}

// counts(from, to) rows; the rows beyond them must not change.
template <class T>
void ExpectAllToAll(Communicator& group, int64_t capacity, int64_t columns,
                    const std::function<int32_t(int from, int to)>& counts) {
  const T untouched = FromFloat<T>(-1);
  const size_t elements = static_cast<size_t>(group.size() * capacity * columns);
  std::vector<T> sent(elements, untouched), received(elements, untouched);
  std::vector<T> expected(elements, untouched);
  std::vector<int32_t> sent_counts, received_counts(static_cast<size_t>(group.size()), -1);
  std::vector<int32_t> expected_counts;
  for (int peer = 0; peer < group.size(); ++peer) {
    sent_counts.push_back(counts(group.rank(), peer));
    expected_counts.push_back(counts(peer, group.rank()));
    for (int64_t i = 0; i < capacity * columns; ++i) {
      const size_t index = static_cast<size_t>(peer * capacity * columns + i);
      const int64_t row = i / columns;
      if (row < sent_counts.back()) {
        sent[index] = ExchangedValue<T>(group.rank(), peer, row, i % columns);
      }
      if (row < expected_counts.back()) {
        expected[index] = ExchangedValue<T>(peer, group.rank(), row, i % columns);
      }
    }
  }
  const auto view = [&](std::vector<T>& rows, std::vector<int32_t>& row_counts) {
    return ExchangeView{
        .rows = TensorView(rows.data(), DTypeOf<T>(), {group.size() * capacity, columns}),
        .counts = TensorView(row_counts.data(), DType::kI32, {group.size()})};
  };
  group.AllToAll(view(sent, sent_counts), view(received, received_counts));
  ASSERT_TRUE(group.status().ok()) << group.status();
  EXPECT_EQ(received_counts, expected_counts);
  ExpectSameBits(received, expected);
}

TEST_P(CommunicatorTest, AllToAllBringsEveryRankWhatTheOthersSendIt) {
  GetParam().run([](Communicator& group) {
    const auto uneven = [](int from, int to) { return (from * 3 + to * 5) % 4; };
    const auto nothing = [](int, int) { return 0; };
    const auto everything = [](int, int) { return 4; };
    const auto to_one = [](int, int to) { return to == 0 ? 4 : 0; };
    const auto from_one = [](int from, int) { return from == 0 ? 4 : 0; };
    for (const std::function<int32_t(int, int)>& counts :
         std::vector<std::function<int32_t(int, int)>>{uneven, nothing, everything, to_one,
                                                       from_one}) {
      ExpectAllToAll<float>(group, 4, 5, counts);
      ExpectAllToAll<BFloat16>(group, 4, 3, counts);
    }
    ExpectAllToAll<float>(group, 0, 5, nothing);
  });
}

TEST_P(CommunicatorTest, AllToAllMovesMoreThanABuffer) {
  GetParam().run([](Communicator& group) {
    // Up to 416,000 bytes from rank to rank, of buffers of 262,144 for all of them.
    const auto uneven = [](int from, int to) { return (from + 2 * to) % 3 == 0 ? 104 : from; };
    ExpectAllToAll<float>(group, 110, 1000, uneven);
    ExpectAllToAll<BFloat16>(group, 110, 1001, uneven);
  });
}

// Every round has its own values, so a buffer reused too early or a wait that ends too early shows.
TEST_P(CommunicatorTest, BackToBackCollectivesDoNotMix) {
  GetParam().run([](Communicator& group) {
    constexpr int kRounds = 1000;
    for (int round = 0; round < kRounds; ++round) {
      const int64_t count = round % 50 == 0 ? 10000 : round % 7;  // two steps, one step, none
      std::vector<float> values(count, static_cast<float>(round + group.rank()));
      group.AllReduceSum(TensorView(values.data(), DType::kF32, {count}));
      const float sum =
          static_cast<float>(group.size() * round + group.size() * (group.size() - 1) / 2);
      ASSERT_EQ(values, std::vector<float>(count, sum)) << "round " << round;
      if (round % 3 == 0) {
        const std::vector<Range> parts = Parts(group.size(), {1});
        int32_t mine = round * 10 + group.rank();
        std::vector<int32_t> all(group.size());
        group.AllGather(TensorView(&mine, DType::kI32, {1, 1}), parts,
                        TensorView(all.data(), DType::kI32, {1, group.size()}));
        for (int rank = 0; rank < group.size(); ++rank) {
          ASSERT_EQ(all[rank], round * 10 + rank) << "round " << round;
        }
      }
      if (round % 7 == 0) {
        const auto counts = [round](int from, int to) { return (round + from + to) % 3; };
        ExpectAllToAll<float>(group, 3, 2, counts);
      }
      if (round % 5 == 0) {
        group.Barrier();
      }
    }
    EXPECT_TRUE(group.status().ok()) << group.status();
  });
}

TEST_P(CommunicatorTest, AnAbortSticksAndEveryLaterCallReturns) {
  GetParam().run([](Communicator& group) {
    group.Barrier();
    group.Abort();
    group.Abort();
    EXPECT_EQ(group.status().code(), absl::StatusCode::kAborted);
    std::vector<float> values(kManyElements);
    group.AllReduceSum(TensorView(values.data(), DType::kF32, {kManyElements}));
    std::vector<int32_t> counts(static_cast<size_t>(group.size()));
    const ExchangeView exchange = {
        .rows = TensorView(values.data(), DType::kF32, {group.size(), 1}),
        .counts = TensorView(counts.data(), DType::kI32, {group.size()})};
    group.AllToAll(exchange, exchange);
    group.Barrier();
    EXPECT_EQ(group.status().code(), absl::StatusCode::kAborted) << group.status();
  });
}

TEST_P(CommunicatorTest, AllReduceAddRmsNormIsTheReductionAndThenTheOperation) {
  GetParam().run([](Communicator& group) {
    absl::StatusOr<std::unique_ptr<Device>> device = Device::Create({});
    ASSERT_TRUE(device.ok()) << device.status();
    constexpr int64_t kHidden = 24;
    std::vector<float> x = ValuesOfRank<float>(group.rank(), 2 * kHidden);
    std::vector<float> sum = SumOverRanks<float>(group.size(), 2 * kHidden);
    std::vector<float> gamma = ValuesOfRank<float>(40, kHidden);
    std::vector<float> residual = ValuesOfRank<float>(41, 2 * kHidden);
    std::vector<float> expected_residual = residual;
    std::vector<float> out(2 * kHidden), expected(2 * kHidden);
    const auto matrix = [](std::vector<float>& data) {
      return TensorView(data.data(), DType::kF32, {2, kHidden});
    };
    const TensorView gamma_view(gamma.data(), DType::kF32, {kHidden});
    Ops& ops = (*device)->ops();
    group.AllReduceAddRmsNorm(ops, matrix(x), matrix(residual), gamma_view, 1e-6f, matrix(out));
    ops.AddRmsNorm(matrix(expected_residual), matrix(sum), gamma_view, 1e-6f, matrix(expected));
    ASSERT_TRUE((*device)->Synchronize().ok());
    ExpectSameBits(residual, expected_residual);
    ExpectSameBits(out, expected);
  });
}

}  // namespace
}  // namespace cohort
