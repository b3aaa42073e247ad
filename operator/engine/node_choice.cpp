#include "operator/engine/node_choice.h"

#include <algorithm>

#include "drivers/driver.h"

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

bool NodeChoice::is_silent(const std::string& node) const {
  std::lock_guard lock(mutex_);
  return silent_.contains(node);
}

std::string NodeChoice::busy_at(const std::string& volume) const {
  std::lock_guard lock(mutex_);
  const auto found = busy_.find(volume);
  return found == busy_.end() ? "" : *found->second.nodes.begin();
}

std::set<std::string> NodeChoice::bound_to(const std::string& volume, const std::string& call) const {
  std::lock_guard lock(mutex_);
  const auto found = busy_.find(volume);
  if (found == busy_.end() || found->second.call == call) return {};
  return found->second.nodes;
}

void NodeChoice::ended(const std::string& node, const std::string& volume, const std::string& call,
                       const absl::Status& status) {
  std::lock_guard lock(mutex_);
  if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) {
    silent_.insert(node);
  } else if (!absl::IsCancelled(status)) {
    silent_.erase(node);
  }
  if (status.ok()) last_good_ = node;
  if (volume.empty()) return;
  const auto found = busy_.find(volume);
  if (drivers::is_final(status)) {
    // Of this node alone: where the call was before, it may still be running.
    if (found == busy_.end()) return;
    found->second.nodes.erase(node);
    if (found->second.nodes.empty()) busy_.erase(found);
    return;
  }
  if (found == busy_.end()) {
    if (busy_.size() >= kMaxBusy) busy_.erase(busy_.begin());
    busy_[volume] = {call, {node}};
    return;
  }
  if (found->second.call != call) found->second.call.clear();
  found->second.nodes.insert(node);
}

}  // namespace collage::engine
