// Binding flags to options. The only headers of the command-line library are in flags.cc,
// serve_flags.cc, client_flags.cc, plan_flags.cc and command_line.cc.
#ifndef COHORT_LAUNCHER_FLAGS_H_
#define COHORT_LAUNCHER_FLAGS_H_

#include <functional>
#include <string>
#include <vector>

#include "kernels/status.h"
#include "launcher/client_options.h"
#include "launcher/plan_command.h"
#include "launcher/serve_options.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace cohort {

// Takes a flag's text; an error becomes a usage error that names the flag.
using FlagParser = std::function<absl::Status(StringView text)>;

// `what` is shown in the help as the flag's value: "N", "HOST:PORT".
CLI::Option* AddFlag(CLI::App& app, const std::string& name, FlagParser parse,
                     const std::string& what, const std::string& help);

// A parser that stores what `parse` gives; `target` may be an optional.
template <class Target, class Parse>
FlagParser Into(Target& target, Parse parse) {
  return [&target, parse](StringView text) -> absl::Status {
    auto value = parse(text);
    if (!value.ok()) return value.status();
    target = *std::move(value);
    return absl::OkStatus();
  };
}

// An integer from `minimum` to `maximum`.
template <class Target>
FlagParser IntegerInto(Target& target, int64_t minimum, int64_t maximum) {
  return Into(target,
              [minimum, maximum](StringView text) { return ParseInteger(text, minimum, maximum); });
}

// One of a few words.
FlagParser WordInto(std::string& target, std::vector<std::string> words);

// Any text but none.
FlagParser TextInto(std::string& target);

void AddServeFlags(CLI::App& app, ServeOptions& options);
void AddNodeFlags(CLI::App& app, NodeOptions& options);
void AddGenerateFlags(CLI::App& app, GenerateOptions& options);
void AddChatFlags(CLI::App& app, ChatOptions& options);
void AddScoreFlags(CLI::App& app, ScoreOptions& options);
void AddStatusFlags(CLI::App& app, StatusOptions& options);
void AddTokenizeFlags(CLI::App& app, TokenizeOptions& options);
void AddPlanFlags(CLI::App& app, PlanOptions& options);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_FLAGS_H_
