#include "drivers/store/name_locks.h"

#include <chrono>
#include <utility>

#include "base/status.h"

namespace collage::drivers {

NameLocks::Hold::Hold(NameLocks* locks, std::string name) : locks_(locks), name_(std::move(name)) {}

NameLocks::Hold::Hold(Hold&& other) noexcept
    : locks_(std::exchange(other.locks_, nullptr)), name_(std::move(other.name_)) {}

NameLocks::Hold::~Hold() {
  if (locks_ == nullptr) return;
  {
    std::lock_guard guard(locks_->mutex_);
    locks_->held_.erase(name_);
  }
  locks_->freed_.notify_all();
}

absl::StatusOr<NameLocks::Hold> NameLocks::acquire(const base::Context& context, const std::string& name) {
  // The context's clock may be a fake one, so its deadline is asked for now and then rather than waited for.
  constexpr std::chrono::milliseconds kLook{100};
  std::unique_lock guard(mutex_);
  while (held_.contains(name)) {
    COLLAGE_RETURN_IF_ERROR(context.status());
    freed_.wait_for(guard, context.stop(), kLook, [&] { return !held_.contains(name); });
  }
  held_.insert(name);
  return Hold(this, name);
}

std::optional<NameLocks::Hold> NameLocks::try_acquire(const std::string& name) {
  std::lock_guard guard(mutex_);
  if (!held_.insert(name).second) return std::nullopt;
  return Hold(this, name);
}

}  // namespace collage::drivers
