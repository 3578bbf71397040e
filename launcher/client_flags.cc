#include <CLI/CLI.hpp>
#include <limits>

#include "launcher/flags.h"

namespace cohort {
namespace {

absl::StatusOr<std::string> AnyText(StringView text) { return std::string(text); }

void AddServerFlag(CLI::App& app, HostPort& server) {
  AddFlag(app, "--server", Into(server, ParseHostPort), "HOST:PORT", "Address of the server")
      ->required();
}

FlagParser TimeoutInto(std::optional<absl::Duration>& target) {
  return Into(target, [](StringView text) { return ParseDuration(text, absl::Milliseconds(1)); });
}

// Any integer: the server refuses those out of range, naming the field.
FlagParser AnyIntegerInto(std::optional<int64_t>& target) {
  return IntegerInto(target, std::numeric_limits<int64_t>::min(),
                     std::numeric_limits<int64_t>::max());
}

void AddPromptFlags(CLI::App& app, PromptOptions& prompt, bool with_chat) {
  CLI::App* group = app.add_option_group("prompt", "Exactly one of");
  AddFlag(*group, "--prompt", Into(prompt.text, AnyText), "TEXT",
          "Text; special tokens in it are parsed");
  AddFlag(*group, "--token-ids", Into(prompt.token_ids, ParseTokenIds), "1,2,3", "Token ids");
  if (with_chat) {
    AddFlag(*group, "--chat", Into(prompt.chat, AnyText), "TEXT",
            "A user's message, put into the model's chat template");
  }
  AddFlag(*group, "--prompt-file", Into(prompt.file, AnyText), "FILE", "File holding the text");
  group->require_option(1);
}

// A flag that may be given again and again, each time with one text.
void AddTexts(CLI::App& app, const std::string& name, std::vector<std::string>& target,
              const std::string& help) {
  app.add_option(name, target, help)->type_name("TEXT")->allow_extra_args(false);
}

void AddSamplingFlags(CLI::App& app, SamplingOptions& options) {
  AddFlag(app, "--temperature", Into(options.temperature, ParseReal), "T",
          "0 is greedy (default: the model's, else 0)");
  AddFlag(app, "--top-p", Into(options.top_p, ParseReal), "P",
          "Keep the likeliest tokens up to this probability, in (0, 1] (default: the model's, "
          "else 1)");
  AddFlag(app, "--top-k", AnyIntegerInto(options.top_k), "K",
          "Keep the K likeliest tokens; 0 keeps all (default: the model's, else 0)");
  AddFlag(app, "--min-p", Into(options.min_p, ParseReal), "P",
          "Keep tokens at least this probable relative to the likeliest, 0 to 1 (default: the "
          "model's, else 0)");
  AddFlag(app, "--seed", Into(options.seed, ParseUnsigned), "S",
          "Of the random numbers (default: the server draws one)");
  AddFlag(app, "--repetition-penalty", Into(options.repetition_penalty, ParseReal), "R",
          "Above 1 makes tokens of prompt and completion less likely (default: the model's, else "
          "1)");
  AddFlag(app, "--presence-penalty", Into(options.presence_penalty, ParseReal), "R",
          "Off the logit of tokens in the completion, -2 to 2 (default: 0)");
  AddFlag(app, "--frequency-penalty", Into(options.frequency_penalty, ParseReal), "R",
          "The same, times their count (default: 0)");
}

void AddTokenFlags(CLI::App& app, SamplingOptions& options) {
  AddFlag(app, "--n", AnyIntegerInto(options.n), "N",
          "Sequences from the one prompt, 1 to 8 (default: 1)");
  AddFlag(app, "--logit-bias", Into(options.logit_bias, ParseLogitBias), "ID:V,...",
          "Added to the logits of these ids, -100 to 100 each");
  AddFlag(app, "--allowed-token-ids", Into(options.allowed_token_ids, ParseTokenIds), "1,2,3",
          "No other id is chosen");
  AddTexts(app, "--bad-word", options.bad_words, "Text that is not generated; may be repeated");
}

void AddMaxTokensFlag(CLI::App& app, std::optional<int64_t>& max_tokens) {
  AddFlag(app, "--max-tokens", AnyIntegerInto(max_tokens), "N",
          "Tokens to generate, at least 1 (default: what is left of the model's length)");
}

void AddStoppingFlags(CLI::App& app, StoppingOptions& options) {
  AddMaxTokensFlag(app, options.max_tokens);
  AddFlag(app, "--min-tokens", AnyIntegerInto(options.min_tokens), "N",
          "Tokens before anything may end the generation (default: 0)");
  AddTexts(app, "--stop", options.stop_strings,
           "Text that ends the generation and is not printed; may be repeated");
  app.add_flag("--include-stop", options.include_stop, "Print the stop text, too");
  AddFlag(app, "--stop-token-ids", Into(options.stop_token_ids, ParseTokenIds), "1,2,3",
          "Ids that end the generation beside the model's own");
  app.add_flag("--ignore-eos", options.ignore_eos, "Do not stop at the model's end tokens");
}

void AddOutputFlags(CLI::App& app, GenerateOptions& options) {
  AddFlag(app, "--logprobs", AnyIntegerInto(options.logprobs), "K",
          "Log-probability of each token and of the K likeliest, 0 to 20; with --json");
  AddFlag(app, "--prompt-logprobs", AnyIntegerInto(options.prompt_logprobs), "K",
          "The same for the prompt's tokens");
  AddFlag(app, "--priority", AnyIntegerInto(options.priority), "P",
          "Larger is more urgent (default: 0)");
  AddFlag(app, "--cache-salt", Into(options.cache_salt, AnyText), "TEXT",
          "Share cached prefixes only with requests of this salt");
  app.add_flag("--no-prefix-cache", options.bypass_prefix_cache, "Compute the whole prompt");
}

}  // namespace

void AddGenerateFlags(CLI::App& app, GenerateOptions& options) {
  AddServerFlag(app, options.server);
  AddPromptFlags(app, options.prompt, /*with_chat=*/true);
  AddFlag(app, "--model", Into(options.model, AnyText), "NAME",
          "Served name that must match (default: any)");
  AddFlag(app, "--request-id", Into(options.request_id, AnyText), "ID",
          "Name of the request, at most 128 characters (default: the server makes one)");
  AddSamplingFlags(app, options.sampling);
  AddTokenFlags(app, options.sampling);
  AddStoppingFlags(app, options.stopping);
  AddOutputFlags(app, options);
  AddFlag(app, "--timeout", TimeoutInto(options.timeout), "DURATION",
          "Deadline of the request (default: none)");
  app.add_flag("--json", options.json, "Print one JSON object instead of streaming text");
}

void AddChatFlags(CLI::App& app, ChatOptions& options) {
  AddServerFlag(app, options.server);
  AddFlag(app, "--system", Into(options.system, AnyText), "TEXT",
          "The system message (default: that of the model's chat template)");
  AddFlag(app, "--model", Into(options.model, AnyText), "NAME",
          "Served name that must match (default: any)");
  AddSamplingFlags(app, options.sampling);
  AddMaxTokensFlag(app, options.max_tokens);
  AddFlag(app, "--timeout", TimeoutInto(options.timeout), "DURATION",
          "Deadline of each answer (default: none)");
}

void AddScoreFlags(CLI::App& app, ScoreOptions& options) {
  AddServerFlag(app, options.server);
  AddPromptFlags(app, options.prompt, /*with_chat=*/false);
  AddFlag(app, "--model", Into(options.model, AnyText), "NAME",
          "Served name that must match (default: any)");
  AddFlag(app, "--timeout", TimeoutInto(options.timeout), "DURATION",
          "Deadline of the request (default: none)");
  AddFlag(app, "--top", AnyIntegerInto(options.top), "K",
          "Print the K likeliest tokens at each position, too, 0 to 20");
  app.add_flag("--json", options.json, "Print one JSON object instead of a table");
}

void AddStatusFlags(CLI::App& app, StatusOptions& options) {
  AddServerFlag(app, options.server);
  AddFlag(app, "--timeout",
          Into(options.timeout,
               [](StringView text) { return ParseDuration(text, absl::Milliseconds(1)); }),
          "DURATION", "How long to wait for the answer (default: 10s)");
  app.add_flag("--json", options.json, "Print one JSON object");
}

void AddTokenizeFlags(CLI::App& app, TokenizeOptions& options) {
  app.add_option("MODEL", options.model, "Checkpoint directory with a tokenizer.json, or pocket")
      ->required()
      ->type_name("");
  AddFlag(app, "--text", Into(options.text, AnyText), "TEXT",
          "Text; special tokens in it are parsed")
      ->required();
  app.add_flag("--json", options.json, "Print one JSON object");
}

}  // namespace cohort
