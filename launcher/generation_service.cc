#include "launcher/generation_service.h"

#include <random>
#include <utility>

#include "absl/time/clock.h"
#include "launcher/generate_stream_call.h"
#include "launcher/generate_unary_call.h"
#include "launcher/generation_prompt.h"
#include "launcher/generation_validation.h"
#include "launcher/status_details.h"

namespace cohort {
namespace {

// For requests without a seed of their own.
uint64_t DrawSeed() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

absl::Time DeadlineOf(const grpc::CallbackServerContext& call) {
  const std::chrono::system_clock::time_point deadline = call.deadline();
  return deadline == std::chrono::system_clock::time_point::max() ? absl::InfiniteFuture()
                                                                  : absl::FromChrono(deadline);
}

// A stream that ends before it began.
class RefusedStream final : public grpc::ServerWriteReactor<v1::GenerateEvent> {
 public:
  explicit RefusedStream(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* call, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

}  // namespace

CallStart GenerationService::Prepare(const grpc::CallbackServerContext& call,
                                     const std::string& request_id, Generation generation) {
  CallStart start;
  start.context = &context_;
  start.active = &active_;
  start.request_id = !request_id.empty()
                         ? request_id
                         : absl::StrCat(context_.server_info.instance_id(), "-",
                                        next_request_.fetch_add(1, std::memory_order_relaxed));
  start.generation = std::move(generation);
  const absl::Duration step = absl::Milliseconds(context_.engine->load().last_step_milliseconds);
  start.generation.request.deadline = EngineDeadline(DeadlineOf(call), absl::Now(), step);
  return start;
}

grpc::ServerUnaryReactor* GenerationService::Generate(grpc::CallbackServerContext* call,
                                                      const v1::GenerateRequest* request,
                                                      v1::GenerateResult* response) {
  absl::StatusOr<Generation> checked = ValidateGenerate(*request, context_, DrawSeed());
  if (!checked.ok()) return Answer(call, checked.status());
  if (absl::Status fits = CheckFitsOneMessage(*checked); !fits.ok()) return Answer(call, fits);
  return UnaryCall::Start(Prepare(*call, request->request_id(), *std::move(checked)), response);
}

grpc::ServerWriteReactor<v1::GenerateEvent>* GenerationService::GenerateStream(
    grpc::CallbackServerContext* call, const v1::GenerateRequest* request) {
  absl::StatusOr<Generation> checked = ValidateGenerate(*request, context_, DrawSeed());
  if (!checked.ok()) return new RefusedStream(ToGrpcStatus(checked.status()));
  return StreamCall::Start(Prepare(*call, request->request_id(), *std::move(checked)));
}

grpc::ServerUnaryReactor* GenerationService::Score(grpc::CallbackServerContext* call,
                                                   const v1::ScoreRequest* request,
                                                   v1::ScoreResult* response) {
  absl::StatusOr<Request> checked = ValidateScore(*request, context_);
  if (!checked.ok()) return Answer(call, checked.status());
  Generation generation;
  generation.request = *std::move(checked);
  return UnaryCall::Start(Prepare(*call, request->request_id(), std::move(generation)), response);
}

grpc::ServerUnaryReactor* GenerationService::Tokenize(grpc::CallbackServerContext* call,
                                                      const v1::TokenizeRequest* request,
                                                      v1::TokenizeResult* response) {
  const absl::StatusOr<std::vector<int32_t>> ids = TokenizeText(*request, context_);
  if (!ids.ok()) return Answer(call, ids.status());
  response->mutable_token_ids()->Assign(ids->begin(), ids->end());
  return Answer(call, absl::OkStatus());
}

grpc::ServerUnaryReactor* GenerationService::Detokenize(grpc::CallbackServerContext* call,
                                                        const v1::DetokenizeRequest* request,
                                                        v1::DetokenizeResult* response) {
  const absl::StatusOr<std::vector<int32_t>> ids = ValidateDetokenize(*request, context_);
  if (!ids.ok()) return Answer(call, ids.status());
  response->set_text(context_.tokenizer->Decode(*ids, request->skip_special()));
  return Answer(call, absl::OkStatus());
}

}  // namespace cohort
