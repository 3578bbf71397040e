// The `cohort` command: its subcommands, flags and exit codes (0 ok, 1 error, 2 usage, 3 a plan
// that does not fit).
#ifndef COHORT_LAUNCHER_COMMAND_LINE_H_
#define COHORT_LAUNCHER_COMMAND_LINE_H_

#include <string>

#include "launcher/client_options.h"
#include "launcher/plan_command.h"
#include "launcher/serve_options.h"

namespace cohort {

enum class Command {
  kNone,
  kServe,
  kNode,
  kGenerate,
  kChat,
  kScore,
  kTokenize,
  kPlan,
  kStatus,
  kVersion,
  kRank
};

struct CommandLine {
  Command command = Command::kNone;  // kNone: print what is below and exit
  int exit_code = 0;
  std::string output;  // for standard output: help
  std::string error;   // for standard error: one line

  ServeOptions serve;
  NodeOptions node;
  GenerateOptions generate;
  ChatOptions chat;
  ScoreOptions score;
  TokenizeOptions tokenize;
  PlanOptions plan;
  StatusOptions status;
  int control_fd = -1;  // of `cohort rank`
};

CommandLine ParseCommandLine(int argc, const char* const* argv);

// Parses and runs; the process's exit code.
int RunCommandLine(int argc, const char* const* argv);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_COMMAND_LINE_H_
