#pragma once

#include <chrono>
#include <functional>

#include "absl/status/status.h"
#include "base/context.h"

namespace collage::base {

// Exponential back-off: initial, doubled up to max, each delay drawn from [delay/2, delay] so that a crowd
// spreads out. Not thread safe; one a loop.
class Backoff {
 public:
  Backoff(std::chrono::milliseconds initial, std::chrono::milliseconds max) : initial_(initial), max_(max) {}
  std::chrono::milliseconds next();
  void reset() { failures_ = 0; }
  int failures() const { return failures_; }
  // The delay before try n (n >= 1 failures), jittered.
  static std::chrono::milliseconds delay(std::chrono::milliseconds initial, std::chrono::milliseconds max,
                                         int failures);

 private:
  std::chrono::milliseconds initial_;
  std::chrono::milliseconds max_;
  int failures_ = 0;
};

// Calls `step` until it is OK, `retryable` says no, or the context ends; answers the last status.
absl::Status retry(const Context& context, Backoff backoff,
                   const std::function<bool(const absl::Status&)>& retryable,
                   const std::function<absl::Status()>& step);

}  // namespace collage::base
