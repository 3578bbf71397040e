#include "launcher/generation_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "tests/launcher/service_fixture.h"

namespace cohort {
namespace {

using ::testing::HasSubstr;

using GenerationServiceTest = ServiceTest;

TEST_F(GenerationServiceTest, StreamsAcceptedThenDeltasThenFinished) {
  Start();
  std::vector<v1::GenerateEvent> events;
  ASSERT_TRUE(Stream(Ids({1, 2, 3}, 50), events).ok());
  ASSERT_GE(events.size(), 3u);
  EXPECT_TRUE(events.front().has_accepted());
  EXPECT_EQ(events.front().accepted().prompt_tokens(), 3);
  EXPECT_TRUE(events.front().accepted().sampling().has_seed());
  EXPECT_EQ(events.front().accepted().instance_id(), "instance");
  uint32_t tokens = 0;
  std::string text;
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i].event_sequence(), i);
    EXPECT_EQ(events[i].request_id(), events[0].accepted().request_id());
    if (!events[i].has_delta()) continue;
    EXPECT_EQ(events[i].delta().first_position(), tokens);
    tokens += static_cast<uint32_t>(events[i].delta().token_ids_size());
    text += events[i].delta().text();
  }
  EXPECT_EQ(tokens, 50);
  EXPECT_EQ(text.substr(0, 4), "cdef");  // the token after position 2 is 'a' + 2
  ASSERT_TRUE(events.back().has_finished());
  EXPECT_EQ(events.back().finished().reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(events.back().finished().usage().completion_tokens(), 50);
  EXPECT_GE(events.back().finished().timing().total_milliseconds(), 0);
}

TEST_F(GenerationServiceTest, TheEndTokenIsAmongTheIdsButNotInTheText) {
  script_ = std::make_shared<RankScript>([](uint64_t position) {
    return position < 4 ? static_cast<int32_t>('a' + position) : position == 4 ? 257 : 258;
  });
  Start();
  v1::GenerateResult result;
  ASSERT_TRUE(Generate(Ids({1}, 20), &result).ok());
  ASSERT_EQ(result.outputs_size(), 1);
  EXPECT_EQ(result.outputs(0).text(), "abcd");
  EXPECT_THAT(result.outputs(0).token_ids(), ::testing::ElementsAre('a', 'b', 'c', 'd', 257, 258));
  EXPECT_EQ(result.outputs(0).finish_reason(), v1::FINISH_REASON_STOP);
  v1::GenerateRequest stop = Ids({1}, 20);
  stop.mutable_stopping()->add_stop_token_ids('c');
  ASSERT_TRUE(Generate(stop, &result).ok());
  EXPECT_EQ(result.outputs(0).text(), "ab");
  EXPECT_THAT(result.outputs(0).token_ids(), ::testing::ElementsAre('a', 'b', 'c'));
}

TEST_F(GenerationServiceTest, CharactersAreNeverSplit) {
  script_ = std::make_shared<RankScript>(
      [](uint64_t position) { return position % 2 == 0 ? 0xc3 : 0xa9; });  // e acute
  Start();
  std::vector<v1::GenerateEvent> events;
  ASSERT_TRUE(Stream(Ids({1}, 5), events).ok());
  std::string text;
  for (const v1::GenerateEvent& event : events) text += event.delta().text();
  EXPECT_EQ(text, "\xc3\xa9\xc3\xa9\xef\xbf\xbd");
}

TEST_F(GenerationServiceTest, CancellingAStreamFreesItsBlocks) {
  Start();
  grpc::ClientContext context;
  const auto stream = generation_->GenerateStream(&context, Ids({1, 2, 3}, 1'000'000));
  v1::GenerateEvent event;
  ASSERT_TRUE(stream->Read(&event));
  ASSERT_TRUE(stream->Read(&event));
  EXPECT_GT(Load().kv_blocks_used(), 0);
  context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([this] { return BlocksAreFree(); }));
}

TEST_F(GenerationServiceTest, CancellingAUnaryCallFreesItsBlocks) {
  Start();
  grpc::ClientContext context;
  v1::GenerateResult result;
  grpc::Status status;
  std::thread call([&] {
    status = generation_->Generate(&context, Ids({1, 2, 3}, 1'000'000), &result);
  });
  EXPECT_TRUE(Eventually([this] { return Load().running() == 1; }));
  context.TryCancel();
  call.join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([this] { return BlocksAreFree(); }));
}

