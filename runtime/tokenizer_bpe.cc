#include "runtime/tokenizer_bpe.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"

namespace cohort {
namespace {

constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();
constexpr int32_t kNoMerge = -1;

uint64_t PairKey(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

// Order of a heap whose top is the lowest rank, the leftmost of equals.
constexpr auto kComesLater = [](const auto& a, const auto& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
};

}  // namespace

absl::StatusOr<BpeEncoder> BpeEncoder::Create(BpeModel model) {
  BpeEncoder encoder(std::move(model));
  const std::vector<Merge>& merges = encoder.model_.merges;
  encoder.ranks_.reserve(merges.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    const uint64_t key = PairKey(merges[i].left, merges[i].right);
    const auto [found, is_new] = encoder.ranks_.emplace(key, static_cast<int32_t>(i));
    if (!is_new) {
      return absl::InvalidArgumentError(
          absl::StrCat("model.merges[", i, "] repeats model.merges[", found->second, "]"));
    }
  }
  return encoder;
}

absl::Status BpeEncoder::Seed(StringView piece, BpeScratch& scratch) const {
  std::vector<BpeScratch::Symbol>& symbols = scratch.symbols_;
  symbols.clear();
  scratch.heap_.clear();
  if (piece.size() >= kNone) {
    return absl::InvalidArgumentError(absl::StrCat("a piece of ", piece.size(), " bytes"));
  }
  bool unknown_before = false;
  for (const char c : piece) {
    const auto byte = static_cast<unsigned char>(c);
    const int32_t id = model_.byte_ids[byte];
    const bool is_unknown = id < 0;
    if (is_unknown && model_.unknown_id < 0) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "byte 0x%02X of the text has no token in this tokenizer, nor has it an unk_token", byte));
    }
    if (is_unknown && unknown_before && model_.fuses_unknown) continue;
    unknown_before = is_unknown;
    const auto position = static_cast<uint32_t>(symbols.size());
    symbols.push_back({is_unknown ? model_.unknown_id : id, kNoMerge,
                       position == 0 ? kNone : position - 1, position + 1});
  }
  if (!symbols.empty()) symbols.back().next = kNone;
  for (uint32_t i = 0; i < symbols.size(); ++i) Rank(i, scratch);
  return absl::OkStatus();
}

void BpeEncoder::Rank(uint32_t position, BpeScratch& scratch) const {
  BpeScratch::Symbol& symbol = scratch.symbols_[position];
  symbol.rank = kNoMerge;
  if (symbol.next == kNone) return;
  const auto found = ranks_.find(PairKey(symbol.id, scratch.symbols_[symbol.next].id));
  if (found == ranks_.end()) return;
  symbol.rank = found->second;
  scratch.heap_.push_back({symbol.rank, position});
  std::push_heap(scratch.heap_.begin(), scratch.heap_.end(), kComesLater);
}

void BpeEncoder::MergeAt(uint32_t position, BpeScratch& scratch) const {
  BpeScratch::Symbol& left = scratch.symbols_[position];
  BpeScratch::Symbol& right = scratch.symbols_[left.next];
  left.id = model_.merges[static_cast<size_t>(left.rank)].result;
  right.rank = kNoMerge;  // it is gone: its candidates are outdated
  left.next = right.next;
  if (left.next != kNone) scratch.symbols_[left.next].previous = position;
  Rank(position, scratch);
  if (left.previous != kNone) Rank(left.previous, scratch);
}

absl::Status BpeEncoder::Encode(StringView piece, BpeScratch& scratch,
                                std::vector<int32_t>& ids) const {
  if (!model_.whole_pieces.empty()) {
    const auto whole = model_.whole_pieces.find(piece);
    if (whole != model_.whole_pieces.end()) {
      ids.push_back(whole->second);
      return absl::OkStatus();
    }
  }
  RETURN_IF_ERROR(Seed(piece, scratch));
  std::vector<BpeScratch::Candidate>& heap = scratch.heap_;
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), kComesLater);
    const BpeScratch::Candidate best = heap.back();
    heap.pop_back();
    if (scratch.symbols_[best.position].rank == best.rank) MergeAt(best.position, scratch);
  }
  for (uint32_t i = 0; i != kNone && i < scratch.symbols_.size(); i = scratch.symbols_[i].next) {
    ids.push_back(scratch.symbols_[i].id);
  }
  return absl::OkStatus();
}

}  // namespace cohort
