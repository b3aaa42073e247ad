#include "unit/testing/fake_clock.h"

namespace collage::testing {

using namespace std::chrono_literals;

FakeClock::FakeClock() : now_(1000s), boot_time_(1000s), wall_(base::parse_rfc3339("2026-01-01T00:00:00Z")) {}

base::Clock::Monotonic FakeClock::now() const {
  std::lock_guard lock(mutex_);
  return now_;
}

std::chrono::nanoseconds FakeClock::boot_time() const {
  std::lock_guard lock(mutex_);
  return boot_time_;
}

base::Clock::Wall FakeClock::wall() const {
  std::lock_guard lock(mutex_);
  return wall_;
}

bool FakeClock::sleep_until(std::stop_token stop, Monotonic until) const {
  std::unique_lock lock(mutex_);
  ++sleepers_;
  changed_.notify_all();
  changed_.wait(lock, stop, [&] { return now_ >= until; });
  --sleepers_;
  return !stop.stop_requested();
}

void FakeClock::advance(std::chrono::nanoseconds duration) {
  std::lock_guard lock(mutex_);
  now_ += duration;
  boot_time_ += duration;
  wall_ += std::chrono::duration_cast<Wall::duration>(duration);
  changed_.notify_all();
}

void FakeClock::suspend(std::chrono::nanoseconds duration) {
  std::lock_guard lock(mutex_);
  boot_time_ += duration;
  wall_ += std::chrono::duration_cast<Wall::duration>(duration);
}

void FakeClock::set_wall(Wall wall) {
  std::lock_guard lock(mutex_);
  wall_ = wall;
}

int FakeClock::sleepers() const {
  std::lock_guard lock(mutex_);
  return sleepers_;
}

bool FakeClock::wait_for_sleepers(int count) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, 10s, [&] { return sleepers_ >= count; });
}

}  // namespace collage::testing
