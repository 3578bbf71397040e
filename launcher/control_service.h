// cohort.v1.Control: what runs here, how busy it is, and ending requests by id.
#ifndef COHORT_LAUNCHER_CONTROL_SERVICE_H_
#define COHORT_LAUNCHER_CONTROL_SERVICE_H_

#include "cohort/v1/control.grpc.pb.h"
#include "launcher/active_requests.h"
#include "launcher/serving_context.h"

namespace cohort {

class ControlService final : public v1::Control::CallbackService {
 public:
  // Both outlive the service.
  ControlService(const ServingContext& context, ActiveRequests& active)
      : context_(context), active_(active) {}

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* call,
                                          const v1::GetServerInfoRequest* request,
                                          v1::ServerInfo* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* call,
                                         const v1::GetModelInfoRequest* request,
                                         v1::ModelInfo* response) override;
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* call,
                                    const v1::GetLoadRequest* request, v1::Load* response) override;
  grpc::ServerUnaryReactor* Abort(grpc::CallbackServerContext* call,
                                  const v1::AbortRequest* request,
                                  v1::AbortResult* response) override;

 private:
  const ServingContext& context_;
  ActiveRequests& active_;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_CONTROL_SERVICE_H_
