#include "launcher/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace cohort {
namespace {

using ::testing::HasSubstr;

CommandLine Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "cohort");
  return ParseCommandLine(static_cast<int>(arguments.size()), arguments.data());
}

TEST(CommandLine, ServeHasTheDocumentedDefaults) {
  const CommandLine line = Parse({"serve", "dir"});
  ASSERT_EQ(line.command, Command::kServe) << line.error;
  EXPECT_EQ(line.serve.model, "dir");
  EXPECT_EQ(line.serve.tp, 1);
  EXPECT_EQ(line.serve.dp, 1);
  EXPECT_EQ(line.serve.listen.ToString(), "127.0.0.1:9000");
  EXPECT_EQ(line.serve.kv_memory_bytes, std::nullopt);
  EXPECT_EQ(line.serve.gpu_memory, std::nullopt);
  EXPECT_EQ(line.serve.max_running, 256);
  EXPECT_EQ(line.serve.max_waiting, 1024);
  EXPECT_EQ(line.serve.drain_timeout, absl::Seconds(30));
  EXPECT_EQ(line.serve.step_timeout, absl::Seconds(300));
  EXPECT_TRUE(line.serve.mask_padding);
  EXPECT_FALSE(line.serve.strict);
}

TEST(CommandLine, AGroupOverSeveralNodes) {
  const CommandLine line =
      Parse({"serve", "dir", "--tp", "4", "--agents", "2", "--cluster-listen", "10.0.0.1:9100",
             "--join-token-file", "secret", "--agents-timeout", "1m", "--agent-timeout", "3s"});
  ASSERT_EQ(line.command, Command::kServe) << line.error;
  EXPECT_EQ(line.serve.agents, 2);
  ASSERT_TRUE(line.serve.cluster_listen.has_value());
  EXPECT_EQ(line.serve.cluster_listen->ToString(), "10.0.0.1:9100");
  EXPECT_EQ(line.serve.join_token.file, "secret");
  EXPECT_EQ(line.serve.agents_timeout, absl::Minutes(1));
  EXPECT_EQ(line.serve.agent_timeout, absl::Seconds(3));
  EXPECT_FALSE(Parse({"serve", "dir"}).serve.cluster_listen.has_value());
}

TEST(CommandLine, NodeTakesEveryFlagAndNeedsAnAddressToJoin) {
  const CommandLine line =
      Parse({"node", "--join", "10.0.0.1:9100", "--name", "b", "--model", "/models/b", "--address",
             "10.0.0.2", "--join-token", "secret", "--join-timeout", "30s"});
  ASSERT_EQ(line.command, Command::kNode) << line.error;
  EXPECT_EQ(line.node.join.ToString(), "10.0.0.1:9100");
  EXPECT_EQ(line.node.name, "b");
  EXPECT_EQ(line.node.model, "/models/b");
  EXPECT_EQ(line.node.address, "10.0.0.2");
  EXPECT_EQ(line.node.join_token.value, "secret");
  EXPECT_EQ(line.node.join_timeout, absl::Seconds(30));
  EXPECT_EQ(Parse({"node", "--join", "a:1"}).node.join_timeout, absl::Minutes(10));
  EXPECT_EQ(Parse({"node"}).exit_code, 2);
  EXPECT_THAT(Parse({"node", "--join", "nowhere"}).error, HasSubstr("--join"));
}

TEST(CommandLine, ServeTakesEveryFlag) {
  const CommandLine line = Parse({"serve",
                                  "dir",
                                  "--tp",
                                  "3",
                                  "--device",
                                  "cpu",
                                  "--dtype",
                                  "bf16",
                                  "--listen",
                                  "[::1]:0",
                                  "--threads",
                                  "2",
                                  "--max-model-len",
                                  "128",
                                  "--max-running",
                                  "4",
                                  "--max-batch-tokens",
                                  "7",
                                  "--kv-memory",
                                  "1GiB",
                                  "--block-size",
                                  "8",
                                  "--load-format",
                                  "dummy",
                                  "--drain-timeout",
                                  "500ms",
                                  "--strict",
                                  "--no-mask-padding",
                                  "--no-reflection",
                                  "--served-model-name",
                                  "m",
                                  "--max-waiting",
                                  "5",
                                  "--step-timeout",
                                  "9s"});
  ASSERT_EQ(line.command, Command::kServe) << line.error;
  const ServeOptions& serve = line.serve;
  EXPECT_EQ(serve.tp, 3);
  EXPECT_EQ(serve.device, "cpu");
  EXPECT_EQ(serve.dtype, "bf16");
  EXPECT_EQ(serve.listen.host, "::1");
  EXPECT_EQ(serve.threads, 2);
  EXPECT_EQ(serve.max_model_len, 128);
  EXPECT_EQ(serve.max_running, 4);
  EXPECT_EQ(serve.max_batch_tokens, 7);
  EXPECT_EQ(serve.kv_memory_bytes, int64_t{1} << 30);
  EXPECT_EQ(serve.block_size, 8);
  EXPECT_TRUE(serve.dummy_weights);
  EXPECT_EQ(serve.drain_timeout, absl::Milliseconds(500));
  EXPECT_TRUE(serve.strict);
  EXPECT_FALSE(serve.mask_padding);
  EXPECT_FALSE(serve.reflection);
  EXPECT_EQ(serve.served_model_name, "m");
  EXPECT_EQ(serve.max_waiting, 5);
  EXPECT_EQ(serve.step_timeout, absl::Seconds(9));
}

