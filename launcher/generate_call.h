// What the calls of Generate, GenerateStream and Score have in common. Each is a gRPC reactor and
// the receiver of its request's sequences in one, with two owners: the call itself (until gRPC is
// done with it) and the engine (until it has told how the last sequence finished).
#ifndef COHORT_LAUNCHER_GENERATE_CALL_H_
#define COHORT_LAUNCHER_GENERATE_CALL_H_

#include <grpcpp/support/status.h>

#include <string>

#include "cohort/v1/generation.pb.h"
#include "launcher/active_requests.h"
#include "launcher/generation_validation.h"
#include "launcher/serving_context.h"

namespace cohort {

// What a call needs besides its reactor.
struct CallStart {
  const ServingContext* context = nullptr;
  ActiveRequests* active = nullptr;
  std::string request_id;
  Generation generation;  // of a score: only its request
};

// The engine's deadline for a client's: a little earlier, so that the `finished` event still
// arrives before the client's own library gives up. The engine looks between two steps, of which
// the last took `step`.
absl::Time EngineDeadline(absl::Time client_deadline, absl::Time now, absl::Duration step);

// The status a call ends with: OK for stop and length.
grpc::Status StatusOf(const Finish& finish);

// The `accepted` event's content.
v1::Accepted MakeAccepted(const CallStart& start);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_GENERATE_CALL_H_
