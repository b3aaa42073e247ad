#include "base/context.h"

#include <algorithm>
#include <utility>

namespace collage::base {

Context::Context(std::stop_token stop, const Clock& clock) : stop_(std::move(stop)), clock_(&clock) {}

Context Context::with_field(std::string_view key, std::string_view value) const {
  auto fields = fields_ ? *fields_ : std::vector<Field>();
  fields.push_back({std::string(key), std::string(value)});
  Context narrowed = *this;
  narrowed.fields_ = std::make_shared<const std::vector<Field>>(std::move(fields));
  return narrowed;
}

Context Context::with_deadline(Clock::Monotonic deadline) const {
  Context narrowed = *this;
  narrowed.deadline_ = std::min(deadline_, deadline);
  return narrowed;
}

Context Context::with_timeout(std::chrono::nanoseconds timeout) const {
  const Clock::Monotonic now = clock_->now();
  // A timeout of "for ever" must not wrap around into the past.
  if (timeout > Clock::Monotonic::max() - now) return *this;
  return with_deadline(now + timeout);
}

Context Context::with_guard(std::function<absl::Status()> guard) const {
  Context narrowed = *this;
  narrowed.guard_ = std::make_shared<const std::function<absl::Status()>>(
      [before = guard_, guard = std::move(guard)]() -> absl::Status {
        if (before != nullptr) {
          if (absl::Status status = (*before)(); !status.ok()) return status;
        }
        return guard();
      });
  return narrowed;
}

Context Context::with_stop(std::stop_token stop) const {
  Context other = *this;
  other.stop_ = std::move(stop);
  return other;
}

std::chrono::nanoseconds Context::remaining() const {
  if (deadline_ == Clock::Monotonic::max()) return std::chrono::nanoseconds::max();
  return std::max<std::chrono::nanoseconds>(deadline_ - clock_->now(), std::chrono::nanoseconds(0));
}

const std::vector<Field>& Context::fields() const {
  static const auto* const none = new std::vector<Field>;
  return fields_ ? *fields_ : *none;
}

absl::Status Context::status() const {
  if (stopped()) return absl::CancelledError("stopped");
  if (deadline_ != Clock::Monotonic::max() && clock_->now() >= deadline_) {
    return absl::DeadlineExceededError("the deadline has passed");
  }
  return guard_ == nullptr ? absl::OkStatus() : (*guard_)();
}

absl::Status Context::sleep_for(std::chrono::nanoseconds duration) const {
  const Clock::Monotonic now = clock_->now();
  const Clock::Monotonic until =
      duration > Clock::Monotonic::max() - now ? Clock::Monotonic::max() : now + duration;
  if (!clock_->sleep_until(stop_, std::min(until, deadline_))) return status();
  if (until <= deadline_) return absl::OkStatus();
  return status();
}

}  // namespace collage::base
