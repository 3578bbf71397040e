#include <algorithm>

#include "kernels/candidate_choice.h"
#include "kernels/cpu/logit_rows.h"
#include "kernels/cpu/ops.h"

namespace cohort {
namespace {

// One per thread, kept for its life, so that no step allocates.
RowScratch* ThreadScratch() {
  static thread_local RowScratch scratch;
  return &scratch;
}

absl::Span<float> RowOf(const TensorView& logits, int64_t row) {
  return {logits.Row<float>(row), static_cast<size_t>(logits.columns())};
}

}  // namespace

void CpuOps::DoLocalCandidates(TensorView logits, absl::Span<const CandidateRequest> requests,
                               const VocabularySlice& slice, TensorView out) {
  threads_.ParallelFor(logits.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      Summarise(RowOf(logits, row), requests[static_cast<size_t>(row)], slice, ThreadScratch(),
                out.Row<int32_t>(row));
    }
  });
}

void CpuOps::DoLocalMasses(TensorView logits, absl::Span<const MassRequest> requests,
                           const VocabularySlice& slice, TensorView out) {
  threads_.ParallelFor(out.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const MassRequest& request = requests[static_cast<size_t>(i)];
      SumMasses(RowOf(logits, request.row), request, slice, ThreadScratch(), out.Row<int32_t>(i));
    }
  });
}

void CpuOps::DoLocalPick(TensorView logits, absl::Span<const MassRequest> requests,
                         const VocabularySlice& slice, TensorView out) {
  threads_.ParallelFor(out.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const MassRequest& request = requests[static_cast<size_t>(i)];
      PickByMass(RowOf(logits, request.row), request, slice, ThreadScratch(), out.Row<int32_t>(i));
    }
  });
}

void CpuOps::DoRecordedCandidates(TensorView logits, TensorView sampling, int32_t candidates,
                                  const VocabularySlice& slice, TensorView out) {
  threads_.ParallelFor(logits.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const CandidateRequest request = {
          .candidates = candidates,
          .temperature = ReadSamplingRow(sampling.Row<int32_t>(row)).temperature};
      Summarise(RowOf(logits, row), request, slice, ThreadScratch(), out.Row<int32_t>(row));
    }
  });
}

void CpuOps::DoChooseRecorded(TensorView records, int64_t ranks, TensorView sampling,
                              int64_t valid_ids, TensorView tokens) {
  static thread_local CandidateChooser chooser;
  static thread_local std::vector<CandidateRecord> of_ranks;
  const int64_t words = records.columns() / ranks;
  const int32_t asked = static_cast<int32_t>(CandidateRecord::Candidates(words));
  for (int64_t row = 0; row < records.rows(); ++row) {
    of_ranks.clear();
    for (int64_t rank = 0; rank < ranks; ++rank) {
      of_ranks.emplace_back(records.Row<int32_t>(row) + rank * words);
    }
    const Choice choice =
        chooser.Choose(of_ranks, ReadSamplingRow(sampling.Row<int32_t>(row)), valid_ids, asked);
    tokens.As<int32_t>()[row] = choice.kind == Choice::Kind::kToken ? choice.token : kUndecided;
  }
}

namespace {

// What LocalMasses needs of a row that is chosen by mass; its temperature is 0 for another row.
MassRequest MassRequestOf(const RecordedRows& rows, int64_t row, const VocabularySlice& slice) {
  const SamplingRow sampling = ReadSamplingRow(rows.sampling.Row<int32_t>(row));
  MassRequest request{.row = static_cast<int32_t>(row), .temperature = 0};
  if (rows.tokens.As<int32_t>()[row] != kUndecided || !IsByMass(sampling, slice.valid_ids)) {
    return request;
  }
  const int64_t words = rows.records.columns() / rows.ranks;
  request.temperature = sampling.temperature;
  request.largest = LargestOfRecords(rows.records.Row<int32_t>(row), rows.ranks, words);
  request.lowest = LowestByMinP(sampling, request.largest);
  return request;
}

}  // namespace

