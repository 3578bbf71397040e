#include "launcher/control_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/launcher/service_fixture.h"

namespace cohort {
namespace {

class ControlServiceTest : public ServiceTest {};

TEST_F(ControlServiceTest, LoadTellsGroupAndEngine) {
  Start();
  grpc::ClientContext context;
  v1::GenerateResult result;
  ASSERT_TRUE(generation_->Generate(&context, Ids({1, 2}, 5), &result).ok());
  const v1::Load load = Load();
  EXPECT_EQ(load.state(), "serving");
  EXPECT_EQ(load.epoch(), 1);
  EXPECT_EQ(load.running(), 0);
  EXPECT_EQ(load.kv_blocks_used(), 0);
  EXPECT_EQ(load.kv_blocks_total(), 1 << 16);
  EXPECT_EQ(load.block_size(), 16);
  EXPECT_EQ(load.requests_finished(), 1);
  EXPECT_EQ(load.generated_tokens(), 5);
  EXPECT_GE(load.steps(), 5);
  ASSERT_EQ(load.ranks_size(), 1);
  EXPECT_EQ(load.ranks(0).process_id(), 4711);
}

TEST_F(ControlServiceTest, ModelAndServerDescribeThemselves) {
  Start();
  grpc::ClientContext first, second;
  v1::ModelInfo model;
  ASSERT_TRUE(control_->GetModelInfo(&first, {}, &model).ok());
  EXPECT_EQ(model.name(), "tiny");
  EXPECT_EQ(model.vocabulary(), kTestVocabulary);
  EXPECT_TRUE(model.has_tokenizer());
  EXPECT_THAT(model.eos_token_ids(), ::testing::ElementsAre(256, 258));
  v1::ServerInfo server;
  ASSERT_TRUE(control_->GetServerInfo(&second, {}, &server).ok());
  EXPECT_EQ(server.instance_id(), "instance");
  EXPECT_GE(server.uptime_seconds(), 0);
}

}  // namespace
}  // namespace cohort
