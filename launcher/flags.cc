#include "launcher/flags.h"

#include <CLI/CLI.hpp>
#include <utility>

#include "absl/strings/str_join.h"

namespace cohort {

CLI::Option* AddFlag(CLI::App& app, const std::string& name, FlagParser parse,
                     const std::string& what, const std::string& help) {
  // The library wants a validator's complaint as a string, empty when there is none.
  const auto check = [parse = std::move(parse)](const std::string& text) {
    const absl::Status status = parse(text);
    return status.ok() ? std::string() : std::string(status.message());
  };
  return app
      .add_option_function<std::string>(
          name, [](const std::string&) {}, help)
      ->check(check)
      ->type_name(what);
}

FlagParser WordInto(std::string& target, std::vector<std::string> words) {
  return Into(target, [words = std::move(words)](StringView text) -> absl::StatusOr<std::string> {
    for (const std::string& word : words) {
      if (text == word) return word;
    }
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not one of ", absl::StrJoin(words, ", ")));
  });
}

FlagParser TextInto(std::string& target) {
  return Into(target, [](StringView text) -> absl::StatusOr<std::string> {
    if (text.empty()) return absl::InvalidArgumentError("it is empty");
    return std::string(text);
  });
}

}  // namespace cohort
