// A request from outside is refused or becomes one that the engine can take; what the client is
// told of its parameters means the same when it is sent again. The input is an encoded
// GenerateRequest.
#include <google/protobuf/stubs/logging.h>

#include <memory>

#include "kernels/check.h"
#include "launcher/generation_sequence.h"
#include "launcher/generation_validation.h"
#include "tests/runtime/tokenizer_fixture.h"

namespace {

cohort::ServingContext MakeContext() {
  // It would report every text that is not UTF-8.
  google::protobuf::SetLogHandler(nullptr);
  static const std::unique_ptr<cohort::Tokenizer> tokenizer =
      cohort::MakeTokenizer(cohort::TinyTokenizerJson());
  cohort::ServingContext context;
  context.tokenizer = tokenizer.get();
  context.config.vocabulary = tokenizer->size() + 8;
  context.config.eos_token_ids = {256};
  context.choosable_ids = tokenizer->size();
  context.model_name = "tiny";
  context.max_model_len = 300;
  context.max_prompt_bytes = cohort::MaxPromptBytes(*tokenizer, context.max_model_len);
  return context;
}

void CheckEngineCanTakeIt(const cohort::Generation& checked,
                          const cohort::ServingContext& context) {
  const cohort::Request& request = checked.request;
  CHECK(cohort::Validate(request.sampling).ok());
  CHECK(!request.prompt.empty());
  CHECK_GE(request.stopping.max_tokens, 1);
  CHECK_LE(request.stopping.min_tokens, request.stopping.max_tokens);
  CHECK_LE(static_cast<int64_t>(request.prompt.size()) + request.stopping.max_tokens,
           context.max_model_len);
  for (const int32_t id : request.prompt) CHECK(id >= 0 && id < context.config.vocabulary);
  for (const auto& word : request.sampling.bad_words) CHECK(!word.empty());
  CHECK(checked.sequences >= 1 && checked.sequences <= 8);
  CHECK_LE(request.sampling.logprobs, 20);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const cohort::ServingContext context = MakeContext();
  cohort::v1::GenerateRequest message;
  if (!message.ParseFromArray(data, static_cast<int>(size))) return 0;
  const auto checked = cohort::ValidateGenerate(message, context, 7);
  if (!checked.ok()) return 0;
  CheckEngineCanTakeIt(*checked, context);
  *message.mutable_sampling() = checked->sampling;
  *message.mutable_stopping() = checked->stopping;
  *message.mutable_output() = checked->output;
  const auto again = cohort::ValidateGenerate(message, context, 8);
  CHECK(again.ok()) << again.status().ToString();
  CHECK(again->request.sampling == checked->request.sampling);
  CHECK(again->sampling.SerializeAsString().size() == checked->sampling.SerializeAsString().size());

  cohort::GenerationSequence sequence(context, *checked, 0);
  const cohort::GeneratedTokens tokens{.first_index = 0, .ids = checked->request.prompt};
  CHECK_LE(sequence.Append(tokens).token_ids_size(),
           static_cast<int>(checked->request.prompt.size()));
  return 0;
}
