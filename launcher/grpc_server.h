// The public gRPC listener: Generation, Control, health and reflection on one address.
#ifndef COHORT_LAUNCHER_GRPC_SERVER_H_
#define COHORT_LAUNCHER_GRPC_SERVER_H_

#include <grpcpp/server.h>

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "launcher/active_requests.h"
#include "launcher/control_service.h"
#include "launcher/flag_values.h"
#include "launcher/generation_service.h"
#include "launcher/health_service.h"
#include "launcher/serving_context.h"

namespace cohort {

class GrpcServer {
 public:
  // Health says NOT_SERVING until told otherwise. UNAVAILABLE names an address that cannot be had.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const HostPort& listen,
                                                           ServingContext context, bool reflection);
  ~GrpcServer();  // Shutdown without grace

  const HostPort& address() const { return address_; }  // with the port that was picked
  HealthService& health() { return health_; }

  // No new calls; those in progress have `grace` to end and are then cancelled. Returns when all
  // are gone. Idempotent.
  void Shutdown(absl::Duration grace);

 private:
  explicit GrpcServer(ServingContext context);

  const ServingContext context_;
  ActiveRequests active_;
  GenerationService generation_;
  ControlService control_;
  HealthService health_;
  HostPort address_;
  std::unique_ptr<grpc::Server> server_;  // last: gone before the services
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_GRPC_SERVER_H_
