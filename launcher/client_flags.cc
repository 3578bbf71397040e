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

}  // namespace

void AddGenerateFlags(CLI::App& app, GenerateOptions& options) {
  AddServerFlag(app, options.server);
  AddPromptFlags(app, options.prompt, /*with_chat=*/true);
  AddFlag(app, "--model", Into(options.model, AnyText), "NAME",
          "Served name that must match (default: any)");
  AddFlag(app, "--request-id", Into(options.request_id, AnyText), "ID",
          "Name of the request, at most 128 characters (default: the server makes one)");
  AddFlag(app, "--max-tokens", AnyIntegerInto(options.max_tokens), "N",
          "Tokens to generate, at least 1 (default: what is left of the model's length)");
  AddFlag(app, "--temperature", Into(options.temperature, ParseReal), "T",
          "0 is greedy (default: the server's, which is 0)");
  AddFlag(app, "--top-p", Into(options.top_p, ParseReal), "P",
          "Keep the likeliest tokens up to this probability, in (0, 1] (default: 1)");
  AddFlag(app, "--top-k", AnyIntegerInto(options.top_k), "K",
          "Keep the K likeliest tokens; 0 keeps all (default: 0)");
  AddFlag(app, "--seed", Into(options.seed, ParseUnsigned), "S",
          "Of the random numbers (default: the server draws one)");
  AddFlag(app, "--stop-token-ids", Into(options.stop_token_ids, ParseTokenIds), "1,2,3",
          "Ids that end the generation beside the model's own");
  app.add_flag("--ignore-eos", options.ignore_eos, "Do not stop at the model's end tokens");
  AddFlag(app, "--timeout", TimeoutInto(options.timeout), "DURATION",
          "Deadline of the request (default: none)");
  app.add_flag("--json", options.json, "Print one JSON object instead of streaming text");
}

void AddScoreFlags(CLI::App& app, ScoreOptions& options) {
  AddServerFlag(app, options.server);
  AddPromptFlags(app, options.prompt, /*with_chat=*/false);
  AddFlag(app, "--model", Into(options.model, AnyText), "NAME",
          "Served name that must match (default: any)");
  AddFlag(app, "--timeout", TimeoutInto(options.timeout), "DURATION",
          "Deadline of the request (default: none)");
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
  app.add_option("MODEL_DIR", options.model_dir, "Checkpoint directory with a tokenizer.json")
      ->required()
      ->type_name("");
  AddFlag(app, "--text", Into(options.text, AnyText), "TEXT",
          "Text; special tokens in it are parsed")
      ->required();
  app.add_flag("--json", options.json, "Print one JSON object");
}

}  // namespace cohort
