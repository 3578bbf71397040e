// The end of a step: which rows become logits, and what is read of them. Owned by the worker.
//
// Every rank looks at its own columns, and one gather of small records tells all of them the token
// and the log-probabilities. Two kinds of rows need more: where no filter bounds the ids that may
// be chosen, the ranks exchange their masses and then one of them the id; where the candidates do
// not reach as far as top-k or top-p does, the whole row is gathered.
#ifndef COHORT_RUNTIME_WORKER_CHOOSER_H_
#define COHORT_RUNTIME_WORKER_CHOOSER_H_

#include <cstdint>
#include <vector>

#include "kernels/candidate_choice.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "parallel/communicator.h"
#include "runtime/qwen2.h"
#include "runtime/step_plan.h"
#include "runtime/worker_edits.h"

namespace cohort {

// A row of the step whose logits are wanted, and the answers.
struct LogitRow {
  int32_t row = 0;        // among the step's wanted rows
  int32_t target = -1;    // id whose log-probability is wanted; -1: none
  int32_t score_top = 0;  // most probable ids wanted beside it
  bool sample = false;    // the rest when `sample`
  SamplingRow sampling;
  SequenceView view;
  size_t sequence = 0;     // of the plan's rows
  size_t row_of_rows = 0;  // inside that sequence's rows

  int32_t token = kNoToken;  // out: the token chosen, kNoToken or kNothingAllowed
  float token_logprob = 0;   // out: of `token`, where the sequence wants it
  float logprob = 0;         // out: of `target`
  // Out: the most probable ids, as many as target and token want; fewer in a small vocabulary.
  std::vector<TokenLogprob> top;

  int32_t token_top() const { return sample ? view.sampling->logprobs : -1; }
  bool wants_logprobs() const { return target >= 0 || token_top() >= 0; }
};

class WorkerChooser {
 public:
  // Ids from `valid_ids` on are never chosen. `device` must outlive the chooser.
  static absl::StatusOr<WorkerChooser> Create(const ShardPlan& plan, int64_t valid_ids,
                                              int64_t max_tokens, Device& device);
  // Bytes that Create() allocates.
  static int64_t WorkspaceBytes(const ShardPlan& plan);

  std::vector<LogitRow>& rows() { return rows_; }

  // Computes the answers of all rows() from the model's last Forward(); reorders them. Ends early,
  // with answers that mean nothing, when a collective failed.
  void Run(Qwen2& model, Communicator& tp);

 private:
  // The rows of one pass through the head.
  struct Chunk {
    absl::Span<LogitRow> rows;  // those to sample first
    size_t sampled = 0;
    TensorView logits;  // [rows, this rank's columns]
  };
  struct Unchosen {
    size_t row = 0;  // of the chunk
    Choice choice;
    size_t owner = 0;  // by mass: the rank that holds the token
  };

  explicit WorkerChooser(const Range& vocabulary) : edits_maker_(vocabulary) {}
  void RunChunk(absl::Span<LogitRow> rows, Qwen2& model, Communicator& tp);
  TensorView Logits(absl::Span<const LogitRow> rows, Qwen2& model);
  void MakeRequests(const Chunk& chunk);
  // The records of all ranks, rank by rank inside each row, on the host; valid until the next
  // chunk.
  absl::Span<const int32_t> GatherRecords(const Chunk& chunk, Communicator& tp);
  // Those of one row, from word `offset` of each rank's.
  absl::Span<const CandidateRecord> RecordsOf(absl::Span<const int32_t> words, size_t row,
                                              int64_t offset);
  void Choose(const Chunk& chunk, absl::Span<const int32_t> words);
  void ChooseByMass(const Chunk& chunk, Communicator& tp);
  void FindOwners(const Chunk& chunk, absl::Span<const int32_t> masses, size_t own_rank);
  void ChooseFromWholeRows(const Chunk& chunk, Qwen2& model, Communicator& tp);
  void SampleWholeRows(const Chunk& chunk, absl::Span<const Unchosen> rows, Qwen2& model,
                       Communicator& tp);
  void ReadLogprobs(const Chunk& chunk, absl::Span<const int32_t> words);
  // Every rank's `local` [rows, columns] of int32 in `words`, [rows, ranks, columns].
  absl::Span<const int32_t> Gather(TensorView local, Communicator& tp, std::vector<int32_t>* words);

  Device* device_ = nullptr;
  VocabularySlice slice_;
  int64_t vocabulary_ = 0;  // ids of all ranks, valid or not
  std::vector<LogitRow> rows_;
  WorkerEdits edits_maker_;
  CandidateChooser chooser_;

  // Of one chunk.
  std::vector<std::vector<LogitEdit>> edits_;   // per row
  std::vector<CandidateRequest> requests_;      // per sampled row
  std::vector<CandidateRequest> raw_requests_;  // per row; before the edits
  int64_t sampling_words_ = 0;                  // of a rank's record
  int64_t raw_words_ = 0;
  std::vector<float> token_logits_;  // per sampled row: the token's, before the edits
  std::vector<Unchosen> by_mass_, whole_;
  std::vector<MassRequest> mass_requests_;
  std::vector<SamplingRow> sampling_;
  std::vector<CandidateRecord> records_;
  std::vector<Range> parts_;
  std::vector<int32_t> record_words_;
  std::vector<int32_t> host_;

  Tensor row_indices_;  // [kMaxLogitRows] int32
  Tensor tokens_;       // [kMaxWholeRows] int32
  Tensor local_;        // [kMaxLogitRows * words of a rank] int32
  Tensor gathered_;     // [kMaxLogitRows * ranks * words of a rank] int32
  Tensor edited_;       // [kMaxWholeRows, this rank's columns] fp32
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_WORKER_CHOOSER_H_
