#include "launcher/client.h"

#include <gtest/gtest.h>

#include <cmath>

#include "launcher/score_command.h"
#include "launcher/status_command.h"

namespace cohort {
namespace {

TEST(RoundTripFloat, IsShortAndExact) {
  for (const float value : {0.1f, -1.23456789f, 1e-30f, -17.0f, 3.4028235e38f}) {
    EXPECT_EQ(static_cast<float>(RoundTripFloat(value)), value);
    EXPECT_LE(nlohmann::ordered_json(RoundTripFloat(value)).dump().size(), 15u);
  }
}

TEST(ScoreJson, StartsWithNull) {
  v1::ScoreResult result;
  EXPECT_EQ(ToJson(result).dump(), R"({"token_ids":[],"logprobs":[]})");
  result.add_token_ids(5);
  EXPECT_EQ(ToJson(result).dump(), R"({"token_ids":[5],"logprobs":[null]})");
  result.add_token_ids(6);
  result.add_logprobs(-0.1f);
  EXPECT_EQ(ToJson(result).dump(), R"({"token_ids":[5,6],"logprobs":[null,-0.100000001]})");
  v1::TopLogprob& top = *(result.add_tokens(), result.add_tokens())->add_top();
  top.set_token_id(7);
  top.set_logprob(-0.5f);
  EXPECT_EQ(ToJson(result)["top"].dump(), R"([[],[{"token_id":7,"logprob":-0.5}]])");
}

TEST(StatusJson, HasTheDocumentedFieldsAndTheRanks) {
  v1::Load load;
  load.set_state("serving");
  load.set_epoch(2);
  load.set_kv_blocks_total(7);
  v1::RankInfo& rank = *load.add_ranks();
  rank.set_process_id(42);
  rank.set_state("serving");
  const nlohmann::ordered_json json = ToJson(load);
  for (const char* key :
       {"state", "epoch", "running", "waiting", "kv_blocks_used", "kv_blocks_total", "block_size",
        "ranks", "steps", "requests_finished", "prompt_tokens", "generated_tokens",
        "last_step_milliseconds", "paused", "kv_blocks_cached", "preemptions",
        "prefix_queried_tokens", "prefix_hit_tokens", "expert_hits"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(json["ranks"][0]["pid"], 42);
  EXPECT_EQ(json["ranks"][0]["rank"], 0);
}

}  // namespace
}  // namespace cohort
