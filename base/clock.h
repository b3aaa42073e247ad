#pragma once

#include <chrono>
#include <cstdint>
#include <stop_token>
#include <string>

namespace collage::base {

// Time as the program sees it; injected wherever a decision depends on it. Thread safe.
class Clock {
 public:
  using Monotonic = std::chrono::steady_clock::time_point;
  using Wall = std::chrono::system_clock::time_point;

  virtual ~Clock() = default;
  // Never goes back; stands still while the machine is suspended. For deadlines and back-off.
  virtual Monotonic now() const = 0;
  // Never goes back and goes on while the process is stopped or the machine suspended (CLOCK_BOOTTIME). For
  // leases.
  virtual std::chrono::nanoseconds boot_time() const = 0;
  // The date, for timestamps that others read. May jump.
  virtual Wall wall() const = 0;
  // Sleeps until `until`, or until stop is requested. True if the time came, false if stopped.
  virtual bool sleep_until(std::stop_token stop, Monotonic until) const = 0;

  static const Clock& real();
};

// RFC 3339 in UTC: "2026-11-22T16:56:38Z" (seconds), or with six decimals (Kubernetes' MicroTime).
std::string rfc3339(Clock::Wall time);
std::string rfc3339_micro(Clock::Wall time);
// 0 on a string that is not RFC 3339, and on a date before 1678 or after 2261, which a Wall cannot hold.
Clock::Wall parse_rfc3339(const std::string& text);

}  // namespace collage::base
