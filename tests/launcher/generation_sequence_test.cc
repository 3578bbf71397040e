#include "launcher/generation_sequence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/launcher/service_fixture.h"

namespace cohort {
namespace {

using ::testing::ElementsAre;

class GenerationSequenceTest : public ::testing::Test {
 protected:
  GenerationSequenceTest() : tokenizer_(MakeByteTokenizer()) {
    context_ = MakeTestContext(tokenizer_.get(), 100);
    request_.mutable_token_ids()->add_ids('p');
    request_.mutable_token_ids()->add_ids('q');
  }

  GenerationSequence& Start(uint32_t index = 0) {
    generation_ = ValidateGenerate(request_, context_, 5).value();
    return sequence_.emplace(context_, generation_, index);
  }
  v1::Finished Finish(FinishReason reason) {
    cohort::Finish finish;
    finish.reason = reason;
    finish.prompt_logprobs = {-0.5f};
    finish.prompt_top = {{.id = 'q', .logprob = -0.5f}, {.id = 258, .logprob = -1}};
    return sequence_->Finished(finish);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  ServingContext context_;
  v1::GenerateRequest request_;
  Generation generation_;
  std::optional<GenerationSequence> sequence_;
};

TEST_F(GenerationSequenceTest, AStopStringEndsItWithTheTokenThatCompletesIt) {
  request_.mutable_stopping()->add_stop_strings("cd");
  GenerationSequence& sequence = Start(3);
  const std::vector<int32_t> first = {'a', 'b', 'c'};
  const v1::Delta begin = sequence.Append({.first_index = 0, .ids = first});
  EXPECT_EQ(begin.index(), 3u);
  EXPECT_EQ(begin.text(), "ab") << "c may become the stop string";
  EXPECT_THAT(begin.token_ids(), ElementsAre('a', 'b', 'c'));
  const std::vector<int32_t> second = {'d', 'e', 'f'};
  const v1::Delta end = sequence.Append({.first_index = 3, .ids = second});
  EXPECT_EQ(end.text(), "");
  EXPECT_THAT(end.token_ids(), ElementsAre('d'));
  EXPECT_EQ(end.first_position(), 3u);
  EXPECT_TRUE(sequence.stopped());
  EXPECT_FALSE(HasContent(sequence.Append({.first_index = 6, .ids = first})));
  EXPECT_FALSE(HasContent(sequence.Flush()));
  const v1::Finished finished = Finish(FinishReason::kStop);
  EXPECT_EQ(finished.stop().stop_string(), "cd");
  EXPECT_EQ(finished.usage().completion_tokens(), 4u);
}

TEST_F(GenerationSequenceTest, AStopStringOfTheLastTokenIsAStop) {
  request_.mutable_stopping()->add_stop_strings("b");
  request_.mutable_stopping()->set_include_stop(true);
  const std::vector<int32_t> ids = {'a', 'b'};
  EXPECT_EQ(Start().Append({.ids = ids}).text(), "ab");
  EXPECT_EQ(Finish(FinishReason::kLength).reason(), v1::FINISH_REASON_STOP);
}

TEST_F(GenerationSequenceTest, HeldTextComesAtTheEnd) {
  request_.mutable_stopping()->add_stop_strings("cd");
  const std::vector<int32_t> ids = {'c', 0xc3};
  EXPECT_EQ(Start().Append({.ids = ids}).text(), "");
  EXPECT_EQ(sequence_->Flush().text(), "c\xef\xbf\xbd");
  const v1::Finished finished = Finish(FinishReason::kLength);
  EXPECT_EQ(finished.reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_FALSE(finished.has_stop());
}

TEST_F(GenerationSequenceTest, StopStringsAreNotLookedForBeforeMinTokens) {
  request_.mutable_stopping()->add_stop_strings("a");
  request_.mutable_stopping()->set_min_tokens(2);
  const std::vector<int32_t> ids = {'a', 'a', 'a', 'b'};
  EXPECT_EQ(Start().Append({.ids = ids}).text(), "aa");
  EXPECT_TRUE(sequence_->stopped());
  EXPECT_EQ(Finish(FinishReason::kStop).usage().completion_tokens(), 3u);
}

TEST_F(GenerationSequenceTest, SaysWhichTokenEndedIt) {
  request_.mutable_stopping()->add_stop_token_ids('z');
  const std::vector<int32_t> by_model = {'a', 258};
  EXPECT_EQ(Start().Append({.ids = by_model}).text(), "a");
  EXPECT_EQ(Finish(FinishReason::kStop).stop().eos_token_id(), 258u);
  const std::vector<int32_t> by_request = {'z'};
  EXPECT_EQ(Start().Append({.ids = by_request}).text(), "");
  EXPECT_EQ(Finish(FinishReason::kStop).stop().stop_token_id(), static_cast<uint32_t>('z'));
}

TEST_F(GenerationSequenceTest, DeliversWhatWasAskedFor) {
  request_.mutable_output()->set_text(false);
  request_.mutable_output()->set_logprobs(1);
  const std::vector<int32_t> ids = {'a', 258};
  const std::vector<float> logprobs = {-0.25f, -2};
  const std::vector<TokenLogprob> top = {{.id = 'a', .logprob = -0.25f},
                                         {.id = 'b', .logprob = -1}};
  const v1::Delta delta = Start().Append({.ids = ids, .logprobs = logprobs, .top = top});
  EXPECT_EQ(delta.text(), "");
  ASSERT_EQ(delta.logprobs_size(), 2);
  EXPECT_EQ(delta.logprobs(0).text(), "a");
  EXPECT_EQ(delta.logprobs(1).text(), "<|im_end|>");
  EXPECT_EQ(delta.logprobs(1).logprob(), -2);
  ASSERT_EQ(delta.logprobs(1).top_size(), 1);
  EXPECT_EQ(delta.logprobs(1).top(0).text(), "b");

  request_.mutable_output()->set_token_ids(false);
  request_.mutable_output()->clear_logprobs();
  EXPECT_FALSE(HasContent(Start().Append({.ids = ids})));
  request_.mutable_output()->set_text(true);
  request_.mutable_output()->set_skip_special(false);
  const std::vector<int32_t> special = {'a', 257};
  EXPECT_EQ(Start().Append({.ids = special}).text(), "a<|im_start|>");
}

TEST_F(GenerationSequenceTest, PromptLogProbabilitiesBeginWithoutOne) {
  request_.mutable_output()->set_prompt_logprobs(2);
  Start();
  const v1::Finished finished = Finish(FinishReason::kLength);
  ASSERT_EQ(finished.prompt_logprobs_size(), 2);
  EXPECT_FALSE(finished.prompt_logprobs(0).has_logprob());
  EXPECT_EQ(finished.prompt_logprobs(0).text(), "p");
  EXPECT_EQ(finished.prompt_logprobs(1).logprob(), -0.5f);
  EXPECT_EQ(finished.prompt_logprobs(1).top(1).text(), "<|im_end|>");
  Start(1);
  EXPECT_EQ(Finish(FinishReason::kLength).prompt_logprobs_size(), 0) << "only with the first";
}

TEST(AddSequence, SumsWhatIsOfEachAndKeepsWhatIsOfTheRequest) {
  v1::Usage usage;
  v1::Timing timing;
  for (const uint32_t index : {1u, 0u}) {
    v1::Finished finished;
    finished.set_index(index);
    finished.mutable_usage()->set_prompt_tokens(7);
    finished.mutable_usage()->set_completion_tokens(10 + index);
    finished.mutable_usage()->set_cached_tokens(index);
    finished.mutable_timing()->set_time_to_first_token_milliseconds(5 + index);
    finished.mutable_timing()->set_total_milliseconds(20 + index);
    AddSequence(finished, usage, timing);
  }
  EXPECT_EQ(usage.prompt_tokens(), 7u);
  EXPECT_EQ(usage.completion_tokens(), 21u);
  EXPECT_EQ(usage.cached_tokens(), 0u);
  EXPECT_EQ(timing.time_to_first_token_milliseconds(), 5);
  EXPECT_EQ(timing.total_milliseconds(), 21);
}

TEST(FillTiming, LeavesWhatNeverHappenedAtZero) {
  RequestTiming timing;
  timing.submitted = absl::UnixEpoch();
  timing.scheduled = timing.first_token = absl::InfinitePast();
  timing.finished = absl::UnixEpoch() + absl::Milliseconds(5);
  v1::Timing message;
  FillTiming(timing, message);
  EXPECT_EQ(message.queued_milliseconds(), 0);
  EXPECT_EQ(message.time_to_first_token_milliseconds(), 0);
  EXPECT_EQ(message.total_milliseconds(), 5);
}

}  // namespace
}  // namespace cohort
