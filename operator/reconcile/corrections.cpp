#include "operator/reconcile/corrections.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace collage::reconcile {

std::chrono::nanoseconds Corrections::begin(const std::string& object, base::Clock::Monotonic now) {
  std::lock_guard lock(mutex_);
  std::erase_if(entries_, [&](const auto& entry) { return now - entry.second.last >= kForgotten; });
  Entry& entry = entries_[object];
  if (now < entry.next) return entry.next - now;
  ++entry.count;
  entry.last = now;
  if (entry.count >= kAtOnce) {
    const int doublings = std::min(entry.count - kAtOnce, 8);
    entry.next = now + std::min<std::chrono::seconds>(kFirstWait * (1 << doublings), kLongestWait);
  }
  return {};
}

std::chrono::nanoseconds Corrections::contested(const std::string& object, base::Clock::Monotonic now) const {
  std::lock_guard lock(mutex_);
  const auto found = entries_.find(object);
  if (found == entries_.end() || found->second.count < kAtOnce) return {};
  return std::max<std::chrono::nanoseconds>(found->second.next - now, std::chrono::nanoseconds(1));
}

bool Settling::may_write(const std::string& object, Change change, const std::string& remedy) {
  std::chrono::nanoseconds wait{0};
  if (change == Change::kDrift) wait = corrections_.begin(object, now_);
  if (wait.count() > 0) again_ = again_.count() == 0 ? wait : std::min(again_, wait);
  if (corrections_.contested(object, now_).count() > 0) {
    contested_.push_back(absl::StrCat(object,
                                      " is changed by somebody else again and again, so it is set right less "
                                      "and less often (at most every ",
                                      Corrections::kLongestWait.count() / 60, " minutes): ", remedy));
  }
  return change != Change::kNone && wait.count() == 0;
}

std::string Settling::contested() const {
  return absl::StrJoin(contested_, "; ");
}

}  // namespace collage::reconcile