TEST(CommandLine, ExpertGroupsHaveAFlag) {
  EXPECT_EQ(Parse({"serve", "dir"}).serve.ep, 1);
  EXPECT_EQ(Parse({"serve", "dir", "--tp", "4", "--ep", "2"}).serve.ep, 2);
  EXPECT_EQ(Parse({"serve", "dir", "--gpu-memory", "0.5"}).serve.gpu_memory,
            (GpuMemoryLimit{.fraction = 0.5, .bytes = 0}));
  EXPECT_EQ(Parse({"serve", "dir", "--embedding-memory", "host"}).serve.embedding_memory, "host");
  EXPECT_EQ(Parse({"serve", "dir", "--simulate-rank", "3/8"}).serve.simulated,
            (SimulatedRank{.rank = 3, .size = 8}));
  EXPECT_EQ(Parse({"serve", "dir"}).serve.persistent_steps, "auto");
  EXPECT_EQ(Parse({"serve", "dir", "--persistent-step", "off"}).serve.persistent_steps, "off");
  EXPECT_EQ(Parse({"serve", "dir"}).serve.recorded_steps, "auto");
  EXPECT_EQ(Parse({"serve", "dir", "--recorded-steps", "on"}).serve.recorded_steps, "on");
  EXPECT_EQ(Parse({"serve", "dir"}).serve.expert_exchange, "auto");
  EXPECT_EQ(Parse({"serve", "dir", "--expert-exchange", "all-to-all"}).serve.expert_exchange,
            "all-to-all");
  EXPECT_THAT(Parse({"serve", "dir", "--expert-exchange", "some"}).error,
              HasSubstr("'some' is not one of auto, replicated, all-to-all"));
}

TEST(CommandLine, QueuePrefillAndPrefixCacheHaveFlags) {
  ServeOptions serve = Parse({"serve", "dir"}).serve;
  EXPECT_EQ(serve.max_waiting_tokens, int64_t{1} << 22);
  EXPECT_EQ(serve.max_prefill_tokens, 256);
  EXPECT_TRUE(serve.prefix_caching);
  serve = Parse({"serve", "dir", "--max-waiting-tokens", "9", "--max-prefill-tokens", "8",
                 "--no-prefix-cache"})
              .serve;
  EXPECT_EQ(serve.max_waiting_tokens, 9);
  EXPECT_EQ(serve.max_prefill_tokens, 8);
  EXPECT_FALSE(serve.prefix_caching);
}

TEST(CommandLine, ServeNeedsNoModel) {
  const CommandLine line = Parse({"serve", "--tp", "2"});
  ASSERT_EQ(line.command, Command::kServe) << line.error;
  EXPECT_EQ(line.serve.model, "");
}

