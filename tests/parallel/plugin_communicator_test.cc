#include "parallel/plugin_communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/plugin_device.h"

// The other side of the boundary without NCCL: it notes what arrives and answers as told. What is
// tested is the adapter: which failures become which status, and that no wait lasts.
struct CohortCudaDevice {
  CohortCudaError create_error{};
};

struct CohortCudaCommunicator {
  CohortCudaGroup group{};

  std::mutex mutex;  // guards what follows
  std::condition_variable changed;
  CohortCudaError join_error{};
  CohortCudaError poll_error{};
  bool never_joins = false;
  bool is_joining = false;
  CohortCudaError collective_error{};
  bool is_stuck = false;  // nothing enqueued ever finishes
  uint64_t enqueued = 0;
  std::vector<CohortCudaRange> parts;
  CohortCudaExchange sent{};
  CohortCudaExchange received{};
  int polls = 0;
  int aborts = 0;
  bool is_destroyed = false;
};

namespace cohort {
namespace {

using ::testing::HasSubstr;

CohortCudaError MakeError(int32_t code, const char* message) {
  CohortCudaError error{};
  error.code = code;
  std::strncpy(error.message, message, sizeof(error.message) - 1);
  return error;
}

// The one communicator of a test, owned by the fixture; `create` hands it out.
CohortCudaCommunicator* g_next = nullptr;

CohortCudaError Create(CohortCudaDevice* device, const CohortCudaGroup* group,
                       CohortCudaCommunicator** communicator) {
  if (device->create_error.code != kCohortCudaOk) {
    return device->create_error;
  }
  g_next->group = *group;
  *communicator = g_next;
  return {};
}

CohortCudaError Join(CohortCudaCommunicator* c) {
  std::unique_lock<std::mutex> lock(c->mutex);
  c->is_joining = true;
  c->changed.notify_all();
  c->changed.wait(lock, [c] { return !c->never_joins || c->aborts > 0; });
  return c->never_joins ? MakeError(kCohortCudaAborted, "rank 1 of 4: joining: aborted")
                        : c->join_error;
}

CohortCudaError Enqueue(CohortCudaCommunicator* c) {
  const std::lock_guard<std::mutex> lock(c->mutex);
  if (c->collective_error.code == kCohortCudaOk) {
    ++c->enqueued;
  }
  return c->collective_error;
}

CohortCudaError Gather(CohortCudaCommunicator* c, const CohortCudaTensor*,
                       const CohortCudaRange* parts, const CohortCudaTensor*) {
  c->parts.assign(parts, parts + c->group.world);
  return Enqueue(c);
}

CohortCudaError Swap(CohortCudaCommunicator* c, const CohortCudaExchange* send,
                     const CohortCudaExchange* receive) {
  c->sent = *send;
  c->received = *receive;
  return Enqueue(c);
}

CohortCudaError Poll(CohortCudaCommunicator* c, uint64_t* submitted, uint64_t* finished) {
  const std::lock_guard<std::mutex> lock(c->mutex);
  ++c->polls;
  c->changed.notify_all();
  if (c->poll_error.code != kCohortCudaOk) {
    return c->poll_error;
  }
  *submitted = c->enqueued;
  *finished = c->is_stuck ? 0 : c->enqueued;
  return {};
}

void CountAbort(CohortCudaCommunicator* c) {
  const std::lock_guard<std::mutex> lock(c->mutex);
  ++c->aborts;
  c->changed.notify_all();
}

CohortCudaTable MakeTable() {
  CohortCudaTable table{};
  table.device_destroy = [](CohortCudaDevice*) {};
  table.unique_id_create = [](CohortCudaUniqueId* id) {
    std::memset(id->bytes, 'u', sizeof(id->bytes));
    return CohortCudaError{};
  };
  table.communicator_create = Create;
  table.communicator_join = Join;
  table.all_reduce_sum = [](CohortCudaCommunicator* c, const CohortCudaTensor*) {
    return Enqueue(c);
  };
  table.all_gather = Gather;
  table.all_to_all = Swap;
  table.all_reduce_add_rms_norm = [](CohortCudaCommunicator* c, const CohortCudaTensor*,
                                     const CohortCudaTensor*, const CohortCudaTensor*, float,
                                     const CohortCudaTensor*) { return Enqueue(c); };
  table.communicator_links = [](CohortCudaCommunicator* c, int32_t* links) {
    std::fill_n(links, c->group.world, static_cast<int32_t>(kCohortCudaLinkNvlink));
    return int32_t{1};
  };
  table.communicator_sizes = [](CohortCudaCommunicator* c, int64_t* one_shot_bytes,
                                int64_t* two_shot_bytes) {
    *one_shot_bytes = c->group.one_shot_bytes;
    *two_shot_bytes = c->group.two_shot_bytes;
  };
  table.barrier = Enqueue;
  table.communicator_poll = Poll;
  table.communicator_abort = CountAbort;
  table.communicator_destroy = [](CohortCudaCommunicator* c) { c->is_destroyed = true; };
  return table;
}

class PluginCommunicatorTest : public testing::Test {
 protected:
  PluginCommunicatorTest() { g_next = &other_side_; }

