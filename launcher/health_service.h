// grpc.health.v1.Health for "" and every service of this server. Check answers at once; Watch
// streams every change that its client is fast enough to see, and always the latest.
#ifndef COHORT_LAUNCHER_HEALTH_SERVICE_H_
#define COHORT_LAUNCHER_HEALTH_SERVICE_H_

#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"
#include "kernels/status.h"

namespace cohort {

class HealthService final : public grpc::health::v1::Health::CallbackService {
 public:
  // `services`: full names besides "". NOT_SERVING at first.
  explicit HealthService(std::vector<std::string> services);
  ~HealthService() override;

  // Any thread.
  void SetServing(bool serving);
  // NOT_SERVING from here on, whatever SetServing says.
  void StopServing();
  // Ends all watches, present and future, so that the server can shut down.
  void EndWatches();

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* call,
                                  const grpc::health::v1::HealthCheckRequest* request,
                                  grpc::health::v1::HealthCheckResponse* response) override;
  grpc::ServerWriteReactor<grpc::health::v1::HealthCheckResponse>* Watch(
      grpc::CallbackServerContext* call,
      const grpc::health::v1::HealthCheckRequest* request) override;

 private:
  class Watcher;
  using Status = grpc::health::v1::HealthCheckResponse::ServingStatus;

  bool IsKnown(const std::string& service) const { return services_.count(service) > 0; }
  void Announce();  // the current status to all watchers

  const std::set<std::string> services_;
  std::mutex mutex_;  // guards what follows; not held while a watcher is called
  bool serving_ = false;
  bool stopped_ = false;
  bool ended_ = false;
  std::set<std::shared_ptr<Watcher>> watchers_;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_HEALTH_SERVICE_H_
