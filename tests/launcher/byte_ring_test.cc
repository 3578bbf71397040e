#include "launcher/byte_ring.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "absl/time/clock.h"

namespace cohort {
namespace {

constexpr int64_t kCapacity = 256;
constexpr int64_t kCountersBytes = 4096;

absl::Time InAMinute() { return absl::Now() + absl::Minutes(1); }
absl::Time Soon() { return absl::Now() + absl::Milliseconds(20); }

struct RingPair {
  FileDescriptor memory;
  std::unique_ptr<ByteRingWriter> writer;
  std::unique_ptr<ByteRingReader> reader;
};

RingPair MakeRing(int64_t capacity = kCapacity, int spin_iterations = 0) {
  RingPair ring;
  ring.memory = CreateByteRing(capacity).value();
  ring.writer = ByteRingWriter::Map(ring.memory.get(), spin_iterations).value();
  ring.reader = ByteRingReader::Map(ring.memory.get(), spin_iterations).value();
  return ring;
}

std::string Pattern(size_t bytes, unsigned seed) {
  std::minstd_rand random(seed);
  std::string text(bytes, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

// The ring's memory as any process that holds the descriptor may change it.
class Scribbler {
 public:
  explicit Scribbler(const RingPair& ring)
      : bytes_(static_cast<char*>(mmap(nullptr, kCountersBytes + kCapacity, PROT_READ | PROT_WRITE,
                                       MAP_SHARED, ring.memory.get(), 0))) {}
  ~Scribbler() { munmap(bytes_, kCountersBytes + kCapacity); }
  void Write(int64_t offset, StringView bytes) {
    std::memcpy(bytes_ + offset, bytes.data(), bytes.size());
  }
  void SetWritten(uint64_t written) { std::memcpy(bytes_, &written, sizeof(written)); }

 private:
  char* const bytes_;
};

TEST(ByteRing, KeepsMessagesApartAndInOrder) {
  const RingPair ring = MakeRing();
  for (const StringView message : {"one", "", "three"}) {
    ASSERT_TRUE(ring.writer->Send(message, InAMinute()).ok());
  }
  EXPECT_EQ(ring.reader->Receive(InAMinute()).value(), "one");
  EXPECT_EQ(ring.reader->Receive(InAMinute()).value(), "");
  EXPECT_EQ(ring.reader->Receive(InAMinute()).value(), "three");
}

TEST(ByteRing, CarriesMessagesOfAnyLengthBetweenThreads) {
  for (const int spin_iterations : {0, 1000}) {
    const RingPair ring = MakeRing(kCapacity, spin_iterations);
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::thread sender([&] {
      for (unsigned i = 0; i < 500; ++i) {
        EXPECT_TRUE(ring.writer->Send(Pattern((i * 37) % 900, seed + i), InAMinute()).ok());
      }
    });
    for (unsigned i = 0; i < 500; ++i) {
      ASSERT_EQ(ring.reader->Receive(InAMinute()).value(), Pattern((i * 37) % 900, seed + i));
    }
    sender.join();
  }
}

TEST(ByteRing, ALongMessageTravelsInPieces) {
  const RingPair ring = MakeRing();
  const std::string message = Pattern(1 << 18, 1);
  std::thread sender([&] { EXPECT_TRUE(ring.writer->Send(message, InAMinute()).ok()); });
  EXPECT_EQ(ring.reader->Receive(InAMinute()).value(), message);
  sender.join();
}

TEST(ProcessByteRing, CarriesMessagesBetweenProcesses) {
  const RingPair there = MakeRing();
  const RingPair back = MakeRing();
  const pid_t child = fork();
  if (child == 0) {
    for (int i = 0; i < 100; ++i) {
      const absl::StatusOr<std::string> message = there.reader->Receive(InAMinute());
      if (!message.ok() || !back.writer->Send(*message + "!", InAMinute()).ok()) _exit(1);
    }
    _exit(0);
  }
  for (unsigned i = 0; i < 100; ++i) {
    const std::string message = Pattern(i * 11, i);
    ASSERT_TRUE(there.writer->Send(message, InAMinute()).ok());
    ASSERT_EQ(back.reader->Receive(InAMinute()).value(), message + "!");
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(ByteRing, AWaitEndsAtItsDeadline) {
  const RingPair ring = MakeRing();
  EXPECT_TRUE(absl::IsDeadlineExceeded(ring.reader->Receive(Soon()).status()));
  EXPECT_TRUE(absl::IsDeadlineExceeded(ring.reader->Receive(absl::InfinitePast()).status()));
}

TEST(ByteRing, AReceiveGoesOnWhereADeadlineStoppedIt) {
  const RingPair ring = MakeRing();
  const std::string message = Pattern(1000, 2);
  // The ring takes a part of it, and the reader that part.
  std::thread sender([&] { EXPECT_TRUE(ring.writer->Send(message, InAMinute()).ok()); });
  absl::StatusOr<std::string> received = ring.reader->Receive(absl::InfinitePast());
  while (absl::IsDeadlineExceeded(received.status())) {
    received = ring.reader->Receive(absl::InfinitePast());
  }
  EXPECT_EQ(received.value(), message);
  sender.join();
}

TEST(ByteRing, AFullRingEndsASendAtItsDeadlineAndForGood) {
  const RingPair ring = MakeRing();
  EXPECT_TRUE(absl::IsDeadlineExceeded(ring.writer->Send(Pattern(1000, 3), Soon())));
  // A part of that message is in the ring: another one cannot follow it.
  EXPECT_TRUE(absl::IsDeadlineExceeded(ring.writer->Send("next", InAMinute())));
}

TEST(ByteRing, AbortWakesAReceiveAndEndsLaterOnes) {
  const RingPair ring = MakeRing();
  std::thread receiver([&] {
    const absl::Status status = ring.reader->Receive(absl::InfiniteFuture()).status();
    EXPECT_EQ(status, absl::UnavailableError("the group is gone"));
  });
  ring.reader->Abort(absl::AbortedError("the group is gone"));
  receiver.join();
  ASSERT_TRUE(ring.writer->Send("late", InAMinute()).ok());
  EXPECT_TRUE(absl::IsUnavailable(ring.reader->Receive(InAMinute()).status()));
}

TEST(ByteRing, AbortWakesASend) {
  const RingPair ring = MakeRing();
  std::thread sender([&] {
    const absl::Status status = ring.writer->Send(Pattern(1000, 4), absl::InfiniteFuture());
    EXPECT_EQ(status, absl::UnavailableError("first"));
  });
  ring.writer->Abort(absl::AbortedError("first"));
  ring.writer->Abort(absl::AbortedError("second"));
  sender.join();
}

TEST(ByteRing, ACorruptedLengthIsAnErrorForGood) {
  const RingPair ring = MakeRing();
  ASSERT_TRUE(ring.writer->Send("message", InAMinute()).ok());
  Scribbler(ring).Write(kCountersBytes, std::string(8, '\x7f'));
  EXPECT_TRUE(absl::IsDataLoss(ring.reader->Receive(InAMinute()).status()));
  EXPECT_TRUE(absl::IsDataLoss(ring.reader->Receive(InAMinute()).status()));
}

TEST(ByteRing, CorruptedCountersAreAnErrorAtEitherEnd) {
  const RingPair ring = MakeRing();
  Scribbler scribbler(ring);
  scribbler.SetWritten(kCapacity + 1);
  EXPECT_TRUE(absl::IsDataLoss(ring.reader->Receive(InAMinute()).status()));
  scribbler.Write(64, std::string(8, '\x01'));  // the reader's counter, beyond the writer's
  EXPECT_TRUE(absl::IsDataLoss(ring.writer->Send("message", InAMinute())));
}

TEST(ByteRing, RefusesMemoryThatIsNoRing) {
  const FileDescriptor memory(memfd_create("test", MFD_CLOEXEC));
  EXPECT_TRUE(absl::IsInvalidArgument(ByteRingReader::Map(memory.get(), 0).status()));
  ASSERT_EQ(ftruncate(memory.get(), kCountersBytes + 100), 0);
  EXPECT_TRUE(absl::IsInvalidArgument(ByteRingWriter::Map(memory.get(), 0).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(ByteRingWriter::Map(-1, 0).status()));
}

TEST(ByteRing, ItsMemoryCannotShrinkUnderAPeer) {
  const RingPair ring = MakeRing();
  EXPECT_NE(ftruncate(ring.memory.get(), 0), 0);
}

}  // namespace
}  // namespace cohort
