// A whole server on loopback whose only rank is scripted, and clients for its services.
#ifndef COHORT_TESTS_LAUNCHER_SERVICE_FIXTURE_H_
#define COHORT_TESTS_LAUNCHER_SERVICE_FIXTURE_H_

#include <grpcpp/channel.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cohort/v1/control.grpc.pb.h"
#include "cohort/v1/generation.grpc.pb.h"
#include "google/rpc/error_details.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "launcher/grpc_server.h"
#include "tests/launcher/scripted_rank.h"

namespace cohort {

// Ids 0..255 are the bytes, then the special tokens 256 "<|endoftext|>", 257 "<|im_start|>" and
// 258 "<|im_end|>"; 259 to 263 have no token.
inline constexpr int64_t kTestVocabulary = 264;
std::string ByteTokenizerJson();
std::unique_ptr<Tokenizer> MakeByteTokenizer();
ModelConfig MakeTestConfig();  // ends at 256 and 258

// The context of a server for it, without an engine.
ServingContext MakeTestContext(const Tokenizer* tokenizer, int64_t max_model_len);

// Polls until true; false after 30 seconds.
bool Eventually(const std::function<bool()>& condition);

// The detail of one kind in a status; its default when there is none.
template <class Detail>
Detail DetailOf(const grpc::Status& status);

class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest();
  ~ServiceTest() override;

  // Starts the server; once per test.
  void Start(SchedulerOptions options, const Tokenizer* tokenizer);
  void Start() { Start(DefaultOptions(), tokenizer_.get()); }
  static SchedulerOptions DefaultOptions();

  v1::Load Load();
  bool BlocksAreFree();
  // All events of a stream, and how it ended.
  grpc::Status Stream(const v1::GenerateRequest& request, std::vector<v1::GenerateEvent>& events);
  grpc::Status Generate(const v1::GenerateRequest& request, v1::GenerateResult* result = nullptr);
  v1::GenerateRequest Ids(std::vector<uint32_t> ids, uint32_t max_tokens);

  // Tokens come as 'a', 'b', ... by position, until a test says otherwise (before Start).
  std::shared_ptr<RankScript> script_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<GrpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Generation::Stub> generation_;
  std::unique_ptr<v1::Control::Stub> control_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
};

}  // namespace cohort

#endif  // COHORT_TESTS_LAUNCHER_SERVICE_FIXTURE_H_
