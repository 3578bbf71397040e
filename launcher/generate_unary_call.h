// One call of Generate or Score: the whole result at once.
#ifndef COHORT_LAUNCHER_GENERATE_UNARY_CALL_H_
#define COHORT_LAUNCHER_GENERATE_UNARY_CALL_H_

#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>
#include <mutex>

#include "cohort/v1/generation.pb.h"
#include "launcher/generate_call.h"
#include "launcher/generation_sequence.h"

namespace cohort {

class UnaryCall : public grpc::ServerUnaryReactor, public SequenceReceiver {
 public:
  // `response` belongs to the call and lives until it is done.
  static grpc::ServerUnaryReactor* Start(CallStart start, v1::GenerateResult* response);
  static grpc::ServerUnaryReactor* Start(CallStart start, v1::ScoreResult* response);
  explicit UnaryCall(CallStart start);

  SinkAnswer OnTokens(uint32_t index, const GeneratedTokens& tokens) override;
  void OnFinish(uint32_t index, const cohort::Finish& finish) override;

  void OnCancel() override;
  void OnDone() override;

 protected:
  // With the mutex held, and only until the call ends.
  virtual SinkAnswer TakeTokens(uint32_t index, const GeneratedTokens& tokens) = 0;
  virtual void TakeFinish(uint32_t index, const cohort::Finish& finish) = 0;

  const CallStart start_;

 private:
  static grpc::ServerUnaryReactor* Run(std::shared_ptr<UnaryCall> call);

  std::shared_ptr<UnaryCall> self_;  // released by OnDone
  std::shared_ptr<ActiveRequest> request_;

  std::mutex mutex_;  // guards the response and what follows
  grpc::Status status_;
  uint32_t unfinished_;   // sequences
  bool refused_ = false;  // by the engine; what it still says does not matter
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_GENERATE_UNARY_CALL_H_
