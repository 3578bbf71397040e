#include "launcher/flags.h"

#include <CLI/CLI.hpp>
#include <utility>

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

}  // namespace cohort
