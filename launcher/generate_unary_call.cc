#include "launcher/generate_unary_call.h"

#include <utility>

#include "launcher/status_details.h"

namespace cohort {
namespace {

class GenerateCall final : public UnaryCall {
 public:
  GenerateCall(CallStart start, v1::GenerateResult* response)
      : UnaryCall(std::move(start)), response_(*response) {
    response_.set_request_id(start_.request_id);
    *response_.mutable_accepted() = MakeAccepted(start_);
    for (uint32_t index = 0; index < start_.generation.sequences; ++index) {
      sequences_.emplace_back(*start_.context, start_.generation, index);
      response_.add_outputs()->set_index(index);
    }
  }

 protected:
  SinkAnswer TakeTokens(uint32_t index, const GeneratedTokens& tokens) override {
    Append(sequences_[index].Append(tokens));
    return sequences_[index].stopped() ? SinkAnswer::kStop : SinkAnswer::kContinue;
  }

  void TakeFinish(uint32_t index, const cohort::Finish& finish) override {
    Append(sequences_[index].Flush());
    const v1::Finished finished = sequences_[index].Finished(finish);
    v1::GenerateOutput& output = *response_.mutable_outputs(static_cast<int>(index));
    output.set_finish_reason(finished.reason());
    if (finished.has_stop()) *output.mutable_stop() = finished.stop();
    response_.mutable_prompt_logprobs()->MergeFrom(finished.prompt_logprobs());
    AddSequence(finished, *response_.mutable_usage(), *response_.mutable_timing());
  }

 private:
  void Append(const v1::Delta& delta) {
    v1::GenerateOutput& output = *response_.mutable_outputs(static_cast<int>(delta.index()));
    output.mutable_token_ids()->MergeFrom(delta.token_ids());
    output.mutable_text()->append(delta.text());
    output.mutable_logprobs()->MergeFrom(delta.logprobs());
  }

  v1::GenerateResult& response_;
  std::deque<GenerationSequence> sequences_;
};

class ScoreCall final : public UnaryCall {
 public:
  ScoreCall(CallStart start, v1::ScoreResult* response)
      : UnaryCall(std::move(start)), response_(*response) {
    response_.set_request_id(start_.request_id);
    const std::vector<int32_t>& prompt = start_.generation.request.prompt;
    response_.mutable_token_ids()->Assign(prompt.begin(), prompt.end());
  }

 protected:
  SinkAnswer TakeTokens(uint32_t, const GeneratedTokens&) override { return SinkAnswer::kContinue; }

  void TakeFinish(uint32_t, const cohort::Finish& finish) override {
    response_.mutable_logprobs()->Assign(finish.prompt_logprobs.begin(),
                                         finish.prompt_logprobs.end());
    const Request& request = start_.generation.request;
    if (request.prompt_logprobs < 0) return;
    FillPromptLogprobs(start_.context->tokenizer, request.prompt, request.prompt_logprobs, finish,
                       *response_.mutable_tokens());
  }

 private:
  v1::ScoreResult& response_;
};

}  // namespace

UnaryCall::UnaryCall(CallStart start)
    : start_(std::move(start)), unfinished_(start_.generation.sequences) {}

grpc::ServerUnaryReactor* UnaryCall::Start(CallStart start, v1::GenerateResult* response) {
  return Run(std::make_shared<GenerateCall>(std::move(start), response));
}

grpc::ServerUnaryReactor* UnaryCall::Start(CallStart start, v1::ScoreResult* response) {
  return Run(std::make_shared<ScoreCall>(std::move(start), response));
}

grpc::ServerUnaryReactor* UnaryCall::Run(std::shared_ptr<UnaryCall> call) {
  call->self_ = call;
  const CallStart& start = call->start_;
  absl::StatusOr<std::shared_ptr<ActiveRequest>> reserved = start.active->Reserve(start.request_id);
  absl::Status status = reserved.status();
  if (status.ok()) {
    call->request_ = *std::move(reserved);
    status = call->request_->Submit(start.generation.request, start.generation.sequences, call);
    if (!status.ok()) start.active->Release(start.request_id);
  }
  if (!status.ok()) {
    {
      const std::lock_guard<std::mutex> lock(call->mutex_);
      call->refused_ = true;
    }
    call->Finish(ToGrpcStatus(DescribeRefusal(status)));
  }
  return call.get();
}

SinkAnswer UnaryCall::OnTokens(uint32_t index, const GeneratedTokens& tokens) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return refused_ ? SinkAnswer::kContinue : TakeTokens(index, tokens);
}

void UnaryCall::OnFinish(uint32_t index, const cohort::Finish& finish) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (refused_) return;
    TakeFinish(index, finish);
    if (status_.ok()) status_ = StatusOf(finish);
    if (--unfinished_ > 0) return;
  }
  // Before the client hears of the end, so that it may use the id again at once.
  start_.active->Release(start_.request_id);
  Finish(status_);
}

void UnaryCall::OnCancel() {
  if (request_ != nullptr) request_->Cancel();
}

void UnaryCall::OnDone() { const std::shared_ptr<UnaryCall> last = std::move(self_); }

}  // namespace cohort
