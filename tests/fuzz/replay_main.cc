// Runs a fuzz target without libFuzzer: over every file of the folders given as arguments, and over
// a fixed number of deterministic mutations of each. A failure aborts; what was tried is then in
// the file that --last names.
//   TARGET [--mutations=N] [--last=FILE] FOLDER...
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace cohort {
namespace {

struct Options {
  int64_t mutations = 1000;  // of each file
  std::string last;
  std::vector<std::string> folders;
};

Options ReadOptions(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    absl::string_view argument = arguments[i];
    if (absl::ConsumePrefix(&argument, "--mutations=")) {
      if (!absl::SimpleAtoi(argument, &options.mutations)) {
        std::cerr << "--mutations=" << argument << " is not a number\n";
        std::exit(2);
      }
    } else if (absl::ConsumePrefix(&argument, "--last=")) {
      options.last = std::string(argument);
    } else {
      options.folders.emplace_back(argument);
    }
  }
  return options;
}

std::vector<std::string> ReadCorpus(const std::vector<std::string>& folders) {
  std::vector<std::string> paths;
  for (const std::string& folder : folders) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.is_regular_file()) paths.push_back(entry.path().string());
    }
  }
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> corpus;
  for (const std::string& path : paths) {
    std::ifstream file(path, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return corpus;
}

class Mutator {
 public:
  Mutator(const std::vector<std::string>& corpus, uint64_t seed) : corpus_(corpus), random_(seed) {}

  std::string Mutate(std::string text) {
    for (uint64_t changes = 1 + Below(4); changes > 0; --changes) Change(text);
    return text;
  }

 private:
  // 0 when there is nothing to choose from.
  size_t Below(size_t limit) { return limit == 0 ? 0 : static_cast<size_t>(random_() % limit); }

  void Change(std::string& text) {
    static constexpr char kTelling[] = "{}[]\",:\\0129-.eE+ \n\t/u\x00\x01\x7F\x80\xC3\xE4\xF0\xFF";
    const size_t at = Below(text.size());
    const size_t length = 1 + Below(std::min<size_t>(text.size() - at, 16));
    switch (Below(7)) {
      case 0:
        if (!text.empty()) text[at] = static_cast<char>(text[at] ^ 1 << Below(8));
        break;
      case 1:
        if (!text.empty()) text[at] = kTelling[Below(sizeof(kTelling) - 1)];
        break;
      case 2:
        text.insert(at, 1, kTelling[Below(sizeof(kTelling) - 1)]);
        break;
      case 3:
        text.erase(at, length);
        break;
      case 4:
        text.insert(Below(text.size() + 1), text.substr(at, length));
        break;
      case 5:
        if (Below(4) == 0) text.resize(at);
        break;
      default: {
        const std::string& other = corpus_[Below(corpus_.size())];
        text.insert(at, other.substr(Below(other.size()), 1 + Below(32)));
      }
    }
  }

  const std::vector<std::string>& corpus_;
  std::mt19937_64 random_;
};

void Try(const std::string& input, const std::string& last) {
  if (!last.empty()) std::ofstream(last, std::ios::binary) << input;
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

int Replay(const Options& options) {
  const std::vector<std::string> corpus = ReadCorpus(options.folders);
  if (corpus.empty()) {
    std::cerr << "no files in the folders given\n";
    return 2;
  }
  Try("", options.last);
  for (size_t i = 0; i < corpus.size(); ++i) {
    Try(corpus[i], options.last);
    Mutator mutator(corpus, i);
    for (int64_t m = 0; m < options.mutations; ++m) Try(mutator.Mutate(corpus[i]), options.last);
  }
  std::cout << corpus.size() << " files, " << options.mutations << " mutations of each\n";
  return 0;
}

}  // namespace
}  // namespace cohort

int main(int argc, char** argv) { return cohort::Replay(cohort::ReadOptions(argc, argv)); }
