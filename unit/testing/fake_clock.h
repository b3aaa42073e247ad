#pragma once

#include <condition_variable>
#include <mutex>

#include "base/clock.h"

namespace collage::testing {

// Time that passes only when a test says so. Sleepers wake when their time comes. Thread safe.
class FakeClock : public base::Clock {
 public:
  // Starts at 2026-01-01T00:00:00Z on the wall.
  FakeClock();

  Monotonic now() const override;
  std::chrono::nanoseconds boot_time() const override;
  Wall wall() const override;
  bool sleep_until(std::stop_token stop, Monotonic until) const override;

  // All three clocks go on.
  void advance(std::chrono::nanoseconds duration);
  // The machine was suspended, or the process stopped: boot time and the wall went on, the monotonic clock
  // did not.
  void suspend(std::chrono::nanoseconds duration);
  // Somebody set the date.
  void set_wall(Wall wall);

  // How many threads sleep now, and waiting (in real time, at most 10 s) until at least `count` do: what a
  // test needs to know before it advances the time. False when they did not come.
  int sleepers() const;
  bool wait_for_sleepers(int count) const;

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable_any changed_;
  mutable int sleepers_ = 0;
  Monotonic now_;
  std::chrono::nanoseconds boot_time_;
  Wall wall_;
};

}  // namespace collage::testing