TEST(CommandLine, BadValuesAreUsageErrorsThatNameFlagValueAndRange) {
  struct Case {
    std::vector<const char*> arguments;
    std::vector<const char*> says;
  };
  const std::vector<Case> cases = {
      {{"serve", "dir", "--tp", "two"}, {"--tp", "two", "1 to"}},
      {{"serve", "dir", "--tp", "0"}, {"--tp", "'0'", "1 to"}},
      {{"serve", "dir", "--kv-memory", "many"}, {"--kv-memory", "many", "MiB"}},
      {{"serve", "dir", "--device", "tpu"}, {"--device", "tpu", "auto, cpu, cuda"}},
      {{"serve", "dir", "--dtype", "fp8"}, {"--dtype", "fp8", "fp32, bf16"}},
      {{"serve", "dir", "--listen", "nowhere"}, {"--listen", "nowhere", "HOST:PORT"}},
      {{"serve", "dir", "--drain-timeout", "30"}, {"--drain-timeout", "30s"}},
      {{"serve", "dir", "--load-format", "pt"}, {"--load-format", "safetensors, dummy"}},
      {{"serve", "dir", "--tp", "2", "--tp", "3"}, {"--tp"}},
      {{"serve", "dir", "--unknown"}, {"--unknown"}},
      {{}, {"subcommand"}},
      {{"nothing"}, {"nothing"}},
      {{"generate", "--server", "a:1"}, {"prompt"}},
      {{"generate", "--server", "a:1", "--prompt", "x", "--chat", "y"}, {"1"}},
      {{"generate", "--prompt", "x"}, {"--server"}},
      {{"generate", "--server", "a:1", "--token-ids", "1,x"}, {"--token-ids", "'x'"}},
      {{"generate", "--server", "a:1", "--prompt", "x", "--max-tokens", "1.5"}, {"--max-tokens"}},
      {{"generate", "--server", "a:1", "--prompt", "x", "--seed", "-1"}, {"--seed"}},
      {{"score", "--server", "a:1", "--chat", "y"}, {"--prompt", "cohort score --help"}},
      {{"rank"}, {"--control-fd"}},
  };
  for (const Case& bad : cases) {
    const CommandLine line = Parse(bad.arguments);
    EXPECT_EQ(line.command, Command::kNone);
    EXPECT_EQ(line.exit_code, 2);
    EXPECT_EQ(line.output, "");
    EXPECT_EQ(std::count(line.error.begin(), line.error.end(), '\n'), 1) << line.error;
    for (const char* text : bad.says) EXPECT_THAT(line.error, HasSubstr(text));
  }
}

TEST(CommandLine, HelpGoesToStandardOutputAndExplainsTheFlags) {
  const CommandLine all = Parse({"--help"});
  EXPECT_EQ(all.exit_code, 0);
  for (const char* text : {"serve", "generate", "score", "tokenize", "plan", "status", "version"}) {
    EXPECT_THAT(all.output, HasSubstr(text));
  }
  EXPECT_EQ(all.output.find("started by its agent"), std::string::npos) << all.output;
  const CommandLine serve = Parse({"serve", "--help"});
  EXPECT_EQ(serve.exit_code, 0);
  EXPECT_EQ(serve.error, "");
  for (const char* text : {"--tp", "--kv-memory", "--no-mask-padding",
                           "(default: 512MiB; with cuda what --gpu-memory leaves)"}) {
    EXPECT_THAT(serve.output, HasSubstr(text));
  }
}

TEST(CommandLine, GenerateKeepsWhatTheServerJudges) {
  const CommandLine line =
      Parse({"generate", "--server", "127.0.0.1:9", "--prompt", "", "--top-p", "nan",
             "--temperature", "-1", "--max-tokens", "-3", "--seed", "18446744073709551615",
             "--ignore-eos", "--json", "--timeout", "2s"});
  ASSERT_EQ(line.command, Command::kGenerate) << line.error;
  const GenerateOptions& generate = line.generate;
  EXPECT_EQ(generate.prompt.text, "");
  EXPECT_TRUE(std::isnan(*generate.sampling.top_p));
  EXPECT_EQ(generate.sampling.temperature, -1);
  EXPECT_EQ(generate.stopping.max_tokens, -3);
  EXPECT_EQ(generate.sampling.seed, ~uint64_t{0});
  EXPECT_FALSE(generate.sampling.top_k.has_value());
  EXPECT_TRUE(generate.stopping.ignore_eos && generate.json);
  EXPECT_EQ(generate.timeout, absl::Seconds(2));
}

