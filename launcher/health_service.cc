#include "launcher/health_service.h"

#include <optional>

namespace cohort {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

// One Watch call. Owned by itself until gRPC is done with it, and by the service's set until then.
class HealthService::Watcher final : public grpc::ServerWriteReactor<HealthCheckResponse>,
                                     public std::enable_shared_from_this<Watcher> {
 public:
  Watcher(HealthService& service, bool known) : service_(service), known_(known) {}

  void Begin() { self_ = shared_from_this(); }

  // Writes the status when it differs from the last one written, or ends the call. Both are taken
  // from the service, so that the order of calls does not matter.
  void Pump() {
    std::optional<grpc::Status> end;
    {
      const std::lock_guard<std::mutex> lock(service_.mutex_);
      if (busy_) return;
      if (cancelled_) {
        end = grpc::Status(grpc::StatusCode::CANCELLED, "the watch was cancelled");
      } else if (const Status status = Current(); !written_ || status != response_.status()) {
        response_.set_status(status);
        written_ = true;
      } else if (service_.ended_) {
        end = grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is shutting down");
      } else {
        return;
      }
      busy_ = true;
    }
    if (end.has_value()) {
      Finish(*end);
    } else {
      StartWrite(&response_);
    }
  }

  void OnWriteDone(bool ok) override {
    {
      const std::lock_guard<std::mutex> lock(service_.mutex_);
      busy_ = false;
      cancelled_ = cancelled_ || !ok;
    }
    Pump();
  }

  void OnCancel() override {
    {
      const std::lock_guard<std::mutex> lock(service_.mutex_);
      cancelled_ = true;
    }
    Pump();
  }

  void OnDone() override {
    const std::shared_ptr<Watcher> last = std::move(self_);
    const std::lock_guard<std::mutex> lock(service_.mutex_);
    service_.watchers_.erase(last);
  }

 private:
  Status Current() const {
    if (!known_) return HealthCheckResponse::SERVICE_UNKNOWN;
    return service_.serving_ ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
  }

  HealthService& service_;
  const bool known_;
  std::shared_ptr<Watcher> self_;  // released by OnDone
  // Guarded by the service's mutex.
  bool busy_ = false;  // a write is outstanding, or the call has ended
  bool written_ = false;
  bool cancelled_ = false;
  HealthCheckResponse response_;
};

HealthService::HealthService(std::vector<std::string> services)
    : services_([&services] {
        std::set<std::string> names(services.begin(), services.end());
        names.insert("");
        return names;
      }()) {}

HealthService::~HealthService() = default;

void HealthService::SetServing(bool serving) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    serving_ = serving && !stopped_;
  }
  Announce();
}

void HealthService::StopServing() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopped_ = true;
  }
  SetServing(false);
}

void HealthService::EndWatches() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ended_ = true;
  }
  Announce();
}

void HealthService::Announce() {
  std::set<std::shared_ptr<Watcher>> watchers;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    watchers = watchers_;
  }
  for (const std::shared_ptr<Watcher>& watcher : watchers) watcher->Pump();
}

grpc::ServerUnaryReactor* HealthService::Check(grpc::CallbackServerContext* call,
                                               const HealthCheckRequest* request,
                                               HealthCheckResponse* response) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  if (!IsKnown(request->service())) {
    reactor->Finish(grpc::Status(grpc::StatusCode::NOT_FOUND,
                                 absl::StrCat("no service '", request->service(), "' here")));
    return reactor;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    response->set_status(serving_ ? HealthCheckResponse::SERVING
                                  : HealthCheckResponse::NOT_SERVING);
  }
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerWriteReactor<HealthCheckResponse>* HealthService::Watch(
    grpc::CallbackServerContext*, const HealthCheckRequest* request) {
  auto watcher = std::make_shared<Watcher>(*this, IsKnown(request->service()));
  watcher->Begin();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    watchers_.insert(watcher);
  }
  watcher->Pump();
  return watcher.get();
}

}  // namespace cohort
