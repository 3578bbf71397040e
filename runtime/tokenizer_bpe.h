// Byte-pair encoding of one piece of text: bytes become tokens, neighbours merge by rank.
#ifndef COHORT_RUNTIME_TOKENIZER_BPE_H_
#define COHORT_RUNTIME_TOKENIZER_BPE_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kernels/status.h"

namespace cohort {

// `left` and `right` side by side become `result`; a merge's rank is its place in the list.
struct Merge {
  int32_t left = 0;
  int32_t right = 0;
  int32_t result = 0;
};

struct BpeModel {
  std::array<int32_t, 256> byte_ids{};  // the token of a byte; -1 when it has none
  std::vector<Merge> merges;
  int32_t unknown_id = -1;     // stands for bytes without a token; -1: they are an error
  bool fuses_unknown = false;  // one for a whole run of them
  absl::flat_hash_map<std::string, int32_t> whole_pieces;  // bytes that are a token without merging
};

// Reused from piece to piece by one thread.
class BpeScratch {
 private:
  friend class BpeEncoder;
  // A node of the doubly linked list of the piece's current tokens.
  struct Symbol {
    int32_t id = 0;
    int32_t rank = 0;       // of the merge with the next symbol; -1 when there is none
    uint32_t previous = 0;  // kNone at the ends
    uint32_t next = 0;
  };
  // A merge that was possible when it was put in; outdated ones are dropped when they come up.
  struct Candidate {
    int32_t rank = 0;
    uint32_t position = 0;  // of the left symbol
  };
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;  // lowest rank first, leftmost on ties
};

class BpeEncoder {
 public:
  // INVALID_ARGUMENT when the same pair is merged twice.
  static absl::StatusOr<BpeEncoder> Create(BpeModel model);

  // Appends the tokens of `piece`. O(n log n). INVALID_ARGUMENT for a byte without a token.
  absl::Status Encode(StringView piece, BpeScratch& scratch, std::vector<int32_t>& ids) const;

 private:
  explicit BpeEncoder(BpeModel model) : model_(std::move(model)) {}
  absl::Status Seed(StringView piece, BpeScratch& scratch) const;
  void Rank(uint32_t position, BpeScratch& scratch) const;
  void MergeAt(uint32_t position, BpeScratch& scratch) const;

  BpeModel model_;
  absl::flat_hash_map<uint64_t, int32_t> ranks_;  // (left << 32 | right) -> index into merges
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_TOKENIZER_BPE_H_
