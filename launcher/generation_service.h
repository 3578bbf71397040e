// cohort.v1.Generation: validates, hands to the engine, and streams back what becomes of it.
#ifndef COHORT_LAUNCHER_GENERATION_SERVICE_H_
#define COHORT_LAUNCHER_GENERATION_SERVICE_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "cohort/v1/generation.grpc.pb.h"
#include "launcher/active_requests.h"
#include "launcher/generate_call.h"
#include "launcher/serving_context.h"

namespace cohort {

class GenerationService final : public v1::Generation::CallbackService {
 public:
  // Both outlive the service.
  GenerationService(const ServingContext& context, ActiveRequests& active)
      : context_(context), active_(active) {}

  grpc::ServerUnaryReactor* Generate(grpc::CallbackServerContext* call,
                                     const v1::GenerateRequest* request,
                                     v1::GenerateResult* response) override;
  grpc::ServerWriteReactor<v1::GenerateEvent>* GenerateStream(
      grpc::CallbackServerContext* call, const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* call,
                                  const v1::ScoreRequest* request,
                                  v1::ScoreResult* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* call,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResult* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* call,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResult* response) override;

 private:
  CallStart Prepare(const grpc::CallbackServerContext& call, const std::string& request_id,
                    Generation generation);

  const ServingContext& context_;
  ActiveRequests& active_;
  std::atomic<uint64_t> next_request_{1};  // for the ids the server makes
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_GENERATION_SERVICE_H_
