#include "launcher/command_line.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <limits>

#include "launcher/chat_command.h"
#include "launcher/flags.h"
#include "launcher/generate_command.h"
#include "launcher/node.h"
#include "launcher/plan_command.h"
#include "launcher/rank.h"
#include "launcher/score_command.h"
#include "launcher/serve.h"
#include "launcher/status_command.h"
#include "launcher/tokenize_command.h"
#include "launcher/version.h"

namespace cohort {
namespace {

constexpr char kRankName[] = "rank";

void AddCommands(CLI::App& app, CommandLine& line) {
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("cohort ") + kVersion);
  const auto add = [&app, &line](const char* name, const char* help, Command command) {
    CLI::App* subcommand = app.add_subcommand(name, help);
    subcommand->callback([&line, command] { line.command = command; });
    return subcommand;
  };
  AddServeFlags(*add("serve", "Serve a model over gRPC until SIGTERM", Command::kServe),
                line.serve);
  AddNodeFlags(
      *add("node", "Serve a part of the ranks of another machine's `cohort serve`", Command::kNode),
      line.node);
  AddGenerateFlags(*add("generate", "Generate through a server", Command::kGenerate),
                   line.generate);
  AddChatFlags(*add("chat", "Converse with a served model", Command::kChat), line.chat);
  AddScoreFlags(
      *add("score", "Log-probability of each token after the ones before it", Command::kScore),
      line.score);
  AddTokenizeFlags(*add("tokenize", "Token ids of a text, without a server", Command::kTokenize),
                   line.tokenize);
  AddPlanFlags(*add("plan", "What fits where, and how fast it can be; needs only a config.json",
                    Command::kPlan),
               line.plan);
  AddStatusFlags(*add("status", "State and load of a server", Command::kStatus), line.status);
  add("version", "Print the version", Command::kVersion);
  CLI::App* rank = add(kRankName, "One rank process; started by its agent", Command::kRank);
  AddFlag(*rank, "--control-fd", IntegerInto(line.control_fd, 0, std::numeric_limits<int>::max()),
          "N", "Descriptor of the agent's socket")
      ->required();
  rank->group("");  // not in the help
}

// What the library says about a failed parse, as one line.
std::string OneLine(StringView text) {
  std::string line(text);
  for (char& c : line) {
    if (c == '\n') c = ' ';
  }
  return line;
}

// The subcommand that was being parsed, for the pointer to its help.
std::string HelpOf(const CLI::App& app) {
  const std::vector<CLI::App*> chosen = app.get_subcommands();
  return chosen.empty() ? "cohort --help"
                        : absl::StrCat("cohort ", chosen[0]->get_name(), " --help");
}

}  // namespace

CommandLine ParseCommandLine(int argc, const char* const* argv) {
  CommandLine line;
  CLI::App app("Cohort serves Qwen2 models: a checkpoint, sharded over rank processes, over gRPC.",
               "cohort");
  AddCommands(app, line);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    line.command = Command::kNone;
    std::ostringstream out, errors;
    const bool is_error = app.exit(error, out, errors) != 0;
    line.exit_code = is_error ? 2 : 0;
    line.output = is_error ? "" : out.str();
    if (is_error) {
      const bool is_unknown = app.get_subcommands().empty() && argc > 1 && argv[1][0] != '-';
      const std::string what =
          is_unknown ? absl::StrCat("'", argv[1], "' is not a command") : OneLine(error.what());
      line.error = absl::StrCat("cohort: ", what, " (see ", HelpOf(app), ")\n");
    }
  }
  return line;
}

int RunCommandLine(int argc, const char* const* argv) {
  const CommandLine line = ParseCommandLine(argc, argv);
  switch (line.command) {
    case Command::kNone:
      std::cout << line.output << std::flush;
      std::cerr << line.error;
      return line.exit_code;
    case Command::kServe:
      return RunServe(line.serve);
    case Command::kNode:
      return RunNode(line.node);
    case Command::kGenerate:
      return RunGenerate(line.generate);
    case Command::kChat:
      return RunChat(line.chat);
    case Command::kScore:
      return RunScore(line.score);
    case Command::kTokenize:
      return RunTokenize(line.tokenize);
    case Command::kPlan:
      return RunPlan(line.plan);
    case Command::kStatus:
      return RunStatus(line.status);
    case Command::kVersion:
      std::cout << "cohort " << kVersion << std::endl;
      return 0;
    case Command::kRank:
      return RunRank(line.control_fd);
  }
  return 1;
}

}  // namespace cohort