void CpuOps::DoRecordedMasses(TensorView logits, const RecordedRows& rows,
                              const VocabularySlice& slice, TensorView out) {
  threads_.ParallelFor(out.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const MassRequest request = MassRequestOf(rows, row, slice);
      if (request.temperature > 0) {
        SumMasses(RowOf(logits, row), request, slice, ThreadScratch(), out.Row<int32_t>(row));
      } else {
        WriteWords(0, out.Row<int32_t>(row));
      }
    }
  });
}

void CpuOps::DoRecordedPicks(TensorView logits, const RecordedRows& rows, TensorView masses,
                             int64_t rank, const VocabularySlice& slice, TensorView out) {
  threads_.ParallelFor(out.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      MassRequest request = MassRequestOf(rows, row, slice);
      if (request.temperature > 0) {
        request.wanted = WantedOfRank(masses.Row<int32_t>(row), rows.ranks, rank,
                                      ReadSamplingRow(rows.sampling.Row<int32_t>(row)));
      }
      PickByMass(RowOf(logits, row), request, slice, ThreadScratch(), out.Row<int32_t>(row));
    }
  });
}

void CpuOps::DoTakePicks(TensorView picks, TensorView tokens) {
  for (int64_t row = 0; row < picks.rows(); ++row) {
    int32_t& token = tokens.As<int32_t>()[row];
    for (int64_t rank = 0; token == kUndecided && rank < picks.columns() / 2; ++rank) {
      const int32_t pick = picks.Row<int32_t>(row)[2 * rank];
      token = pick >= 0 ? pick : token;
    }
  }
}

void CpuOps::DoSelectIds(TensorView sources, TensorView last_tokens, TensorView ids) {
  for (int64_t i = 0; i < ids.rows(); ++i) {
    const int32_t source = sources.As<int32_t>()[i];
    CHECK_LT(-1 - source, last_tokens.rows()) << "slot of row " << i;
    ids.As<int32_t>()[i] =
        source >= 0 ? source : std::max(last_tokens.As<int32_t>()[-1 - source], 0);
  }
}

void CpuOps::DoStoreTokens(TensorView tokens, TensorView slots, TensorView last_tokens) {
  for (int64_t i = 0; i < tokens.rows(); ++i) {
    const int32_t slot = slots.As<int32_t>()[i];
    CHECK_LT(slot, last_tokens.rows()) << "slot of row " << i;
    if (slot >= 0) {
      last_tokens.As<int32_t>()[slot] = tokens.As<int32_t>()[i];
    }
  }
}

void CpuOps::DoEditLogits(TensorView logits, absl::Span<const LogitEdits> edits, int64_t first_id,
                          TensorView out) {
  threads_.ParallelFor(logits.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      CopyEdited(RowOf(logits, row), edits[static_cast<size_t>(row)], first_id, RowOf(out, row));
    }
  });
}

void CpuOps::DoSampleUndecided(TensorView logits, TensorView sampling, int64_t valid_ids,
                               TensorView tokens) {
  int32_t* chosen = tokens.As<int32_t>();
  threads_.ParallelFor(logits.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      if (chosen[row] == kUndecided) {
        chosen[row] = SampleRow(RowOf(logits, row).subspan(0, static_cast<size_t>(valid_ids)),
                                ReadSamplingRow(sampling.Row<int32_t>(row)), ThreadScratch());
      }
    }
  });
}

void CpuOps::DoSample(TensorView logits, absl::Span<const SamplingRow> rows, int64_t valid_ids,
                      TensorView out) {
  int32_t* chosen = out.As<int32_t>();
  threads_.ParallelFor(logits.rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      chosen[row] = SampleRow(RowOf(logits, row).subspan(0, static_cast<size_t>(valid_ids)),
                              rows[static_cast<size_t>(row)], ThreadScratch());
    }
  });
}

}  // namespace cohort
