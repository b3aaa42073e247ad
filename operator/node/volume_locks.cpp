#include "operator/node/volume_locks.h"

#include "absl/strings/str_cat.h"

namespace collage::node {
namespace {

absl::Status taken(const std::string& volume) {
  return absl::AbortedError(absl::StrCat("another step on volume ", volume, " is under way"));
}

}  // namespace

VolumeLocks::Hold::~Hold() {
  if (locks_ == nullptr) return;
  {
    std::lock_guard lock(locks_->mutex_);
    locks_->held_.erase(volume_);
  }
  locks_->freed_.notify_all();
}

absl::StatusOr<VolumeLocks::Hold> VolumeLocks::acquire(const base::Context& context,
                                                       const std::string& volume) {
  std::unique_lock lock(mutex_);
  auto free = [&] { return !held_.contains(volume); };
  // wait_until() with the far end of time overflows in some implementations.
  const bool got = context.deadline() == base::Clock::Monotonic::max()
                       ? freed_.wait(lock, context.stop(), free)
                       : freed_.wait_until(lock, context.stop(), context.deadline(), free);
  if (!got) return taken(volume);
  held_.insert(volume);
  return Hold(this, volume);
}

absl::StatusOr<VolumeLocks::Hold> VolumeLocks::try_acquire(const std::string& volume) {
  std::lock_guard lock(mutex_);
  if (!held_.insert(volume).second) return taken(volume);
  return Hold(this, volume);
}

}  // namespace collage::node