TEST_F(GenerationServiceTest, ADeadlineEndsTheStreamWithAFinishedEvent) {
  Start();
  // Whether the event came before the client's own clock cut the stream. A client that does not get
  // the processor for the 200 ms that the service leaves it may miss one, not all.
  const auto is_told = [this] {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(2)));
    const auto stream = generation_->GenerateStream(&context, Ids({1}, 1'000'000));
    v1::GenerateEvent event;
    while (stream->Read(&event)) {
    }
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
    return event.has_finished() && event.finished().reason() == v1::FINISH_REASON_DEADLINE;
  };
  bool was_told = false;
  for (int attempt = 0; attempt < 5 && !was_told; ++attempt) was_told = is_told();
  EXPECT_TRUE(was_told);
  EXPECT_TRUE(Eventually([this] { return BlocksAreFree(); }));
}

TEST_F(GenerationServiceTest, ALostGroupEndsStreamsWithUnavailable) {
  Start();
  grpc::ClientContext context;
  const auto stream = generation_->GenerateStream(&context, Ids({1}, 1'000'000));
  v1::GenerateEvent event;
  ASSERT_TRUE(stream->Read(&event));
  engine_->GroupLost(1, absl::UnavailableError("rank 1 (pid 4711) was killed"));
  while (stream->Read(&event)) {
  }
  ASSERT_TRUE(event.has_finished());
  EXPECT_EQ(event.finished().reason(), v1::FINISH_REASON_ERROR);
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("pid 4711"));
  EXPECT_EQ(DetailOf<google::rpc::RetryInfo>(status).retry_delay().seconds(), 1);
  EXPECT_EQ(Generate(Ids({1}, 2)).error_code(), grpc::StatusCode::UNAVAILABLE);
  script_ = std::make_shared<RankScript>([](uint64_t) { return 'x'; });
  engine_->GroupReady(ScriptedGroup(2, script_));
  EXPECT_TRUE(Generate(Ids({1}, 2)).ok());
}

TEST_F(GenerationServiceTest, AFullQueueSaysWhichQuotaAndWhenToRetry) {
  SchedulerOptions options = DefaultOptions();
  options.max_running = 1;
  options.max_waiting = 1;
  script_->Hold();
  Start(options, tokenizer_.get());
  grpc::ClientContext first, second;
  const auto running = generation_->GenerateStream(&first, Ids({1}, 4));
  ASSERT_TRUE(Eventually([this] { return Load().running() == 1; }));
  const auto waiting = generation_->GenerateStream(&second, Ids({1}, 4));
  ASSERT_TRUE(Eventually([this] { return Load().waiting() == 1; }));
  const grpc::Status status = Generate(Ids({1}, 4));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_EQ(DetailOf<google::rpc::QuotaFailure>(status).violations_size(), 1);
  EXPECT_EQ(DetailOf<google::rpc::RetryInfo>(status).retry_delay().seconds(), 1);
  script_->Release();
  v1::GenerateEvent event;
  while (running->Read(&event)) {
  }
  EXPECT_TRUE(running->Finish().ok());
  while (waiting->Read(&event)) {
  }
  EXPECT_TRUE(waiting->Finish().ok());
}

