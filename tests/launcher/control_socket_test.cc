#include "launcher/control_socket.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>

namespace cohort {
namespace {

constexpr auto kWait = ControlSocket::WhenFull::kWait;
constexpr auto kFail = ControlSocket::WhenFull::kFail;

TEST(ControlSocket, KeepsPacketsApartAndInOrder) {
  ControlSocket::Pair pair = ControlSocket::MakePair().value();
  ASSERT_TRUE(pair.first.Send("one", {}, kWait).ok());
  ASSERT_TRUE(pair.first.Send("two", {}, kWait).ok());
  EXPECT_EQ(pair.second.Receive().value()->bytes, "one");
  EXPECT_EQ(pair.second.Receive().value()->bytes, "two");
  EXPECT_FALSE(pair.second.Readable());
}

TEST(ControlSocket, CarriesThePacketsItPromises) {
  ControlSocket::Pair pair = ControlSocket::MakePair().value();
  const std::string largest(kMaxControlBytes, 'x');
  ASSERT_TRUE(pair.first.Send(largest, {}, kFail).ok());
  EXPECT_EQ(pair.second.Receive().value()->bytes, largest);
  EXPECT_TRUE(absl::IsInvalidArgument(pair.first.Send(largest + "x", {}, kFail)));
  EXPECT_TRUE(absl::IsInvalidArgument(pair.first.Send("", {}, kFail)));
}

TEST(ControlSocket, CarriesDescriptorsBesideAPacket) {
  ControlSocket::Pair pair = ControlSocket::MakePair().value();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const FileDescriptor read_end(ends[0]);
  {
    const FileDescriptor write_end(ends[1]);
    ASSERT_TRUE(pair.first.Send("pipe", {write_end.get()}, kWait).ok());
  }
  const std::optional<ControlPacket> packet = pair.second.Receive().value();
  ASSERT_EQ(packet->descriptors.size(), 1u);
  const int received = packet->descriptors[0].get();
  EXPECT_NE(fcntl(received, F_GETFD) & FD_CLOEXEC, 0);
  ASSERT_EQ(write(received, "x", 1), 1);
  char c = 0;
  EXPECT_EQ(read(read_end.get(), &c, 1), 1);
  EXPECT_EQ(c, 'x');
}

TEST(ControlSocket, RefusesMoreDescriptorsThanItsLimit) {
  ControlSocket::Pair pair = ControlSocket::MakePair().value();
  const std::vector<int> many(kMaxControlDescriptors + 1, 0);
  EXPECT_TRUE(absl::IsInvalidArgument(pair.first.Send("many", many, kWait)));
}

TEST(ControlSocket, TheOtherEndsAbsenceIsSeenByBothDirections) {
  ControlSocket::Pair pair = ControlSocket::MakePair().value();
  ASSERT_TRUE(pair.second.Send("last words", {}, kWait).ok());
  { const ControlSocket gone = std::move(pair.second); }
  EXPECT_EQ(pair.first.Receive().value()->bytes, "last words");
  EXPECT_EQ(pair.first.Receive().value(), std::nullopt);
  EXPECT_TRUE(absl::IsUnavailable(pair.first.Send("hello", {}, kFail)));
}

TEST(ControlSocket, APeerThatDoesNotReadIsAnErrorWhereNobodyMayWait) {
  ControlSocket::Pair pair = ControlSocket::MakePair().value();
  const std::string packet(kMaxControlBytes, 'x');
  absl::Status status;
  for (int i = 0; i < 10'000 && status.ok(); ++i) status = pair.first.Send(packet, {}, kFail);
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
}

TEST(ProcessControlSocket, AKilledProcessReadsAsEndOfFile) {
  ControlSocket::Pair pair = ControlSocket::MakePair().value();
  const pid_t child = fork();
  if (child == 0) {
    pair.first = ControlSocket(FileDescriptor());  // else the child keeps it open
    for (;;) pause();
  }
  pair.second = ControlSocket(FileDescriptor());
  ASSERT_TRUE(pair.first.Send("unread", {}, kWait).ok());
  kill(child, SIGKILL);
  EXPECT_EQ(pair.first.Receive().value(), std::nullopt);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
}

}  // namespace
}  // namespace cohort
