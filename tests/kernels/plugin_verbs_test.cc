// Every operation reaches the plugin's table with its tensors and numbers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/kernels/plugin_fixture.h"

namespace cohort {
namespace {

using ::testing::ElementsAre;

using PluginOpsTest = PluginDeviceTest;

TEST_F(PluginOpsTest, PointwiseVerbsArrive) {
  const TensorView x = View({2, 8}, DType::kF32);
  const TensorView out = View({2, 8}, DType::kF32);
  const TensorView gamma = View({8}, DType::kF32);
  const TensorView ids = View({2}, DType::kI32);
  const TensorView half = View({2, 4}, DType::kF32);
  device_.ops().Embed(ids, View({5, 8}, DType::kF32), 7, out);
  EXPECT_EQ(other_side_.verb, "embed");
  EXPECT_EQ(other_side_.number, 7);
  EXPECT_EQ(other_side_.tensors[0].data, ids.data);
  device_.ops().RmsNorm(x, gamma, 0.5f, out);
  EXPECT_EQ(other_side_.verb, "rms_norm");
  EXPECT_EQ(other_side_.real, 0.5f);
  EXPECT_THAT(Arrived(), ElementsAre(x.data, gamma.data, out.data));
  const TensorView residual = View({2, 8}, DType::kF32);
  device_.ops().AddRmsNorm(residual, x, gamma, 0.25f, out);
  EXPECT_EQ(other_side_.verb, "add_rms_norm");
  EXPECT_EQ(other_side_.real, 0.25f);
  EXPECT_THAT(Arrived(), ElementsAre(residual.data, x.data, gamma.data, out.data));
  device_.ops().SiluMultiply(x, half);
  EXPECT_EQ(other_side_.verb, "silu_multiply");
  EXPECT_THAT(Arrived(), ElementsAre(x.data, half.data));
  device_.ops().GatherRows(x, ids, out);
  EXPECT_EQ(other_side_.verb, "gather_rows");
  EXPECT_THAT(Arrived(), ElementsAre(x.data, ids.data, out.data));
}

TEST_F(PluginOpsTest, MatMulArrivesWithAndWithoutBias) {
  const TensorView x = View({2, 8}, DType::kBF16);
  const Weight weight = {View({4, 8}, DType::kBF16)};
  const TensorView bias = View({4}, DType::kBF16);
  const TensorView out = View({2, 4}, DType::kF32);
  device_.ops().MatMul(x, weight, nullptr, out);
  EXPECT_EQ(other_side_.verb, "mat_mul");
  EXPECT_THAT(Arrived(), ElementsAre(x.data, weight.data.data, out.data));
  device_.ops().MatMul(x, weight, &bias, out);
  EXPECT_THAT(Arrived(), ElementsAre(x.data, weight.data.data, out.data, bias.data));
}

TEST_F(PluginOpsTest, DenseLayersArriveAndAreComposedWhereTheyAreNotTaken) {
  const auto bf16 = [&](Shape shape) { return View(shape, DType::kBF16); };
  const TensorView bias = bf16({16});
  const DenseLayer layer = {.attention_norm = bf16({8}),
                            .qkv = {bf16({16, 8})},
                            .qkv_bias = &bias,
                            .attention_out = {bf16({8, 8})},
                            .ffn_norm = bf16({8}),
                            .gate_up = {bf16({6, 8})},
                            .down = {bf16({8, 3})},
                            .kv = {bf16({3, 1, 4, 4}), bf16({3, 1, 4, 4})}};
  const std::vector<DenseLayer> layers = {layer, layer};
  const std::vector<int32_t> heads = {0, 0};
  const BatchView batch = {.tokens = 1,
                           .sequences = 1,
                           .positions = View({1}, DType::kI32),
                           .sequence_of_token = View({1}, DType::kI32),
                           .block_table = View({1, 3}, DType::kI32),
                           .rope_rows = View({1}, DType::kI32),
                           .first_rows = View({2}, DType::kI32),
                           .leading_decodes = 1,
                           .longest_chunk = 1};
  const DenseStep step = {.layers = layers,
                          .final_norm = bf16({8}),
                          .eps = 0.25f,
                          .rope = {View({9, 2}, DType::kF32), View({9, 2}, DType::kF32)},
                          .batch = batch,
                          .kv_head_of_query = heads,
                          .scale = 0.5f,
                          .residual = bf16({1, 8}),
                          .normed = bf16({1, 8}),
                          .partial = View({1, 8}, DType::kF32),
                          .qkv = bf16({1, 16}),
                          .attended = bf16({1, 8}),
                          .gate_up = bf16({1, 6}),
                          .activated = bf16({1, 3})};
  other_side_.takes_dense_layers = true;
  device_.ops().DenseLayers(step);
  EXPECT_EQ(other_side_.verb, "dense_layers");
  EXPECT_EQ(other_side_.number, 20);
  EXPECT_EQ(other_side_.real, 0.75f);
  EXPECT_THAT(other_side_.heads, ElementsAre(0, 0));
  EXPECT_THAT(Arrived(), ElementsAre(layer.attention_norm.data, layer.qkv.data.data, bias.data,
                                     layer.attention_out.data.data, layer.ffn_norm.data,
                                     layer.gate_up.data.data, layer.down.data.data,
                                     layer.kv.keys.data, layer.kv.values.data, step.final_norm.data,
                                     step.rope.cosine.data, batch.positions.data,
                                     step.residual.data, step.normed.data, step.partial.data,
                                     step.qkv.data, step.attended.data, step.activated.data));
  other_side_.takes_dense_layers = false;
  device_.ops().DenseLayers(step);
  EXPECT_EQ(other_side_.verb, "add_rms_norm");
  EXPECT_THAT(Arrived(), ElementsAre(step.residual.data, step.partial.data, step.final_norm.data,
                                     step.normed.data));
}

TEST_F(PluginOpsTest, NextWeightsArrive) {
  const TensorView product = View({4, 8}, DType::kBF16);
  device_.ops().PrefetchWeights({.product = product});
  EXPECT_EQ(other_side_.verb, "prefetch_weights");
  EXPECT_THAT(Arrived(), ElementsAre(product.data, nullptr));
}

TEST_F(PluginOpsTest, AttentionVerbsArrive) {
  const TensorView qkv = View({2, 32}, DType::kF32);
  const TensorView queries = View({2, 16}, DType::kF32);
  const TensorView out = View({2, 16}, DType::kF32);
  const RopeTable rope = {View({9, 4}, DType::kF32), View({9, 4}, DType::kF32)};
  const BatchView batch = {.tokens = 2,
                           .sequences = 1,
                           .positions = View({2}, DType::kI32),
                           .sequence_of_token = View({2}, DType::kI32),
                           .block_table = View({1, 3}, DType::kI32),
                           .rope_rows = View({2}, DType::kI32),
                           .first_rows = View({2}, DType::kI32),
                           .longest_chunk = 2};
  const KvView kv = {View({3, 1, 4, 8}, DType::kF32), View({3, 1, 4, 8}, DType::kF32)};
  device_.ops().RopeAndStoreKv(qkv, 2, rope, batch, kv);
  EXPECT_EQ(other_side_.verb, "rope_and_store_kv");
  EXPECT_EQ(other_side_.number, 2);
  EXPECT_THAT(Arrived(),
              ElementsAre(qkv.data, rope.cosine.data, rope.sine.data, batch.positions.data,
                          batch.sequence_of_token.data, batch.block_table.data,
                          batch.rope_rows.data, kv.keys.data, kv.values.data));
  device_.ops().PagedAttention(queries, {0, 0}, batch, kv, 0.5f, out);
  EXPECT_EQ(other_side_.verb, "paged_attention");
  EXPECT_THAT(other_side_.heads, ElementsAre(0, 0));
  EXPECT_EQ(other_side_.real, 0.5f);
  EXPECT_THAT(Arrived(),
              ElementsAre(queries.data, batch.positions.data, batch.sequence_of_token.data,
                          batch.block_table.data, kv.keys.data, kv.values.data, out.data));
  EXPECT_THAT(other_side_.tensors[4].dims, ElementsAre(3, 1, 4, 8));
}

TEST_F(PluginOpsTest, DualChunkAttentionArrives) {
  const TensorView queries = View({2, 16}, DType::kF32);
  const TensorView out = View({2, 16}, DType::kF32);
  const RopeTable rope = {View({8, 4}, DType::kF32), View({8, 4}, DType::kF32)};
  const BatchView batch = {.tokens = 2,
                           .sequences = 1,
                           .positions = View({2}, DType::kI32),
                           .sequence_of_token = View({2}, DType::kI32),
                           .block_table = View({1, 3}, DType::kI32),
                           .logit_factors = View({2}, DType::kF32),
                           .first_rows = View({2}, DType::kI32),
                           .longest_chunk = 2};
  const KvView kv = {View({3, 1, 4, 8}, DType::kF32), View({3, 1, 4, 8}, DType::kF32)};
  device_.ops().DualChunkAttention(queries, {0, 0}, {9, 4, rope}, batch, kv, 0.5f, out);
  EXPECT_EQ(other_side_.verb, "dual_chunk_attention");
  EXPECT_EQ(other_side_.number, 904);
  EXPECT_THAT(other_side_.heads, ElementsAre(0, 0));
  EXPECT_EQ(other_side_.real, 0.5f);
  EXPECT_THAT(Arrived(),
              ElementsAre(queries.data, rope.cosine.data, rope.sine.data, batch.logit_factors.data,
                          kv.keys.data, kv.values.data, out.data));
}

TEST_F(PluginOpsTest, SamplingVerbsArrive) {
  const TensorView logits = View({1, 10}, DType::kF32);
  const TensorView ids = View({1}, DType::kI32);
  device_.ops().Sample(logits,
                       {SamplingRow{.temperature = 0.5f,
                                    .top_p = 0.25f,
                                    .top_k = 6,
                                    .seed = 7,
                                    .sequence_index = 8,
                                    .position = 9}},
                       5, ids);
  EXPECT_EQ(other_side_.verb, "sample");
  EXPECT_EQ(other_side_.number, 5);
  ASSERT_EQ(other_side_.sampling_rows.size(), 1u);
  const CohortCudaSamplingRow& row = other_side_.sampling_rows[0];
  EXPECT_EQ(row.temperature, 0.5f);
  EXPECT_EQ(row.top_p, 0.25f);
  EXPECT_EQ(row.top_k, 6);
  EXPECT_EQ(row.seed, 7u);
  EXPECT_EQ(row.sequence_index, 8u);
  EXPECT_EQ(row.position, 9u);
}

TEST_F(PluginOpsTest, VerbsOfRanksColumnsArrive) {
  const TensorView logits = View({2, 3}, DType::kF32);
  const TensorView records = View({2, 8}, DType::kI32);
  const VocabularySlice slice{.first_id = 10, .valid_ids = 12};
  const LogitEdit ids[] = {{.id = 10, .is_repeated = true, .bias = 4, .penalty = 0.5f}, {.id = 11}};
  const int32_t allowed[] = {10, 11};
  const CandidateRequest first{.edits = {.ids = {ids, 1}}, .candidates = 1};
  const CandidateRequest second{.edits = {.ids = {ids + 1, 1},
                                          .repetition_penalty = 1.5f,
                                          .only_allowed = true,
                                          .allowed = allowed},
                                .candidates = 1,
                                .temperature = 0.25f,
                                .target = 11};
  device_.ops().LocalCandidates(logits, {first, second}, slice, records);
  EXPECT_EQ(other_side_.verb, "local_candidates");
  EXPECT_THAT(Arrived(), ElementsAre(logits.data, records.data));
  ASSERT_EQ(other_side_.edited_ids.size(), 2u);
  EXPECT_EQ(other_side_.edited_ids[0].id, 10);
  EXPECT_EQ(other_side_.edited_ids[0].is_repeated, 1);
  EXPECT_EQ(other_side_.edited_ids[0].bias, 4);
  EXPECT_EQ(other_side_.edited_ids[0].penalty, 0.5f);
  EXPECT_EQ(other_side_.edited_ids[1].id, 11);
  EXPECT_THAT(other_side_.allowed, ElementsAre(10, 11));
  EXPECT_EQ(other_side_.edits[0].only_allowed, 0);
  EXPECT_EQ(other_side_.edits[1].only_allowed, 1);
  EXPECT_EQ(other_side_.edits[1].repetition_penalty, 1.5f);
  EXPECT_EQ(other_side_.candidate_request.candidates, 1);
  EXPECT_EQ(other_side_.candidate_request.temperature, 0.25f);
  EXPECT_EQ(other_side_.candidate_request.target, 11);
  EXPECT_EQ(other_side_.slice.first_id, 10);
  EXPECT_EQ(other_side_.slice.valid_ids, 12);
  device_.ops().EditLogits(logits, {first.edits, second.edits}, 10, View({2, 3}, DType::kF32));
  EXPECT_EQ(other_side_.verb, "edit_logits");
  EXPECT_EQ(other_side_.number, 10);
  EXPECT_EQ(other_side_.edited_ids.size(), 2u);
}

TEST_F(PluginOpsTest, MassesAndRecordedVerbsArrive) {
  const TensorView logits = View({2, 3}, DType::kF32);
  const TensorView words = View({1, 2}, DType::kI32);
  const LogitEdit edit{.id = 10, .bias = 4};
  const MassRequest request{.row = 1,
                            .edits = {.ids = {&edit, 1}},
                            .temperature = 0.5f,
                            .largest = 4,
                            .lowest = 3,
                            .wanted = uint64_t{1} << 40};
  const auto expect_request = [&](const std::string& verb) {
    EXPECT_EQ(other_side_.verb, verb);
    EXPECT_THAT(Arrived(), ElementsAre(logits.data, words.data));
    EXPECT_EQ(other_side_.edited_ids.at(0).bias, 4);
    EXPECT_EQ(other_side_.mass_request.row, 1);
    EXPECT_EQ(other_side_.mass_request.temperature, 0.5f);
    EXPECT_EQ(other_side_.mass_request.largest, 4);
    EXPECT_EQ(other_side_.mass_request.lowest, 3);
    EXPECT_EQ(other_side_.mass_request.wanted, uint64_t{1} << 40);
  };
  device_.ops().LocalMasses(logits, {request}, {.first_id = 10, .valid_ids = 13}, words);
  expect_request("local_masses");
  device_.ops().LocalPick(logits, {request}, {.first_id = 10, .valid_ids = 13}, words);
  expect_request("local_pick");
  const TensorView sampling = View({2, kSamplingWords}, DType::kI32);
  const TensorView records = View({2, 11}, DType::kI32);
  device_.ops().RecordedCandidates(logits, sampling, 2, {.first_id = 10, .valid_ids = 13}, records);
  EXPECT_EQ(other_side_.verb, "recorded_candidates");
  EXPECT_EQ(other_side_.number, 2);
  EXPECT_EQ(other_side_.slice.valid_ids, 13);
  EXPECT_THAT(Arrived(), ElementsAre(logits.data, sampling.data, records.data));
  const TensorView gathered = View({2, 33}, DType::kI32);
  const TensorView tokens = View({2}, DType::kI32);
  device_.ops().ChooseRecorded(gathered, 3, sampling, 13, tokens);
  EXPECT_EQ(other_side_.verb, "choose_recorded");
  EXPECT_EQ(other_side_.number, 3013);
  EXPECT_THAT(Arrived(), ElementsAre(gathered.data, sampling.data, tokens.data));
  const RecordedRows rows{gathered, 3, sampling, tokens};
  const TensorView two = View({2, 2}, DType::kI32);
  device_.ops().RecordedMasses(logits, rows, {.first_id = 10, .valid_ids = 12}, two);
  EXPECT_EQ(other_side_.verb, "recorded_masses");
  EXPECT_EQ(other_side_.number, 3);
  EXPECT_EQ(other_side_.slice.valid_ids, 12);
  EXPECT_THAT(Arrived(),
              ElementsAre(logits.data, gathered.data, sampling.data, tokens.data, two.data));
  const TensorView masses = View({2, 6}, DType::kI32);
  device_.ops().RecordedPicks(logits, rows, masses, 2, {.first_id = 10, .valid_ids = 12}, two);
  EXPECT_EQ(other_side_.verb, "recorded_picks");
  EXPECT_EQ(other_side_.number, 3002);
  EXPECT_THAT(Arrived(), ElementsAre(logits.data, gathered.data, sampling.data, tokens.data,
                                     masses.data, two.data));
  device_.ops().TakePicks(masses, tokens);
  EXPECT_EQ(other_side_.verb, "take_picks");
  EXPECT_THAT(Arrived(), ElementsAre(masses.data, tokens.data));
  device_.ops().SampleUndecided(logits, sampling, 3, tokens);
  EXPECT_EQ(other_side_.verb, "sample_undecided");
  EXPECT_EQ(other_side_.number, 3);
  EXPECT_THAT(Arrived(), ElementsAre(logits.data, sampling.data, tokens.data));
}

}  // namespace
}  // namespace cohort
