#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"

namespace collage::base {

struct Field {
  std::string key;
  std::string value;
};

// What every blocking call takes first: when to give up (stop token, deadline) and who is asking (log
// fields). A value, cheap to copy; derived contexts only ever narrow: an earlier deadline, one more field.
// Thread safe as any const value is.
class Context {
 public:
  // No deadline, never stopped, the real clock.
  Context() = default;
  explicit Context(std::stop_token stop, const Clock& clock = Clock::real());

  Context with_field(std::string_view key, std::string_view value) const;
  Context with_deadline(Clock::Monotonic deadline) const;  // the earlier of the two wins
  Context with_timeout(std::chrono::nanoseconds timeout) const;
  // Ends as soon as `guard` is not OK, with its status: asked whenever status() is, so before each step of
  // work that must not begin any more. A sleep or a wait under way is not woken by it. Thread safe, quick.
  Context with_guard(std::function<absl::Status()> guard) const;
  // Same fields and deadline, stopped by `stop` instead.
  Context with_stop(std::stop_token stop) const;

  const std::stop_token& stop() const { return stop_; }
  bool stopped() const { return stop_.stop_requested(); }
  Clock::Monotonic deadline() const { return deadline_; }  // time_point::max() when none
  std::chrono::nanoseconds remaining() const;              // never negative
  const Clock& clock() const { return *clock_; }
  const std::vector<Field>& fields() const;

  // OK, CANCELLED once stop was requested, DEADLINE_EXCEEDED, or what a guard says.
  absl::Status status() const;
  // Sleeps; OK when the whole time passed, else the reason as in status().
  absl::Status sleep_for(std::chrono::nanoseconds duration) const;

 private:
  std::stop_token stop_;
  Clock::Monotonic deadline_ = Clock::Monotonic::max();
  const Clock* clock_ = &Clock::real();
  std::shared_ptr<const std::vector<Field>> fields_;
  std::shared_ptr<const std::function<absl::Status()>> guard_;
};

}  // namespace collage::base
