// Which KV blocks hold which prefixes: a trie whose edges are whole blocks of token ids. Owned by
// the scheduler, which tells it of every block that is written and of every one that is evicted.
//
// A block is found by the node before it and by its token ids, both compared in full: the hash only
// finds the place. Nodes are never reused. So no collision, made on purpose or not, gives a request
// the keys and values of another prefix, and no prefix is found under another salt.
#ifndef COHORT_RUNTIME_PREFIX_CACHE_H_
#define COHORT_RUNTIME_PREFIX_CACHE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/types/span.h"
#include "kernels/status.h"

namespace cohort {

class PrefixCache {
 public:
  using Node = uint64_t;  // a prefix of whole blocks; 0: none

  PrefixCache(int64_t blocks, int64_t block_size);
  PrefixCache(const PrefixCache&) = delete;  // the index points into it
  PrefixCache& operator=(const PrefixCache&) = delete;

  // The empty prefix of those who gave `salt`.
  Node Root(StringView salt);
  // The same where somebody gave `salt` before; 0 else.
  Node FindRoot(StringView salt) const;

  struct Found {
    Node node = 0;
    int32_t block = 0;
  };
  // The block with `tokens` (block_size ids) after the prefix `parent`.
  std::optional<Found> Find(Node parent, absl::Span<const int32_t> tokens) const;

  // `block`, which is not in the cache, holds `tokens` after `parent`. Returns what Find gives from
  // now on: another block where that prefix was known already, and `block` is then not cached.
  Found Insert(Node parent, absl::Span<const int32_t> tokens, int32_t block);

  // The contents of `block` are lost or not to be trusted; nothing when it is not in the cache.
  // What follows its prefix is not found any more.
  void Erase(int32_t block);
  void Clear();

  int64_t size() const { return static_cast<int64_t>(index_.size()); }

 private:
  struct Entry {
    Node node = 0;
    Node parent = 0;
  };
  struct Key {
    Node parent = 0;
    absl::Span<const int32_t> tokens;
  };
  // Blocks are hashed and compared by what they hold.
  struct Hash {
    using is_transparent = void;
    const PrefixCache* cache;
    size_t operator()(const Key& key) const;
    size_t operator()(int32_t block) const { return (*this)(cache->KeyOf(block)); }
  };
  struct Equal {
    using is_transparent = void;
    const PrefixCache* cache;
    bool operator()(int32_t a, int32_t b) const { return a == b; }
    bool operator()(int32_t block, const Key& key) const;
  };

  Key KeyOf(int32_t block) const;
  size_t Index(int32_t block) const;

  int64_t block_size_;
  std::vector<Entry> entries_;   // per block; node 0: not in the cache
  std::vector<int32_t> tokens_;  // [blocks, block_size]
  absl::flat_hash_set<int32_t, Hash, Equal> index_;
  absl::flat_hash_map<std::string, Node> roots_;  // per salt; all are forgotten when too many
  Node last_node_ = 0;
};

}  // namespace cohort

#endif  // COHORT_RUNTIME_PREFIX_CACHE_H_