TEST_F(GenerationServiceTest, AnIdInProgressIsRefusedAndFreeAfterwards) {
  Start();
  script_->Hold();
  v1::GenerateRequest request = Ids({1}, 4);
  request.set_request_id("mine");
  grpc::ClientContext context;
  const auto stream = generation_->GenerateStream(&context, request);
  v1::GenerateEvent event;
  ASSERT_TRUE(stream->Read(&event));
  EXPECT_EQ(event.request_id(), "mine");
  const grpc::Status status = Generate(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_THAT(status.error_message(), HasSubstr("mine"));
  script_->Release();
  while (stream->Read(&event)) {
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_TRUE(Generate(request).ok());
}

TEST_F(GenerationServiceTest, AbortEndsAStreamByItsId) {
  Start();
  v1::GenerateRequest request = Ids({1}, 1'000'000);
  request.set_request_id("mine");
  grpc::ClientContext context;
  const auto stream = generation_->GenerateStream(&context, request);
  v1::GenerateEvent event;
  ASSERT_TRUE(stream->Read(&event));
  grpc::ClientContext abort_context;
  v1::AbortRequest abort;
  abort.add_request_ids("unknown");
  abort.add_request_ids("mine");
  v1::AbortResult aborted;
  ASSERT_TRUE(control_->Abort(&abort_context, abort, &aborted).ok());
  EXPECT_THAT(aborted.aborted(), ::testing::ElementsAre("mine"));
  while (stream->Read(&event)) {
  }
  EXPECT_EQ(event.finished().reason(), v1::FINISH_REASON_CANCELLED);
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(GenerationServiceTest, DrainingRefusesNewRequestsAndLetsStreamsFinish) {
  Start();
  script_->Hold();
  grpc::ClientContext context;
  const auto stream = generation_->GenerateStream(&context, Ids({1}, 100));
  v1::GenerateEvent event;
  ASSERT_TRUE(stream->Read(&event));
  std::thread drain([this] { EXPECT_TRUE(engine_->Drain(absl::Now() + absl::Seconds(60))); });
  EXPECT_TRUE(Eventually([this] { return Load().state() == "draining"; }));
  EXPECT_EQ(Generate(Ids({1}, 2)).error_code(), grpc::StatusCode::UNAVAILABLE);
  script_->Release();
  while (stream->Read(&event)) {
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(event.finished().usage().completion_tokens(), 100);
  drain.join();
}

TEST_F(GenerationServiceTest, BadRequestsNameTheirFieldInTheTrailer) {
  Start();
  v1::GenerateRequest request = Ids({1, 9999}, 0);
  request.mutable_sampling()->set_top_p(0);
  for (const bool streamed : {false, true}) {
    std::vector<v1::GenerateEvent> events;
    const grpc::Status status = streamed ? Stream(request, events) : Generate(request);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_TRUE(events.empty());
    std::vector<std::string> fields;
    const auto bad_request = DetailOf<google::rpc::BadRequest>(status);
    for (const auto& violation : bad_request.field_violations()) {
      fields.push_back(violation.field());
    }
    EXPECT_THAT(fields, ::testing::UnorderedElementsAre("sampling.top_p", "stopping.max_tokens",
                                                        "token_ids.ids[1]"));
  }
}

TEST_F(GenerationServiceTest, ScoreReturnsOneLogProbabilityPerTokenAfterTheFirst) {
  Start();
  v1::ScoreRequest request;
  request.set_text("abc");
  request.set_top(2);
  grpc::ClientContext context;
  v1::ScoreResult result;
  const grpc::Status status = generation_->Score(&context, request, &result);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(result.token_ids(), ::testing::ElementsAre('a', 'b', 'c'));
  EXPECT_THAT(result.logprobs(), ::testing::ElementsAre(-'b' / 4.0f, -'c' / 4.0f));
  ASSERT_EQ(result.tokens_size(), 3);
  EXPECT_FALSE(result.tokens(0).has_logprob());
  EXPECT_EQ(result.tokens(2).text(), "c");
  EXPECT_EQ(result.tokens(2).top_size(), 2);
  EXPECT_TRUE(Eventually([this] { return BlocksAreFree(); }));
}

TEST_F(GenerationServiceTest, TokenizeAndDetokenizeAreInverse) {
  Start();
  v1::TokenizeRequest tokenize;
  tokenize.set_text("caf\xc3\xa9<|im_end|>");
  grpc::ClientContext first, second;
  v1::TokenizeResult ids;
  ASSERT_TRUE(generation_->Tokenize(&first, tokenize, &ids).ok());
  v1::DetokenizeRequest detokenize;
  *detokenize.mutable_token_ids() = ids.token_ids();
  v1::DetokenizeResult text;
  ASSERT_TRUE(generation_->Detokenize(&second, detokenize, &text).ok());
  EXPECT_EQ(text.text(), tokenize.text());
}

TEST_F(GenerationServiceTest, WithoutATokenizerTextIsAFailedPreconditionAndIdsWork) {
  Start(DefaultOptions(), nullptr);
  v1::GenerateRequest request;
  request.set_text("hello");
  const grpc::Status status = Generate(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(DetailOf<google::rpc::PreconditionFailure>(status).violations_size(), 1);
  v1::GenerateResult result;
  ASSERT_TRUE(Generate(Ids({1}, 3), &result).ok());
  EXPECT_EQ(result.outputs(0).token_ids_size(), 3);
  EXPECT_EQ(result.outputs(0).text(), "");
}

}  // namespace
}  // namespace cohort
