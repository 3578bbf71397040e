#include "runtime/prefix_cache.h"

#include <algorithm>

#include "kernels/check.h"

namespace cohort {

PrefixCache::PrefixCache(int64_t blocks, int64_t block_size)
    : block_size_(block_size),
      entries_(static_cast<size_t>(blocks)),
      tokens_(static_cast<size_t>(blocks * block_size)),
      index_(0, Hash{this}, Equal{this}) {}

size_t PrefixCache::Hash::operator()(const Key& key) const {
  return absl::HashOf(key.parent, key.tokens);
}

bool PrefixCache::Equal::operator()(int32_t block, const Key& key) const {
  const Key own = cache->KeyOf(block);
  return own.parent == key.parent && own.tokens == key.tokens;
}

size_t PrefixCache::Index(int32_t block) const {
  CHECK(block >= 0 && static_cast<size_t>(block) < entries_.size())
      << "block " << block << " of " << entries_.size();
  return static_cast<size_t>(block);
}

PrefixCache::Key PrefixCache::KeyOf(int32_t block) const {
  const size_t size = static_cast<size_t>(block_size_);
  const size_t index = Index(block);
  return {entries_[index].parent, absl::MakeConstSpan(tokens_).subspan(index * size, size)};
}

PrefixCache::Node PrefixCache::FindRoot(StringView salt) const {
  const auto found = roots_.find(salt);
  return found == roots_.end() ? 0 : found->second;
}

PrefixCache::Node PrefixCache::Root(StringView salt) {
  if (const Node known = FindRoot(salt); known != 0) {
    return known;
  }
  // More salts than blocks are of no use; what is cached under the forgotten ones is evicted in
  // time.
  if (roots_.size() >= entries_.size()) {
    roots_.clear();
  }
  roots_.emplace(std::string(salt), ++last_node_);
  return last_node_;
}

std::optional<PrefixCache::Found> PrefixCache::Find(Node parent,
                                                    absl::Span<const int32_t> tokens) const {
  CHECK_EQ(static_cast<int64_t>(tokens.size()), block_size_);
  const auto found = index_.find(Key{parent, tokens});
  if (found == index_.end()) {
    return std::nullopt;
  }
  return Found{.node = entries_[Index(*found)].node, .block = *found};
}

PrefixCache::Found PrefixCache::Insert(Node parent, absl::Span<const int32_t> tokens,
                                       int32_t block) {
  if (const std::optional<Found> known = Find(parent, tokens); known.has_value()) {
    return *known;
  }
  Entry& entry = entries_[Index(block)];
  CHECK_EQ(entry.node, 0u) << "block " << block << " is in the cache already";
  entry = {.node = ++last_node_, .parent = parent};
  std::copy(tokens.begin(), tokens.end(), tokens_.begin() + block * block_size_);
  index_.insert(block);
  return {.node = entry.node, .block = block};
}

void PrefixCache::Erase(int32_t block) {
  Entry& entry = entries_[Index(block)];
  if (entry.node != 0) {
    index_.erase(block);
    entry = {};
  }
}

void PrefixCache::Clear() {
  index_.clear();
  roots_.clear();
  std::fill(entries_.begin(), entries_.end(), Entry());
}

}  // namespace cohort
