#include "base/retry.h"

#include <algorithm>

#include "base/random.h"

namespace collage::base {

std::chrono::milliseconds Backoff::delay(std::chrono::milliseconds initial, std::chrono::milliseconds max,
                                         int failures) {
  auto delay = std::min(initial, max);
  for (int i = 1; i < failures && delay < max; ++i) delay = std::min(2 * delay, max);
  const auto half = delay / 2;
  return half + std::chrono::milliseconds(
                    static_cast<int64_t>(random_unit() * static_cast<double>((delay - half).count() + 1)));
}

std::chrono::milliseconds Backoff::next() {
  // Beyond this count the delay is the longest for any sensible pair.
  failures_ = std::min(failures_ + 1, 1000);
  return delay(initial_, max_, failures_);
}

absl::Status retry(const Context& context, Backoff backoff,
                   const std::function<bool(const absl::Status&)>& retryable,
                   const std::function<absl::Status()>& step) {
  while (true) {
    absl::Status status = step();
    if (status.ok() || !retryable(status)) return status;
    if (!context.sleep_for(backoff.next()).ok()) return status;
  }
}

}  // namespace collage::base
