#include "launcher/grpc_server.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include "launcher/network_address.h"
#include "tests/launcher/service_fixture.h"

namespace cohort {
namespace {

using ::testing::HasSubstr;

class GrpcServerTest : public ServiceTest {
 protected:
  // The one answer to a reflection request, both as wire bytes: the reflection messages are not
  // among ours.
  std::string Reflect(const std::string& request) {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    const auto call = stub.PrepareCall(
        &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
    void* tag = nullptr;
    bool ok = false;
    call->StartCall(nullptr);
    queue.Next(&tag, &ok);
    const grpc::Slice slice(request);
    call->Write(grpc::ByteBuffer(&slice, 1), nullptr);
    queue.Next(&tag, &ok);
    grpc::ByteBuffer answer;
    call->Read(&answer, nullptr);
    queue.Next(&tag, &ok);
    context.TryCancel();
    grpc::Status status;
    call->Finish(&status, nullptr);
    queue.Next(&tag, &ok);
    grpc::Slice whole;
    return answer.DumpToSingleSlice(&whole).ok()
               ? std::string(reinterpret_cast<const char*>(whole.begin()), whole.size())
               : "";
  }
};

TEST_F(GrpcServerTest, ReflectionListsTheServices) {
  Start();
  // Field 7 (list_services), a string: "*".
  const std::string answer = Reflect("\x3a\x01*");
  EXPECT_THAT(answer, HasSubstr("cohort.v1.Generation"));
  EXPECT_THAT(answer, HasSubstr("cohort.v1.Control"));
  EXPECT_THAT(answer, HasSubstr("grpc.health.v1.Health"));
  EXPECT_EQ(answer.find("cohort.v1.Cluster"), std::string::npos);
}

TEST_F(GrpcServerTest, AnAddressInUseIsNamed) {
  Start();
  const absl::Status status = CheckListenAddress("--listen", server_->address());
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(server_->address().ToString()));
  ServingContext context = MakeTestContext(nullptr, 16);
  context.engine = engine_.get();
  const auto second = GrpcServer::Start(server_->address(), std::move(context), false);
  EXPECT_TRUE(absl::IsUnavailable(second.status())) << second.status();
}

TEST_F(GrpcServerTest, MessagesOverEightMebibytesAreRefused) {
  Start();
  v1::GenerateRequest request;
  request.set_text(std::string(9 << 20, 'x'));
  grpc::ClientContext context;
  v1::GenerateResult result;
  EXPECT_EQ(generation_->Generate(&context, request, &result).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

}  // namespace
}  // namespace cohort
