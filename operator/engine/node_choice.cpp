#include "operator/engine/node_choice.h"

#include <algorithm>

#include "operator/engine/error_table.h"

namespace collage::engine {

std::vector<std::string> NodeChoice::order(std::vector<std::string> ready) const {
  std::lock_guard lock(mutex_);
  const auto rank = [&](const std::string& node) {
    if (silent_.contains(node)) return 2;
    return node == last_good_ ? 0 : 1;
  };
  std::stable_sort(ready.begin(), ready.end(),
                   [&](const std::string& a, const std::string& b) { return rank(a) < rank(b); });
  return ready;
}

std::string NodeChoice::busy_at(const std::string& volume) const {
  std::lock_guard lock(mutex_);
  const auto found = busy_.find(volume);
  return found == busy_.end() ? "" : found->second;
}

void NodeChoice::ended(const std::string& node, const std::string& volume, const absl::Status& status) {
  std::lock_guard lock(mutex_);
  if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) {
    silent_.insert(node);
  } else if (!absl::IsCancelled(status)) {
    silent_.erase(node);
  }
  if (status.ok()) last_good_ = node;
  if (volume.empty()) return;
  if (is_final(status)) {
    busy_.erase(volume);
    return;
  }
  if (busy_.size() >= kMaxBusy && !busy_.contains(volume)) busy_.erase(busy_.begin());
  busy_[volume] = node;
}

}  // namespace collage::engine
