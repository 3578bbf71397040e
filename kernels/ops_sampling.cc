// The operations that choose tokens: checks and dispatch.
#include <cmath>

#include "kernels/candidates.h"
#include "kernels/ops.h"
#include "kernels/ops_checks.h"

namespace cohort {
namespace {

void CheckSamplingRow(const SamplingRow& row) {
  CHECK(std::isfinite(row.temperature) && row.temperature >= 0)
      << "temperature is " << row.temperature;
  CHECK(row.top_p > 0 && row.top_p <= 1) << "top_p is " << row.top_p;
  CHECK_GE(row.top_k, 0) << "top_k";
  CHECK(row.min_p >= 0 && row.min_p <= 1) << "min_p is " << row.min_p;
}

void CheckLogits(const TensorView& logits, StringView name) {
  CheckRank(logits, 2, name);
  CheckDType(logits, DType::kF32, name);
  CHECK_LE(logits.columns(), kMaxVocabulary) << name;
}

void CheckMassRequests(const TensorView& logits, absl::Span<const MassRequest> requests,
                       const TensorView& out, StringView name) {
  CheckLogits(logits, name);
  CheckDType(out, DType::kI32, name);
  CheckShape(out, Shape{static_cast<int64_t>(requests.size()), 2}, name);
  int32_t before = -1;  // edits are made in place: a row may come only once
  for (const MassRequest& request : requests) {
    CHECK(request.row >= 0 && request.row < logits.rows())
        << name << ": row " << request.row << " of " << logits.rows();
    CHECK_GT(request.row, before) << name << ": rows must ascend";
    before = request.row;
    CHECK_GT(request.temperature, 0) << name;
    CHECK(!std::isnan(request.largest) && !std::isnan(request.lowest)) << name;
  }
}

void CheckSampling(const TensorView& sampling, int64_t rows, StringView name) {
  CheckDType(sampling, DType::kI32, name);
  CheckShape(sampling, Shape{rows, kSamplingWords}, name);
}

void CheckWords(const TensorView& words, const Shape& shape, StringView name) {
  CheckDType(words, DType::kI32, name);
  CheckShape(words, shape, name);
}

void CheckRecorded(const RecordedRows& rows, StringView name) {
  const TensorView& records = rows.records;
  CheckRank(records, 2, name);
  CheckDType(records, DType::kI32, name);
  CHECK(records.rows() <= 1 || records.is_dense()) << name << ": records are strided";
  CHECK(rows.ranks >= 1 && records.columns() % rows.ranks == 0)
      << name << ": " << records.columns() << " words of " << rows.ranks << " ranks";
  CHECK(CandidateRecord::Candidates(records.columns() / rows.ranks) >= 1) << name << " records";
  CheckSampling(rows.sampling, records.rows(), name);
  CheckIndices(rows.tokens, records.rows(), name);
}

}  // namespace

void Ops::LocalCandidates(TensorView logits, absl::Span<const CandidateRequest> requests,
                          const VocabularySlice& slice, TensorView out) {
  CheckLogits(logits, "LocalCandidates logits");
  CHECK_EQ(logits.rows(), static_cast<int64_t>(requests.size())) << "LocalCandidates requests";
  CheckRank(out, 2, "LocalCandidates out");
  CheckDType(out, DType::kI32, "LocalCandidates out");
  CHECK_EQ(out.rows(), logits.rows()) << "LocalCandidates out";
  for (const CandidateRequest& request : requests) {
    CHECK(request.candidates >= 0 && request.candidates <= kMaxCandidates)
        << request.candidates << " candidates";
    CHECK_LE(CandidateRecord::Words(request.candidates), out.columns()) << "LocalCandidates out";
    CHECK(std::isfinite(request.temperature) && request.temperature >= 0)
        << "temperature is " << request.temperature;
  }
  if (logits.rows() > 0) {
    DoLocalCandidates(logits, requests, slice, out);
  }
}

void Ops::LocalMasses(TensorView logits, absl::Span<const MassRequest> requests,
                      const VocabularySlice& slice, TensorView out) {
  CheckMassRequests(logits, requests, out, "LocalMasses");
  if (!requests.empty()) {
    DoLocalMasses(logits, requests, slice, out);
  }
}

void Ops::LocalPick(TensorView logits, absl::Span<const MassRequest> requests,
                    const VocabularySlice& slice, TensorView out) {
  CheckMassRequests(logits, requests, out, "LocalPick");
  if (!requests.empty()) {
    DoLocalPick(logits, requests, slice, out);
  }
}

void Ops::RecordedCandidates(TensorView logits, TensorView sampling, int32_t candidates,
                             const VocabularySlice& slice, TensorView out) {
  CheckLogits(logits, "RecordedCandidates logits");
  CheckSampling(sampling, logits.rows(), "RecordedCandidates sampling");
  CHECK(candidates >= 1 && candidates <= kMaxCandidates) << candidates << " candidates";
  CheckRank(out, 2, "RecordedCandidates out");
  CheckDType(out, DType::kI32, "RecordedCandidates out");
  CHECK_EQ(out.rows(), logits.rows()) << "RecordedCandidates out";
  CHECK_LE(CandidateRecord::Words(candidates), out.columns()) << "RecordedCandidates out";
  if (logits.rows() > 0) {
    DoRecordedCandidates(logits, sampling, candidates, slice, out);
  }
}

void Ops::RecordedMasses(TensorView logits, const RecordedRows& rows, const VocabularySlice& slice,
                         TensorView out) {
  CheckLogits(logits, "RecordedMasses logits");
  CheckRecorded(rows, "RecordedMasses");
  CHECK_EQ(rows.tokens.rows(), logits.rows()) << "RecordedMasses rows";
  CheckWords(out, Shape{logits.rows(), 2}, "RecordedMasses out");
  if (logits.rows() > 0) {
    DoRecordedMasses(logits, rows, slice, out);
  }
}

void Ops::RecordedPicks(TensorView logits, const RecordedRows& rows, TensorView masses,
                        int64_t rank, const VocabularySlice& slice, TensorView out) {
  CheckLogits(logits, "RecordedPicks logits");
  CheckRecorded(rows, "RecordedPicks");
  CHECK_EQ(rows.tokens.rows(), logits.rows()) << "RecordedPicks rows";
  CHECK(rank >= 0 && rank < rows.ranks) << "RecordedPicks: rank " << rank << " of " << rows.ranks;
  CheckWords(masses, Shape{logits.rows(), 2 * rows.ranks}, "RecordedPicks masses");
  CHECK(masses.rows() <= 1 || masses.is_dense()) << "RecordedPicks masses are strided";
  CheckWords(out, Shape{logits.rows(), 2}, "RecordedPicks out");
  if (logits.rows() > 0) {
    DoRecordedPicks(logits, rows, masses, rank, slice, out);
  }
}

void Ops::TakePicks(TensorView picks, TensorView tokens) {
  CheckRank(picks, 2, "TakePicks picks");
  CheckDType(picks, DType::kI32, "TakePicks picks");
  CHECK_EQ(picks.columns() % 2, 0) << "TakePicks picks";
  CHECK(picks.rows() <= 1 || picks.is_dense()) << "TakePicks picks are strided";
  CheckIndices(tokens, picks.rows(), "TakePicks tokens");
  if (picks.rows() > 0) {
    DoTakePicks(picks, tokens);
  }
}

void Ops::SampleUndecided(TensorView logits, TensorView sampling, int64_t valid_ids,
                          TensorView tokens) {
  CheckLogits(logits, "SampleUndecided logits");
  CheckSampling(sampling, logits.rows(), "SampleUndecided sampling");
  CHECK(valid_ids >= 0 && valid_ids <= logits.columns())
      << "SampleUndecided valid_ids is " << valid_ids << " of " << logits.columns();
  CheckIndices(tokens, logits.rows(), "SampleUndecided tokens");
  if (logits.rows() > 0) {
    DoSampleUndecided(logits, sampling, valid_ids, tokens);
  }
}

void Ops::ChooseRecorded(TensorView records, int64_t ranks, TensorView sampling, int64_t valid_ids,
                         TensorView tokens) {
  CheckRecorded({records, ranks, sampling, tokens}, "ChooseRecorded");
  if (records.rows() > 0) {
    DoChooseRecorded(records, ranks, sampling, valid_ids, tokens);
  }
}

void Ops::SelectIds(TensorView sources, TensorView last_tokens, TensorView ids) {
  CheckIndices(sources, ids.rows(), "SelectIds sources");
  CheckIndices(last_tokens, last_tokens.rows(), "SelectIds last_tokens");
  CheckIndices(ids, ids.rows(), "SelectIds ids");
  if (ids.rows() > 0) {
    DoSelectIds(sources, last_tokens, ids);
  }
}

void Ops::StoreTokens(TensorView tokens, TensorView slots, TensorView last_tokens) {
  CheckIndices(tokens, tokens.rows(), "StoreTokens tokens");
  CheckIndices(slots, tokens.rows(), "StoreTokens slots");
  CheckIndices(last_tokens, last_tokens.rows(), "StoreTokens last_tokens");
  if (tokens.rows() > 0) {
    DoStoreTokens(tokens, slots, last_tokens);
  }
}

void Ops::EditLogits(TensorView logits, absl::Span<const LogitEdits> edits, int64_t first_id,
                     TensorView out) {
  CheckLogits(logits, "EditLogits logits");
  CheckDType(out, DType::kF32, "EditLogits out");
  CheckShape(out, logits.shape, "EditLogits out");
  CHECK_EQ(logits.rows(), static_cast<int64_t>(edits.size())) << "EditLogits edits";
  if (logits.rows() > 0 && logits.columns() > 0) {
    DoEditLogits(logits, edits, first_id, out);
  }
}

void Ops::Sample(TensorView logits, absl::Span<const SamplingRow> rows, int64_t valid_ids,
                 TensorView out) {
  CheckLogits(logits, "Sample logits");
  CHECK_EQ(logits.rows(), static_cast<int64_t>(rows.size())) << "Sample rows";
  CHECK(valid_ids >= 0 && valid_ids <= logits.columns())
      << "Sample valid_ids is " << valid_ids << " of " << logits.columns();
  CheckIndices(out, logits.rows(), "Sample out");
  for (const SamplingRow& row : rows) {
    CheckSamplingRow(row);
  }
  if (logits.rows() > 0) {
    DoSample(logits, rows, valid_ids, out);
  }
}

}  // namespace cohort
