#include "launcher/tokenize_command.h"

#include <cstdio>

#include "absl/strings/str_format.h"
#include "launcher/client.h"
#include "launcher/pocket_checkpoint.h"
#include "runtime/tokenizer.h"

namespace cohort {

int RunTokenize(const TokenizeOptions& options) {
  const absl::StatusOr<std::string> directory = ResolveModel(options.model);
  if (!directory.ok()) return PrintError(directory.status().message());
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(*directory);
  if (!tokenizer.ok()) return PrintError(tokenizer.status().message());
  const absl::StatusOr<std::vector<int32_t>> ids = (*tokenizer)->Encode(options.text);
  if (!ids.ok()) return PrintError(absl::StrCat("--text: ", ids.status().message()));
  if (options.json) {
    PrintJson({{"token_ids", *ids}});
  } else {
    absl::PrintF("%s\n", JoinIds(*ids));
  }
  return 0;
}

}  // namespace cohort