TEST(CommandLine, GenerateTakesEverySamplingFlag) {
  const CommandLine line = Parse({"generate",
                                  "--server",
                                  "a:1",
                                  "--chat",
                                  "hi",
                                  "--n",
                                  "2",
                                  "--stop",
                                  "[x]",
                                  "--stop",
                                  "",
                                  "--stop",
                                  "-y",
                                  "--include-stop",
                                  "--logprobs",
                                  "3",
                                  "--prompt-logprobs",
                                  "0",
                                  "--min-p",
                                  "0.1",
                                  "--repetition-penalty",
                                  "1.1",
                                  "--presence-penalty",
                                  "-1",
                                  "--frequency-penalty",
                                  "2",
                                  "--logit-bias",
                                  "5:-100,7:2.5",
                                  "--allowed-token-ids",
                                  "5,7",
                                  "--bad-word",
                                  "no",
                                  "--min-tokens",
                                  "4",
                                  "--priority",
                                  "-2",
                                  "--cache-salt",
                                  "s",
                                  "--no-prefix-cache"});
  ASSERT_EQ(line.command, Command::kGenerate) << line.error;
  const GenerateOptions& generate = line.generate;
  EXPECT_EQ(generate.sampling.n, 2);
  EXPECT_EQ(generate.stopping.stop_strings, (std::vector<std::string>{"[x]", "", "-y"}));
  EXPECT_TRUE(generate.stopping.include_stop && generate.bypass_prefix_cache);
  EXPECT_EQ(generate.logprobs, 3);
  EXPECT_EQ(generate.prompt_logprobs, 0);
  EXPECT_EQ(generate.sampling.presence_penalty, -1);
  EXPECT_EQ(generate.sampling.logit_bias.size(), 2u);
  EXPECT_EQ(generate.sampling.bad_words, std::vector<std::string>{"no"});
  EXPECT_EQ(generate.stopping.min_tokens, 4);
  EXPECT_EQ(generate.priority, -2);
  EXPECT_EQ(generate.cache_salt, "s");
}

TEST(CommandLine, ChatTakesSamplingButNothingThatIsOfOneRequest) {
  const CommandLine line = Parse(
      {"chat", "--server", "a:1", "--system", "", "--temperature", "0.7", "--max-tokens", "9"});
  ASSERT_EQ(line.command, Command::kChat) << line.error;
  EXPECT_EQ(line.chat.system, "");
  EXPECT_EQ(line.chat.max_tokens, 9);
  EXPECT_EQ(Parse({"chat", "--server", "a:1", "--n", "2"}).exit_code, 2);
}

TEST(CommandLine, OtherCommandsParse) {
  EXPECT_EQ(Parse({"version"}).command, Command::kVersion);
  const CommandLine rank = Parse({"rank", "--control-fd", "7"});
  EXPECT_EQ(rank.command, Command::kRank);
  EXPECT_EQ(rank.control_fd, 7);
  const CommandLine tokenize = Parse({"tokenize", "dir", "--text", "-x", "--json"});
  EXPECT_EQ(tokenize.command, Command::kTokenize) << tokenize.error;
  EXPECT_EQ(tokenize.tokenize.text, "-x");
  const CommandLine score = Parse({"score", "--server", "a:1", "--token-ids", "1,2"});
  EXPECT_EQ(score.score.prompt.token_ids, (std::vector<uint32_t>{1, 2}));
  EXPECT_EQ(Parse({"status", "--server", "a:1", "--json"}).command, Command::kStatus);
}

TEST(CommandLine, PlanTakesAMachineDegreesAndWhatMustFit) {
  const CommandLine line = Parse(
      {"plan",         "Qwen2-7B", "--gpus",        "16", "--nodes", "2",    "--gpu",  "B200",
       "--gpu-memory", "96GB",     "--tp",          "4",  "--dp",    "2",    "--ep",   "8",
       "--context",    "32768",    "--concurrency", "9",  "--dtype", "fp32", "--json", "--svg",
       "a.svg"});
  ASSERT_EQ(line.command, Command::kPlan) << line.error;
  EXPECT_EQ(line.plan.model, "Qwen2-7B");
  EXPECT_EQ(line.plan.gpus, 16);
  EXPECT_EQ(line.plan.nodes, 2);
  EXPECT_EQ(line.plan.gpu, "B200");
  EXPECT_EQ(line.plan.gpu_memory_bytes, 96'000'000'000);
  EXPECT_EQ(line.plan.tp, 4);
  EXPECT_EQ(line.plan.dp, 2);
  EXPECT_EQ(line.plan.ep, 8);
  EXPECT_EQ(line.plan.context, 32768);
  EXPECT_EQ(line.plan.concurrency, 9);
  EXPECT_EQ(line.plan.dtype, "fp32");
  EXPECT_TRUE(line.plan.json);
  EXPECT_EQ(line.plan.svg, "a.svg");
  const CommandLine spoiled = Parse({"plan", "Qwen2-7B", "--context", "0"});
  EXPECT_EQ(spoiled.exit_code, 2);
  EXPECT_THAT(spoiled.error, HasSubstr("--context"));
}

}  // namespace
}  // namespace cohort
