// One sequence of a request on its way out: what the engine gives for it becomes the messages that
// a client gets. Not safe for concurrent use; its call guards it.
#ifndef COHORT_LAUNCHER_GENERATION_SEQUENCE_H_
#define COHORT_LAUNCHER_GENERATION_SEQUENCE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "cohort/v1/generation.pb.h"
#include "launcher/generated_text.h"
#include "launcher/generation_validation.h"
#include "launcher/serving_context.h"

namespace cohort {

void FillTiming(const RequestTiming& timing, v1::Timing& message);
v1::FinishReason ToProto(FinishReason reason);

// One message per prompt token, `top` candidates beside each but the first, which has no
// log-probability; none when the request ended before they were known.
void FillPromptLogprobs(const Tokenizer* tokenizer, const std::vector<int32_t>& prompt, int32_t top,
                        const Finish& finish,
                        google::protobuf::RepeatedPtrField<v1::TokenLogprob>& messages);

class GenerationSequence {
 public:
  // `context` and `generation` outlive it.
  GenerationSequence(const ServingContext& context, const Generation& generation, uint32_t index);

  // What may be delivered of these tokens; empty of ids, text and log-probabilities when nothing
  // is. Tokens after a stop string are dropped.
  v1::Delta Append(const GeneratedTokens& tokens);
  // A stop string is complete: the engine can end the sequence.
  bool stopped() const { return text_.stop_string().has_value(); }

  // What was held back until the end.
  v1::Delta Flush();
  // How the sequence ended; after Flush.
  v1::Finished Finished(const Finish& finish) const;

 private:
  v1::Delta MakeDelta() const;
  void AppendLogprobs(const GeneratedTokens& tokens, size_t count, v1::Delta& delta) const;
  void FillStop(v1::StopMatch& stop) const;

  const ServingContext& context_;
  const Generation& generation_;
  const uint32_t index_;
  GeneratedText text_;
  int64_t delivered_ = 0;  // tokens
  int32_t last_id_ = -1;
};

// Adds one sequence to those of its request: completions are summed, the first token and the last
// end count, and the prompt's part is that of the first sequence.
void AddSequence(const v1::Finished& finished, v1::Usage& usage, v1::Timing& timing);

// Whether a client would miss it.
bool HasContent(const v1::Delta& delta);

// Appends `more`, which follows `delta` in the same sequence.
void Extend(const v1::Delta& more, v1::Delta& delta);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_GENERATION_SEQUENCE_H_