  std::unique_ptr<PluginCommunicator> Make(absl::Duration timeout = absl::Seconds(60)) {
    absl::StatusOr<std::unique_ptr<PluginCommunicator>> made = MakePluginCommunicator(
        device_, {1, 4, *CreatePluginUniqueId(device_), absl::Seconds(9), timeout});
    EXPECT_TRUE(made.ok()) << made.status();
    return std::move(made).value();
  }
  // Waits until claim() holds, at most 30 s.
  template <class Claim>
  bool WaitUntil(Claim claim) {
    std::unique_lock<std::mutex> lock(other_side_.mutex);
    return other_side_.changed.wait_for(lock, std::chrono::seconds(30), claim);
  }
  int Aborts() {
    const std::lock_guard<std::mutex> lock(other_side_.mutex);
    return other_side_.aborts;
  }
  uint64_t Enqueued() {
    const std::lock_guard<std::mutex> lock(other_side_.mutex);
    return other_side_.enqueued;
  }

  float numbers_[8] = {};
  TensorView view_{numbers_, DType::kF32, {2, 4}};
  CohortCudaTable table_ = MakeTable();
  CohortCudaCommunicator other_side_;
  CohortCudaDevice other_device_;
  PluginDevice device_{&table_, &other_device_, 0, "cuda:0"};
};

TEST_F(PluginCommunicatorTest, JoinsWithItsRankIdAndDeadline) {
  const std::unique_ptr<Communicator> communicator = Make(absl::Seconds(7));
  EXPECT_EQ(communicator->rank(), 1);
  EXPECT_EQ(communicator->size(), 4);
  EXPECT_EQ(other_side_.group.rank, 1);
  EXPECT_EQ(other_side_.group.world, 4);
  EXPECT_EQ(other_side_.group.join_timeout_ms, 9000);
  EXPECT_EQ(other_side_.group.timeout_ms, 7000);
  EXPECT_EQ(std::string(other_side_.group.id.bytes, 128), std::string(128, 'u'));
}

TEST_F(PluginCommunicatorTest, SizesOfPeerReductionsAreGivenOrMeasured) {
  PluginCommunicatorOptions options;
  options.one_shot_bytes = 4096;
  options.two_shot_bytes = 8192;
  options.measures_sizes = true;
  const auto communicator = MakePluginCommunicator(device_, options);
  ASSERT_TRUE(communicator.ok()) << communicator.status();
  EXPECT_EQ(other_side_.group.measures_sizes, 1);
  EXPECT_EQ((*communicator)->links().one_shot_bytes, 4096);
  EXPECT_EQ((*communicator)->links().two_shot_bytes, 8192);
}

TEST_F(PluginCommunicatorTest, AFailureToJoinSticks) {
  other_side_.join_error = MakeError(kCohortCudaDeadline, "rank 1 of 4: not all ranks came");
  const std::unique_ptr<PluginCommunicator> communicator = Make();
  EXPECT_EQ(communicator->Join().message(), "rank 1 of 4: not all ranks came");
  communicator->AllReduceSum(view_);
  EXPECT_EQ(Enqueued(), 0u);
  EXPECT_EQ(communicator->status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(PluginCommunicatorTest, AnAbortEndsTheWaitForTheOtherRanks) {
  other_side_.never_joins = true;
  const std::unique_ptr<PluginCommunicator> communicator = Make();
  absl::Status joined;
  std::thread joining([&] { joined = communicator->Join(); });
  EXPECT_TRUE(WaitUntil([this] { return other_side_.is_joining; }));
  communicator->Abort();
  joining.join();
  EXPECT_EQ(joined.message(), "rank 1 of 4: the communicator was aborted");
}

TEST_F(PluginCommunicatorTest, JoiningFailsWithTheReasonOfTheOtherSide) {
  other_device_.create_error = MakeError(kCohortCudaDeadline, "rank 1 of 4: not all ranks came");
  const absl::Status status =
      MakePluginCommunicator(device_, {.rank = 1, .size = 4, .unique_id = std::string(128, 'u')})
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(status.message(), "rank 1 of 4: not all ranks came");
}

TEST_F(PluginCommunicatorTest, RefusesAnIdOfAnotherSize) {
  const absl::Status status =
      MakePluginCommunicator(device_, {.rank = 1, .size = 4, .unique_id = "short"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("128 bytes, not 5"));
}

TEST_F(PluginCommunicatorTest, CollectivesArrive) {
  {
    const std::unique_ptr<Communicator> communicator = Make();
    communicator->AllReduceSum(view_);
    communicator->Barrier();
    const std::vector<Range> parts = {{0, 1}, {1, 4}, {4, 4}, {4, 9}};
    float gathered[18] = {};
    communicator->AllGather(TensorView(numbers_, DType::kF32, {2, 3}), parts,
                            TensorView(gathered, DType::kF32, {2, 9}));
    EXPECT_EQ(Enqueued(), 3u);
    ASSERT_EQ(other_side_.parts.size(), 4u);
    EXPECT_EQ(other_side_.parts[3].begin, 4);
    EXPECT_EQ(other_side_.parts[3].end, 9);
    EXPECT_TRUE(communicator->status().ok());
  }
  EXPECT_TRUE(other_side_.is_destroyed);
  EXPECT_EQ(other_side_.aborts, 0);
}

TEST_F(PluginCommunicatorTest, ACollectiveThatNeverFinishesIsAborted) {
  other_side_.is_stuck = true;
  const std::unique_ptr<Communicator> communicator = Make(absl::Milliseconds(50));
  communicator->AllReduceSum(view_);
  ASSERT_TRUE(WaitUntil([this] { return other_side_.aborts > 0; }));
  const absl::Status status = communicator->status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(status.message(),
            "rank 1 of 4: work up to collective 1 (AllReduceSum) was not done within 50ms; some "
            "rank did not arrive");
}

TEST_F(PluginCommunicatorTest, FinishedCollectivesMeetTheirDeadlineHoweverLongAgo) {
  const std::unique_ptr<Communicator> communicator = Make(absl::Milliseconds(16));
  communicator->AllReduceSum(view_);
  // Polled every millisecond at most: three deadlines pass.
  ASSERT_TRUE(WaitUntil([this] { return other_side_.polls >= 48; }));
  EXPECT_TRUE(communicator->status().ok()) << communicator->status();
}

TEST_F(PluginCommunicatorTest, AbortSticksAndNothingMoreIsEnqueued) {
  const std::unique_ptr<Communicator> communicator = Make();
  communicator->Abort();
  communicator->Abort();
  communicator->AllReduceSum(view_);
  EXPECT_EQ(Enqueued(), 0u);
  EXPECT_EQ(Aborts(), 1);
  EXPECT_EQ(communicator->status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(communicator->status().message(), "rank 1 of 4: the communicator was aborted");
}

TEST_F(PluginCommunicatorTest, ExchangesArrive) {
  const std::unique_ptr<Communicator> communicator = Make();
  int32_t counts[4] = {};
  int32_t other_counts[4] = {};
  float rows[16] = {};
  float other_rows[16] = {};
  communicator->AllToAll({.rows = TensorView(rows, DType::kF32, {8, 2}),
                          .counts = TensorView(counts, DType::kI32, {4})},
                         {.rows = TensorView(other_rows, DType::kF32, {8, 2}),
                          .counts = TensorView(other_counts, DType::kI32, {4})});
  EXPECT_TRUE(communicator->status().ok()) << communicator->status();
  EXPECT_EQ(Enqueued(), 1u);
  EXPECT_EQ(other_side_.sent.rows.data, rows);
  EXPECT_EQ(other_side_.sent.rows.dims[0], 8);
  EXPECT_EQ(other_side_.sent.counts.data, counts);
  EXPECT_EQ(other_side_.received.rows.data, other_rows);
  EXPECT_EQ(other_side_.received.counts.data, other_counts);
}

TEST_F(PluginCommunicatorTest, WhatAKernelGaveUpShowsAtOnce) {
  const std::unique_ptr<Communicator> communicator = Make();
  communicator->AllReduceSum(view_);
  {
    const std::lock_guard<std::mutex> lock(other_side_.mutex);
    other_side_.poll_error = MakeError(kCohortCudaDeadline, "rank 1 of 4: waited for rank 2");
  }
  EXPECT_EQ(communicator->status().message(), "rank 1 of 4: waited for rank 2");
  EXPECT_EQ(Aborts(), 1);
}

TEST_F(PluginCommunicatorTest, TellsTheLinks) {
  const PeerLinks links = Make()->links();
  EXPECT_THAT(links.of_rank,
              testing::ElementsAreArray(std::vector<CohortCudaLink>(4, kCohortCudaLinkNvlink)));
  EXPECT_TRUE(links.reduces_over_peers);
}

TEST_F(PluginCommunicatorTest, TheFirstFailureSticksAndNamesTheCollective) {
  const std::unique_ptr<Communicator> communicator = Make();
  communicator->Barrier();
  {
    const std::lock_guard<std::mutex> lock(other_side_.mutex);
    other_side_.collective_error = MakeError(kCohortCudaPeerLost, "rank 1 of 4: peer closed");
  }
  communicator->AllReduceSum(view_);
  communicator->Abort();
  EXPECT_EQ(communicator->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(communicator->status().message(),
            "collective 2 (AllReduceSum): rank 1 of 4: peer closed");
  EXPECT_EQ(Aborts(), 1);
}

}  // namespace
}  // namespace cohort
