#include "launcher/generate_stream_call.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/launcher/service_fixture.h"

namespace cohort {
namespace {

using ::testing::HasSubstr;
using GenerateStreamCallTest = ServiceTest;

// What a client has of one sequence.
struct Received {
  std::string text;
  std::vector<uint32_t> ids;
  std::vector<v1::Finished> finishes;
};

// Deltas must follow each other without a gap, and the finish must be last.
std::vector<Received> Sort(const std::vector<v1::GenerateEvent>& events, size_t sequences) {
  std::vector<Received> received(sequences);
  for (const v1::GenerateEvent& event : events) {
    if (event.has_delta()) {
      Received& sequence = received.at(event.delta().index());
      EXPECT_TRUE(sequence.finishes.empty());
      EXPECT_EQ(event.delta().first_position(), sequence.ids.size());
      const auto& ids = event.delta().token_ids();
      sequence.ids.insert(sequence.ids.end(), ids.begin(), ids.end());
      sequence.text += event.delta().text();
    } else if (event.has_finished()) {
      received.at(event.finished().index()).finishes.push_back(event.finished());
    }
  }
  return received;
}

TEST_F(GenerateStreamCallTest, SequencesOfOneRequestComeInterleaved) {
  Start();
  v1::GenerateRequest request = Ids({1, 2}, 40);
  request.mutable_sampling()->set_n(3);
  std::vector<v1::GenerateEvent> events;
  ASSERT_TRUE(Stream(request, events).ok());
  EXPECT_EQ(events.front().accepted().sampling().n(), 3u);
  for (const Received& sequence : Sort(events, 3)) {
    EXPECT_EQ(sequence.ids.size(), 40u);
    ASSERT_EQ(sequence.finishes.size(), 1u);
    EXPECT_EQ(sequence.finishes[0].usage().completion_tokens(), 40u);
  }
  EXPECT_TRUE(BlocksAreFree());
}

TEST_F(GenerateStreamCallTest, CancellingEndsAllSequences) {
  Start();
  v1::GenerateRequest request = Ids({1}, 1'000'000);
  request.mutable_sampling()->set_n(4);
  grpc::ClientContext context;
  const auto stream = generation_->GenerateStream(&context, request);
  v1::GenerateEvent event;
  ASSERT_TRUE(stream->Read(&event));
  EXPECT_TRUE(Eventually([this] { return Load().running() == 4; }));
  context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([this] { return BlocksAreFree(); }));
}

TEST_F(GenerateStreamCallTest, AbortFinishesEachSequence) {
  Start();
  v1::GenerateRequest request = Ids({1}, 1'000'000);
  request.set_request_id("mine");
  request.mutable_sampling()->set_n(2);
  grpc::ClientContext context;
  const auto stream = generation_->GenerateStream(&context, request);
  std::vector<v1::GenerateEvent> events(1);
  ASSERT_TRUE(stream->Read(&events[0]));
  grpc::ClientContext abort_context;
  v1::AbortRequest abort;
  abort.add_request_ids("mine");
  v1::AbortResult aborted;
  ASSERT_TRUE(control_->Abort(&abort_context, abort, &aborted).ok());
  for (v1::GenerateEvent event; stream->Read(&event);) events.push_back(event);
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  for (const Received& sequence : Sort(events, 2)) {
    ASSERT_EQ(sequence.finishes.size(), 1u);
    EXPECT_EQ(sequence.finishes[0].reason(), v1::FINISH_REASON_CANCELLED);
  }
}

TEST_F(GenerateStreamCallTest, AQueueWithoutRoomForAllTakesNoneAndSaysSoAtOnce) {
  SchedulerOptions options = DefaultOptions();
  options.max_running = 1;
  options.max_waiting = 2;
  script_->Hold();
  Start(options, tokenizer_.get());
  grpc::ClientContext context;
  const auto running = generation_->GenerateStream(&context, Ids({1}, 4));
  ASSERT_TRUE(Eventually([this] { return Load().running() == 1; }));
  v1::GenerateRequest request = Ids({1}, 4);
  request.mutable_sampling()->set_n(3);
  request.set_request_id("many");
  for (int attempt = 0; attempt < 2; ++attempt) {
    std::vector<v1::GenerateEvent> events;
    const grpc::Status status = Stream(request, events);  // while no step ends
    EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
    EXPECT_EQ(DetailOf<google::rpc::RetryInfo>(status).retry_delay().seconds(), 1);
    EXPECT_TRUE(events.empty());
    EXPECT_EQ(Generate(request).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  }
  EXPECT_EQ(Load().waiting(), 0u);
  script_->Release();
  for (v1::GenerateEvent event; running->Read(&event);) {
  }
  EXPECT_TRUE(running->Finish().ok());
  request.mutable_sampling()->set_n(2);
  EXPECT_TRUE(Generate(request).ok());
}

TEST_F(GenerateStreamCallTest, AStopStringEndsTheSequenceEarly) {
  Start();  // after position 0 come b c d e ...
  v1::GenerateRequest request = Ids({1}, 1000);
  request.mutable_stopping()->add_stop_strings("efg");
  std::vector<v1::GenerateEvent> events;
  ASSERT_TRUE(Stream(request, events).ok());
  const std::vector<Received> received = Sort(events, 1);
  EXPECT_EQ(received[0].text, "abcd");
  EXPECT_EQ(received[0].ids.back(), static_cast<uint32_t>('g'));
  ASSERT_EQ(received[0].finishes.size(), 1u);
  EXPECT_EQ(received[0].finishes[0].reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(received[0].finishes[0].stop().stop_string(), "efg");
  EXPECT_EQ(received[0].finishes[0].usage().completion_tokens(), 7u);
}

TEST_F(GenerateStreamCallTest, LogProbabilitiesComeWithTheirTokens) {
  Start();
  v1::GenerateRequest request = Ids({7, 8, 9}, 5);
  request.mutable_output()->set_logprobs(2);
  request.mutable_output()->set_prompt_logprobs(1);
  std::vector<v1::GenerateEvent> events;
  ASSERT_TRUE(Stream(request, events).ok());
  int tokens = 0;
  for (const v1::GenerateEvent& event : events) {
    const v1::Delta& delta = event.delta();
    ASSERT_EQ(delta.logprobs_size(), delta.token_ids_size());
    for (int i = 0; i < delta.logprobs_size(); ++i, ++tokens) {
      EXPECT_EQ(delta.logprobs(i).token_id(), delta.token_ids(i));
      EXPECT_EQ(delta.logprobs(i).logprob(), -static_cast<float>(delta.token_ids(i)) / 4);
      EXPECT_EQ(delta.logprobs(i).top_size(), 2);
      EXPECT_EQ(delta.logprobs(i).top(1).token_id(), 1u);
    }
  }
  EXPECT_EQ(tokens, 5);
  const auto& prompt = events.back().finished().prompt_logprobs();
  ASSERT_EQ(prompt.size(), 3);
  EXPECT_FALSE(prompt[0].has_logprob());
  EXPECT_EQ(prompt[2].logprob(), -9 / 4.0f);
  EXPECT_EQ(prompt[2].top(0).token_id(), 0u);

  v1::GenerateResult result;
  ASSERT_TRUE(Generate(request, &result).ok());
  EXPECT_EQ(result.outputs(0).logprobs_size(), 5);
  EXPECT_EQ(result.prompt_logprobs_size(), 3);
}

// Reads nothing until the server stands still, then everything.
TEST_F(GenerateStreamCallTest, ASlowReaderPausesItsSequencesAndLosesNothing) {
  Start();
  // Some 300 bytes a token, in all more than the sockets' buffers take.
  constexpr uint32_t kTokens = 60'000;
  v1::GenerateRequest request = Ids({1}, kTokens);
  request.mutable_sampling()->set_n(2);
  request.mutable_output()->set_logprobs(20);
  grpc::ClientContext context;
  const auto stream = generation_->GenerateStream(&context, request);
  ASSERT_TRUE(Eventually([&] {
    std::vector<v1::GenerateEvent> others;  // another request is served meanwhile
    EXPECT_TRUE(Stream(Ids({1}, 50), others).ok());
    return Load().paused() == 2;
  }));
  EXPECT_LT(Load().generated_tokens(), 2 * kTokens);
  std::vector<v1::GenerateEvent> events;
  for (v1::GenerateEvent event; stream->Read(&event);) events.push_back(event);
  EXPECT_TRUE(stream->Finish().ok());
  for (const Received& sequence : Sort(events, 2)) EXPECT_EQ(sequence.ids.size(), kTokens);
}

TEST_F(GenerateStreamCallTest, AReaderThatNeverReadsIsEndedByItsDeadline) {
  Start();
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(2)));
  const auto stream = generation_->GenerateStream(&context, Ids({1}, 1'000'000));
  EXPECT_TRUE(Eventually([this] { return Load().requests_finished() == 1; }));
  EXPECT_TRUE(Eventually([this] { return BlocksAreFree(); }));
  for (v1::GenerateEvent event; stream->Read(&event);) {
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(GenerateStreamCallTest, TheWholeResultHasEverySequence) {
  Start();
  v1::GenerateRequest request = Ids({1, 2}, 10);
  request.mutable_sampling()->set_n(2);
  v1::GenerateResult result;
  ASSERT_TRUE(Generate(request, &result).ok());
  ASSERT_EQ(result.outputs_size(), 2);
  EXPECT_EQ(result.outputs(1).index(), 1u);
  EXPECT_EQ(result.outputs(1).token_ids_size(), 10);
  EXPECT_EQ(result.usage().prompt_tokens(), 2u);
  EXPECT_EQ(result.usage().completion_tokens(), 20u);
  request.mutable_output()->set_logprobs(20);
  request.mutable_stopping()->set_max_tokens(500'000);
  EXPECT_THAT(Generate(request).error_message(), HasSubstr("output.logprobs"));
}

}  // namespace
}  // namespace cohort
