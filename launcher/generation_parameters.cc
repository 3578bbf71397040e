#include "launcher/generation_parameters.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "launcher/generation_prompt.h"

namespace cohort {
namespace {

constexpr uint32_t kMaxSequences = 8;
constexpr float kMaxBias = 100;
constexpr size_t kMaxWords = 64;  // bad ones; each may be kept out in two forms
static_assert(3 * kMaxWords <= kMaxBadWords);
constexpr size_t kMaxStopTokenIds = 256;
constexpr size_t kMaxStopStrings = 16;
constexpr size_t kMaxStringBytes = 256;  // of a stop string, a bad word and a salt

void CheckReal(StringView field, float value, bool is_legal, StringView legal,
               FieldViolations& violations) {
  if (!is_legal) violations.Add(field, absl::StrCat(value, " is ", legal));
}

template <class List>
bool CheckCount(StringView field, const List& list, size_t most, StringView what,
                FieldViolations& violations) {
  const size_t count = static_cast<size_t>(list.size());
  if (count > most) {
    violations.Add(field, absl::StrCat(count, " ", what, " are more than ", most));
  }
  return count <= most;
}

bool CheckStringLength(StringView field, const std::string& text, FieldViolations& violations) {
  if (!text.empty() && text.size() <= kMaxStringBytes) return true;
  violations.Add(field, absl::StrCat(text.size(), " bytes are outside 1 to ", kMaxStringBytes));
  return false;
}

void SortAndDistinct(std::vector<int32_t>& ids) {
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
}

SamplingParameters TakeScalars(const v1::Sampling& given, uint64_t drawn_seed,
                               const SamplingParameters& defaults) {
  SamplingParameters sampling = defaults;
  if (given.has_temperature()) sampling.temperature = given.temperature();
  if (given.has_top_p()) sampling.top_p = given.top_p();
  if (given.has_min_p()) sampling.min_p = given.min_p();
  if (given.has_repetition_penalty()) sampling.repetition_penalty = given.repetition_penalty();
  if (given.has_presence_penalty()) sampling.presence_penalty = given.presence_penalty();
  if (given.has_frequency_penalty()) sampling.frequency_penalty = given.frequency_penalty();
  sampling.seed = given.has_seed() ? given.seed() : drawn_seed;
  return sampling;
}

void CheckScalars(const SamplingParameters& sampling, FieldViolations& violations) {
  const float temperature = sampling.temperature;
  CheckReal("sampling.temperature", temperature, std::isfinite(temperature) && temperature >= 0,
            "not a finite number of at least 0", violations);
  CheckReal("sampling.top_p", sampling.top_p, sampling.top_p > 0 && sampling.top_p <= 1,
            "outside (0, 1]", violations);
  CheckReal("sampling.min_p", sampling.min_p, sampling.min_p >= 0 && sampling.min_p <= 1,
            "outside [0, 1]", violations);
  const float repetition = sampling.repetition_penalty;
  CheckReal("sampling.repetition_penalty", repetition, std::isfinite(repetition) && repetition > 0,
            "not a finite number above 0", violations);
  const auto check_penalty = [&violations](StringView field, float penalty) {
    CheckReal(field, penalty, penalty >= -2 && penalty <= 2, "outside [-2, 2]", violations);
  };
  check_penalty("sampling.presence_penalty", sampling.presence_penalty);
  check_penalty("sampling.frequency_penalty", sampling.frequency_penalty);
}

uint32_t CheckSequences(const v1::Sampling& given, FieldViolations& violations) {
  const uint32_t sequences = given.has_n() ? given.n() : 1;
  if (sequences < 1 || sequences > kMaxSequences) {
    violations.Add("sampling.n", absl::StrCat(sequences, " is outside 1 to ", kMaxSequences));
  }
  return sequences;
}

int32_t CheckTopK(const v1::Sampling& given, int32_t otherwise, FieldViolations& violations) {
  if (!given.has_top_k()) return otherwise;
  constexpr uint32_t kMost = std::numeric_limits<int32_t>::max();
  if (given.top_k() > kMost) {
    violations.Add("sampling.top_k", absl::StrCat(given.top_k(), " is outside 0 to ", kMost));
    return 0;
  }
  return static_cast<int32_t>(given.top_k());
}

std::vector<TokenBias> CheckLogitBias(const v1::Sampling& given, int64_t vocabulary,
                                      FieldViolations& violations) {
  constexpr char kField[] = "sampling.logit_bias";
  std::vector<TokenBias> biases;
  if (!CheckCount(kField, given.logit_bias(), kMaxLogitBias, "ids", violations)) {
    return biases;
  }
  const std::map<uint32_t, float> ascending(given.logit_bias().begin(), given.logit_bias().end());
  for (const auto& [id, bias] : ascending) {
    if (id >= vocabulary) {
      violations.Add(kField, absl::StrCat("id ", id, " is outside the vocabulary (0 to ",
                                          vocabulary - 1, ")"));
      return biases;
    }
    CheckReal(absl::StrCat(kField, "[", id, "]"), bias, bias >= -kMaxBias && bias <= kMaxBias,
              "outside [-100, 100]", violations);
    biases.push_back({.id = static_cast<int32_t>(id), .bias = bias});
  }
  return biases;
}

// The ids that a word is written with, alone and after a space. A form that ends in the other one
// adds nothing.
absl::Status AddBadWord(const std::string& word, const std::string& field,
                        const ServingContext& context, std::vector<std::vector<int32_t>>& bad_words,
                        FieldViolations& violations) {
  if (!CheckStringLength(field, word, violations)) return absl::OkStatus();
  ASSIGN_OR_RETURN(std::vector<int32_t> alone, EncodeText(word, field, true, context, violations));
  if (alone.empty()) return absl::OkStatus();
  if (word[0] != ' ') {
    ASSIGN_OR_RETURN(std::vector<int32_t> spaced,
                     EncodeText(" " + word, field, true, context, violations));
    const bool adds =
        spaced.size() < alone.size() || !std::equal(alone.rbegin(), alone.rend(), spaced.rbegin());
    if (adds && CheckCount(field, spaced, kMaxBadWordIds, "tokens", violations)) {
      bad_words.push_back(std::move(spaced));
    }
  }
  if (CheckCount(field, alone, kMaxBadWordIds, "tokens", violations)) {
    bad_words.push_back(std::move(alone));
  }
  return absl::OkStatus();
}

absl::Status CheckBadWords(const v1::Sampling& given, const ServingContext& context,
                           std::vector<std::vector<int32_t>>& bad_words,
                           FieldViolations& violations) {
  if (CheckCount("sampling.bad_words", given.bad_words(), kMaxWords, "words", violations)) {
    for (int i = 0; i < given.bad_words_size(); ++i) {
      RETURN_IF_ERROR(AddBadWord(given.bad_words(i), absl::StrCat("sampling.bad_words[", i, "]"),
                                 context, bad_words, violations));
    }
  }
  constexpr char kField[] = "sampling.bad_token_ids";
  if (!CheckCount(kField, given.bad_token_ids(), kMaxWords, "lists", violations)) {
    return absl::OkStatus();
  }
  for (int i = 0; i < given.bad_token_ids_size(); ++i) {
    const std::string field = absl::StrCat(kField, "[", i, "].ids");
    const auto& ids = given.bad_token_ids(i).ids();
    if (ids.empty()) violations.Add(field, "empty: at least one id is needed");
    if (ids.empty() || !CheckCount(field, ids, kMaxBadWordIds, "ids", violations)) continue;
    bad_words.push_back(CheckIds(ids, field, context.config.vocabulary, violations));
  }
  return absl::OkStatus();
}

// What is told: the lists as they were given, the scalars as they are in effect.
v1::Sampling Effective(const v1::Sampling& given, const SamplingParameters& sampling,
                       uint32_t sequences) {
  v1::Sampling effective = given;
  effective.set_temperature(sampling.temperature);
  effective.set_top_p(sampling.top_p);
  effective.set_top_k(static_cast<uint32_t>(sampling.top_k));
  effective.set_seed(sampling.seed);
  effective.set_min_p(sampling.min_p);
  effective.set_repetition_penalty(sampling.repetition_penalty);
  effective.set_presence_penalty(sampling.presence_penalty);
  effective.set_frequency_penalty(sampling.frequency_penalty);
  effective.set_n(sequences);
  effective.mutable_allowed_token_ids()->Assign(sampling.allowed_token_ids.begin(),
                                                sampling.allowed_token_ids.end());
  return effective;
}

absl::Status CheckStopStrings(const v1::Stopping& given, const ServingContext& context,
                              FieldViolations& violations) {
  constexpr char kField[] = "stopping.stop_strings";
  if (given.stop_strings().empty()) return absl::OkStatus();
  if (context.tokenizer == nullptr) return NoTokenizer(context);
  if (!CheckCount(kField, given.stop_strings(), kMaxStopStrings, "strings", violations)) {
    return absl::OkStatus();
  }
  for (int i = 0; i < given.stop_strings_size(); ++i) {
    CheckStringLength(absl::StrCat(kField, "[", i, "]"), given.stop_strings(i), violations);
  }
  return absl::OkStatus();
}

bool Contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

absl::Status CheckSampling(const v1::Sampling& given, uint64_t drawn_seed,
                           const ServingContext& context, Generation& checked,
                           FieldViolations& violations) {
  const int64_t vocabulary = context.config.vocabulary;
  SamplingParameters sampling = TakeScalars(given, drawn_seed, context.default_sampling);
  CheckScalars(sampling, violations);
  sampling.top_k = CheckTopK(given, context.default_sampling.top_k, violations);
  checked.sequences = CheckSequences(given, violations);
  sampling.logit_bias = CheckLogitBias(given, vocabulary, violations);
  constexpr char kAllowed[] = "sampling.allowed_token_ids";
  if (CheckCount(kAllowed, given.allowed_token_ids(), kMaxAllowedIds, "ids", violations)) {
    sampling.allowed_token_ids =
        CheckIds(given.allowed_token_ids(), kAllowed, vocabulary, violations);
    SortAndDistinct(sampling.allowed_token_ids);
  }
  RETURN_IF_ERROR(CheckBadWords(given, context, sampling.bad_words, violations));
  checked.sampling = Effective(given, sampling, checked.sequences);
  checked.request.sampling = std::move(sampling);
  return absl::OkStatus();
}

absl::Status CheckStopping(const v1::Stopping& given, int64_t left, const ServingContext& context,
                           Generation& checked, FieldViolations& violations) {
  StoppingParameters& stopping = checked.request.stopping;
  stopping.max_tokens = given.has_max_tokens() ? given.max_tokens() : left;
  if (given.has_max_tokens() && given.max_tokens() < 1) {
    violations.Add("stopping.max_tokens",
                   absl::StrCat(given.max_tokens(), " is below 1, the least"));
  } else if (given.min_tokens() > std::max<int64_t>(stopping.max_tokens, 0)) {
    violations.Add("stopping.min_tokens",
                   absl::StrCat(given.min_tokens(), " is more than stopping.max_tokens, ",
                                stopping.max_tokens));
  }
  stopping.min_tokens = given.min_tokens();
  stopping.ignore_eos = given.ignore_eos();
  if (CheckCount("stopping.stop_token_ids", given.stop_token_ids(), kMaxStopTokenIds, "ids",
                 violations)) {
    stopping.stop_token_ids = CheckIds(given.stop_token_ids(), "stopping.stop_token_ids",
                                       context.config.vocabulary, violations);
    SortAndDistinct(stopping.stop_token_ids);
  }
  RETURN_IF_ERROR(CheckStopStrings(given, context, violations));
  checked.stopping = given;
  checked.stopping.set_max_tokens(static_cast<uint32_t>(std::max<int64_t>(stopping.max_tokens, 0)));
  checked.stopping.set_min_tokens(given.min_tokens());
  checked.stopping.set_include_stop(given.include_stop());
  checked.stopping.set_ignore_eos(given.ignore_eos());
  checked.stopping.mutable_stop_token_ids()->Assign(stopping.stop_token_ids.begin(),
                                                    stopping.stop_token_ids.end());
  return absl::OkStatus();
}

void CheckSomethingIsAllowed(const ServingContext& context, const Generation& checked,
                             FieldViolations& violations) {
  const SamplingParameters& sampling = checked.request.sampling;
  const StoppingParameters& stopping = checked.request.stopping;
  if (sampling.allowed_token_ids.empty()) return;
  for (const int32_t id : sampling.allowed_token_ids) {
    const bool ends = Contains(stopping.stop_token_ids, id) ||
                      (!stopping.ignore_eos && Contains(context.config.eos_token_ids, id));
    const bool is_bad = std::find(sampling.bad_words.begin(), sampling.bad_words.end(),
                                  std::vector<int32_t>{id}) != sampling.bad_words.end();
    if (id < context.choosable_ids && !is_bad && !(ends && stopping.min_tokens > 0)) return;
  }
  violations.Add("sampling.allowed_token_ids",
                 absl::StrCat("none of the ", sampling.allowed_token_ids.size(),
                              " ids can be chosen: each has no token, is a bad word, or would end "
                              "the sequence before stopping.min_tokens"));
}

int32_t CheckTop(uint32_t top, StringView field, FieldViolations& violations) {
  if (top > static_cast<uint32_t>(kMaxLogprobs)) {
    violations.Add(field, absl::StrCat(top, " is outside 0 to ", kMaxLogprobs));
    return 0;
  }
  return static_cast<int32_t>(top);
}

void CheckOutput(const v1::OutputOptions& given, Generation& checked, FieldViolations& violations) {
  if (given.has_logprobs()) {
    checked.request.sampling.logprobs = CheckTop(given.logprobs(), "output.logprobs", violations);
  }
  if (given.has_prompt_logprobs()) {
    checked.request.prompt_logprobs =
        CheckTop(given.prompt_logprobs(), "output.prompt_logprobs", violations);
  }
  checked.output = given;
  checked.output.set_text(!given.has_text() || given.text());
  checked.output.set_token_ids(!given.has_token_ids() || given.token_ids());
  checked.output.set_skip_special(!given.has_skip_special() || given.skip_special());
}

void CheckCache(const v1::CacheOptions& given, Generation& checked, FieldViolations& violations) {
  if (given.salt().size() > kMaxStringBytes) {
    violations.Add("cache.salt",
                   absl::StrCat(given.salt().size(), " bytes are more than ", kMaxStringBytes));
  }
  checked.request.cache_salt = given.salt();
  checked.request.bypass_prefix_cache = given.bypass_prefix();
  checked.cache = given;
  checked.cache.set_bypass_prefix(given.bypass_prefix());
}

void CheckScheduling(const v1::SchedulingOptions& given, Generation& checked) {
  checked.request.priority = given.priority();
  checked.scheduling.set_priority(given.priority());
}

}  // namespace cohort
