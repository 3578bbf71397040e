#include "tests/launcher/service_fixture.h"

#include <nlohmann/json.hpp>
#include <thread>

#include "absl/time/clock.h"
#include "google/rpc/status.pb.h"
#include "launcher/client.h"
#include "runtime/utf8.h"

namespace cohort {
namespace {

// How byte-level BPE spells one byte.
std::string ByteText(int byte) {
  std::string text;
  int code_point = byte;
  if (byte < 33) code_point = 256 + byte;
  if (byte >= 127 && byte <= 160) code_point = 256 + 33 + byte - 127;
  if (byte == 173) code_point = 256 + 67;
  AppendUtf8(static_cast<uint32_t>(code_point), text);
  return text;
}

nlohmann::json Special(int id, const char* content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

}  // namespace

std::string ByteTokenizerJson() {
  nlohmann::json vocabulary;
  for (int byte = 0; byte < 256; ++byte) vocabulary[ByteText(byte)] = byte;
  const nlohmann::json byte_level = {{"type", "ByteLevel"},
                                     {"add_prefix_space", false},
                                     {"trim_offsets", false},
                                     {"use_regex", false}};
  const nlohmann::json split = {
      {"type", "Split"},
      {"pattern",
       {{"Regex",
         R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}}},
      {"behavior", "Isolated"},
      {"invert", false}};
  return nlohmann::json(
             {{"version", "1.0"},
              {"truncation", nullptr},
              {"padding", nullptr},
              {"added_tokens",
               {Special(256, "<|endoftext|>"), Special(257, "<|im_start|>"),
                Special(258, "<|im_end|>")}},
              {"normalizer", {{"type", "NFC"}}},
              {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {split, byte_level}}}},
              {"post_processor", byte_level},
              {"decoder", byte_level},
              {"model",
               {{"type", "BPE"},
                {"dropout", nullptr},
                {"unk_token", nullptr},
                {"continuing_subword_prefix", ""},
                {"end_of_word_suffix", ""},
                {"fuse_unk", false},
                {"byte_fallback", false},
                {"vocab", vocabulary},
                {"merges", nlohmann::json::array()}}}})
      .dump();
}

std::unique_ptr<Tokenizer> MakeByteTokenizer() {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      Tokenizer::Parse(ByteTokenizerJson(), "tokenizer.json");
  CHECK(tokenizer.ok()) << tokenizer.status().ToString();
  return *std::move(tokenizer);
}

ModelConfig MakeTestConfig() {
  ModelConfig config;
  config.architecture = "Qwen2ForCausalLM";
  config.model_type = "qwen2";
  config.hidden = 32;
  config.layers = 2;
  config.query_heads = 4;
  config.kv_heads = 2;
  config.head_dim = 8;
  config.ffn_columns = 64;
  config.vocabulary = kTestVocabulary;
  config.max_positions = 1024;
  config.eos_token_ids = {256, 258};
  return config;
}

ServingContext MakeTestContext(const Tokenizer* tokenizer, int64_t max_model_len) {
  ServingContext context;
  context.tokenizer = tokenizer;
  context.config = MakeTestConfig();
  context.model_name = "tiny";
  context.max_model_len = max_model_len;
  context.server_info.set_instance_id("instance");
  context.started = absl::Now();
  return context;
}

bool Eventually(const std::function<bool()>& condition) {
  const absl::Time end = absl::Now() + absl::Seconds(30);
  while (!condition()) {
    if (absl::Now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

template <class Detail>
Detail DetailOf(const grpc::Status& status) {
  google::rpc::Status details;
  CHECK(details.ParseFromString(status.error_details()));
  Detail found;
  for (const google::protobuf::Any& detail : details.details()) {
    if (detail.UnpackTo(&found)) return found;
  }
  return Detail();
}

template google::rpc::BadRequest DetailOf(const grpc::Status&);
template google::rpc::ErrorInfo DetailOf(const grpc::Status&);
template google::rpc::PreconditionFailure DetailOf(const grpc::Status&);
template google::rpc::QuotaFailure DetailOf(const grpc::Status&);
template google::rpc::RetryInfo DetailOf(const grpc::Status&);

ServiceTest::ServiceTest()
    : script_(std::make_shared<RankScript>(
          [](uint64_t position) { return static_cast<int32_t>('a' + position % 26); })),
      tokenizer_(MakeByteTokenizer()) {}

ServiceTest::~ServiceTest() {
  // As `cohort serve` ends: no calls, then no engine.
  script_->Release();
  server_.reset();
  engine_.reset();
}

SchedulerOptions ServiceTest::DefaultOptions() {
  SchedulerOptions options;
  options.block_size = 16;
  options.blocks = 1 << 16;
  options.max_running = 4;
  options.max_model_len = 1 << 20;
  options.eos_token_ids = MakeTestConfig().eos_token_ids;
  return options;
}

void ServiceTest::Start(SchedulerOptions options, const Tokenizer* tokenizer) {
  engine_ = std::make_unique<Engine>(options, [](uint64_t, const absl::Status&) {});
  engine_->GroupReady(ScriptedGroup(1, script_));
  ServingContext context = MakeTestContext(tokenizer, options.max_model_len);
  context.engine = engine_.get();
  context.group = [] {
    GroupStatus group;
    group.state = "serving";
    group.epoch = 1;
    RankStatus& rank = group.ranks.emplace_back();
    rank.process_id = 4711;
    rank.state = "serving";
    return group;
  };
  absl::StatusOr<std::unique_ptr<GrpcServer>> server =
      GrpcServer::Start({"127.0.0.1", 0}, std::move(context), /*reflection=*/true);
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  server_->health().SetServing(true);
  channel_ = Connect(server_->address());
  generation_ = v1::Generation::NewStub(channel_);
  control_ = v1::Control::NewStub(channel_);
  health_ = grpc::health::v1::Health::NewStub(channel_);
}

v1::Load ServiceTest::Load() {
  grpc::ClientContext context;
  v1::Load load;
  const grpc::Status status = control_->GetLoad(&context, {}, &load);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return load;
}

bool ServiceTest::BlocksAreFree() {
  const v1::Load load = Load();
  return load.kv_blocks_used() == 0 && load.running() == 0;
}

grpc::Status ServiceTest::Stream(const v1::GenerateRequest& request,
                                 std::vector<v1::GenerateEvent>& events) {
  grpc::ClientContext context;
  const auto stream = generation_->GenerateStream(&context, request);
  for (v1::GenerateEvent event; stream->Read(&event);) events.push_back(event);
  return stream->Finish();
}

grpc::Status ServiceTest::Generate(const v1::GenerateRequest& request, v1::GenerateResult* result) {
  grpc::ClientContext context;
  v1::GenerateResult ignored;
  return generation_->Generate(&context, request, result != nullptr ? result : &ignored);
}

v1::GenerateRequest ServiceTest::Ids(std::vector<uint32_t> ids, uint32_t max_tokens) {
  v1::GenerateRequest request;
  request.mutable_token_ids()->mutable_ids()->Assign(ids.begin(), ids.end());
  request.mutable_stopping()->set_max_tokens(max_tokens);
  return request;
}

}  // namespace cohort
