// One call of GenerateStream.
#ifndef COHORT_LAUNCHER_GENERATE_STREAM_CALL_H_
#define COHORT_LAUNCHER_GENERATE_STREAM_CALL_H_

#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "cohort/v1/generation.pb.h"
#include "launcher/generate_call.h"
#include "launcher/generation_sequence.h"

namespace cohort {

// Tokens and bytes that wait for a client to read. Above `Most` of either the request pauses, at
// half of it or less it goes on.
struct StreamBacklog {
  static constexpr int64_t kMostTokens = 256;  // per sequence
  static constexpr int64_t kMostBytes = 64 << 10;
  int64_t tokens = 0;
  int64_t bytes = 0;
};

class StreamCall final : public grpc::ServerWriteReactor<v1::GenerateEvent>,
                         public SequenceReceiver,
                         public std::enable_shared_from_this<StreamCall> {
 public:
  static grpc::ServerWriteReactor<v1::GenerateEvent>* Start(CallStart start);
  explicit StreamCall(CallStart start);

  SinkAnswer OnTokens(uint32_t index, const GeneratedTokens& tokens) override;
  void OnFinish(uint32_t index, const cohort::Finish& finish) override;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  // What is still to be written of one sequence.
  struct Outgoing {
    Outgoing(const CallStart& start, uint32_t index)
        : sequence(*start.context, start.generation, index) {}
    GenerationSequence sequence;
    std::optional<v1::Delta> delta;  // what came while a write was outstanding
    StreamBacklog size;              // of `delta`
    std::optional<v1::Finished> finished;
  };

  void Submit();
  // Writes the next event or ends the call, unless a write is outstanding. Takes the mutex.
  void Pump();

  // With the mutex held:
  void Enqueue(v1::Delta delta, int64_t tokens, Outgoing& outgoing);
  // The next event to write, or nullopt when there is none yet (or any more).
  std::optional<v1::GenerateEvent> NextEvent();
  std::optional<v1::GenerateEvent> NextOf(Outgoing& outgoing);
  void PauseOrResume();

  const CallStart start_;
  std::shared_ptr<StreamCall> self_;  // released by OnDone
  std::shared_ptr<ActiveRequest> request_;

  std::mutex mutex_;                      // guards what follows
  std::optional<v1::Accepted> accepted_;  // until it is written
  std::deque<Outgoing> sequences_;
  size_t next_ = 0;                     // whose turn it is
  size_t unfinished_ = 0;               // sequences
  std::optional<grpc::Status> status_;  // of the call: the first that is not OK, once known
  StreamBacklog backlog_;               // of all sequences
  uint64_t event_sequence_ = 0;
  bool submitted_ = false;  // nothing is written before
  bool refused_ = false;    // by the engine; what it still says does not matter
  bool paused_ = false;
  bool busy_ = false;    // a write is outstanding, or the call has ended
  bool broken_ = false;  // the client is gone
  v1::GenerateEvent writing_;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_GENERATE_STREAM_CALL_H_
