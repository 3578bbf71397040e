// One call of Generate, GenerateStream or Score: a gRPC reactor and the engine's sink in one. Two
// owners: the call itself (until gRPC is done with it) and the engine (until it has told how the
// request finished).
#ifndef COHORT_LAUNCHER_GENERATE_CALL_H_
#define COHORT_LAUNCHER_GENERATE_CALL_H_

#include <grpcpp/support/server_callback.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "cohort/v1/generation.pb.h"
#include "launcher/active_requests.h"
#include "launcher/generated_text.h"
#include "launcher/serving_context.h"

namespace cohort {

// What a call needs besides its reactor. Immutable once made.
struct CallStart {
  const ServingContext* context = nullptr;
  ActiveRequests* active = nullptr;
  std::string request_id;
  Request request;
};

// The engine's deadline for a client's: a little earlier, so that the `finished` event still
// arrives before the client's own library gives up.
absl::Time EngineDeadline(absl::Time client_deadline, absl::Time now);

void FillTiming(const RequestTiming& timing, v1::Timing& message);
void FillUsage(const Finish& finish, v1::Usage& message);
v1::FinishReason ToProto(FinishReason reason);

// The status a call ends with: OK for stop and length.
grpc::Status StatusOf(const Finish& finish);

class StreamCall final : public grpc::ServerWriteReactor<v1::GenerateEvent>,
                         public RequestSink,
                         public std::enable_shared_from_this<StreamCall> {
 public:
  static grpc::ServerWriteReactor<v1::GenerateEvent>* Start(CallStart start);
  explicit StreamCall(CallStart start);

  SinkAnswer OnTokens(const GeneratedTokens& tokens) override;
  void OnFinish(const cohort::Finish& finish) override;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  void Submit(Request request);
  // Writes the next event or ends the call, unless a write is outstanding. Takes the mutex.
  void Pump();
  // The next event to write, or nullopt when there is none yet (or any more).
  std::optional<v1::GenerateEvent> NextEvent();

  const ServingContext& context_;
  ActiveRequests& active_;
  const std::string request_id_;
  std::shared_ptr<StreamCall> self_;  // released by OnDone
  std::shared_ptr<ActiveRequest> request_;

  std::mutex mutex_;  // guards what follows
  GeneratedText text_;
  std::optional<v1::GenerateEvent> accepted_;  // until it is written
  std::optional<v1::GenerateEvent> delta_;     // what came while a write was outstanding
  std::optional<v1::GenerateEvent> finished_;
  std::optional<grpc::Status> status_;  // of the call, once the engine is done with it
  uint64_t next_sequence_ = 0;
  bool submitted_ = false;  // nothing is written before
  bool busy_ = false;       // a write is outstanding, or the call has ended
  bool broken_ = false;     // the client is gone
  v1::GenerateEvent writing_;
};

// Generate and Score: the whole result at once.
class UnaryCall final : public grpc::ServerUnaryReactor,
                        public RequestSink,
                        public std::enable_shared_from_this<UnaryCall> {
 public:
  // `response` belongs to the call and lives until it is done.
  static grpc::ServerUnaryReactor* Start(CallStart start, v1::GenerateResult* response);
  static grpc::ServerUnaryReactor* Start(CallStart start, v1::ScoreResult* response);
  UnaryCall(const CallStart& start, v1::GenerateResult* generated, v1::ScoreResult* scored);

  SinkAnswer OnTokens(const GeneratedTokens& tokens) override;
  void OnFinish(const cohort::Finish& finish) override;

  void OnCancel() override;
  void OnDone() override;

 private:
  static grpc::ServerUnaryReactor* Run(std::shared_ptr<UnaryCall> call, CallStart start);

  ActiveRequests& active_;
  const std::string request_id_;
  v1::GenerateResult* const generated_;  // null for Score
  v1::ScoreResult* const scored_;        // null for Generate
  std::shared_ptr<UnaryCall> self_;      // released by OnDone
  std::shared_ptr<ActiveRequest> request_;
  GeneratedText text_;  // engine's thread
};

// The `accepted` event's content.
v1::Accepted MakeAccepted(const CallStart& start);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_GENERATE_CALL_H_
