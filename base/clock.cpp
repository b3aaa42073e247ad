#include "base/clock.h"

#include <ctime>

#include <condition_variable>
#include <cstdio>
#include <mutex>

#include "absl/strings/numbers.h"

namespace collage::base {
namespace {

class RealClock : public Clock {
 public:
  Monotonic now() const override { return std::chrono::steady_clock::now(); }

  std::chrono::nanoseconds boot_time() const override {
    timespec time{};
    clock_gettime(CLOCK_BOOTTIME, &time);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
  }

  Wall wall() const override { return std::chrono::system_clock::now(); }

  bool sleep_until(std::stop_token stop, Monotonic until) const override {
    std::mutex mutex;
    std::condition_variable_any wake;
    std::unique_lock lock(mutex);
    wake.wait_until(lock, stop, until, [] { return false; });
    return !stop.stop_requested();
  }
};

// Seconds since 1970 and the calendar's fields.
std::tm fields_of(Clock::Wall time, std::chrono::microseconds* fraction) {
  const auto since = std::chrono::floor<std::chrono::microseconds>(time.time_since_epoch());
  const auto whole = std::chrono::floor<std::chrono::seconds>(since);
  *fraction = since - whole;
  const time_t seconds = whole.count();
  std::tm fields{};
  gmtime_r(&seconds, &fields);
  return fields;
}

std::string format(const std::tm& t, const char* fraction) {
  char buffer[80];
  snprintf(buffer, sizeof buffer, "%04d-%02d-%02dT%02d:%02d:%02d%sZ", t.tm_year + 1900, t.tm_mon + 1,
           t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec, fraction);
  return buffer;
}

// The whole years that Clock::Wall can hold, in whatever time zone.
constexpr int kFirstYear = 1678, kLastYear = 2261;

// `count` decimal digits at `at`, or -1.
int digits(const std::string& text, size_t at, size_t count) {
  if (at + count > text.size()) return -1;
  int value = 0;
  for (size_t i = at; i < at + count; ++i) {
    if (text[i] < '0' || text[i] > '9') return -1;
    value = value * 10 + (text[i] - '0');
  }
  return value;
}

// What follows the seconds: an optional fraction. Moves `at` behind it; false when there is a dot without a
// digit.
bool parse_fraction(const std::string& text, size_t* at, std::chrono::nanoseconds* fraction) {
  *fraction = {};
  if (*at >= text.size() || text[*at] != '.') return true;
  int64_t unit = 100'000'000;
  size_t i = *at + 1;
  for (; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i, unit /= 10) {
    *fraction += std::chrono::nanoseconds((text[i] - '0') * unit);
  }
  if (i == *at + 1) return false;
  *at = i;
  return true;
}

// "Z" or "+hh:mm" from `at` to the end.
bool parse_zone(const std::string& text, size_t at, std::chrono::minutes* offset) {
  *offset = {};
  if (at + 1 == text.size() && (text[at] == 'Z' || text[at] == 'z')) return true;
  if (at + 6 != text.size() || (text[at] != '+' && text[at] != '-') || text[at + 3] != ':') return false;
  const int hours = digits(text, at + 1, 2);
  const int minutes = digits(text, at + 4, 2);
  if (hours < 0 || hours > 23 || minutes < 0 || minutes > 59) return false;
  *offset = std::chrono::minutes(hours * 60 + minutes) * (text[at] == '-' ? -1 : 1);
  return true;
}

}  // namespace

const Clock& Clock::real() {
  static const RealClock* const clock = new RealClock;
  return *clock;
}

std::string rfc3339(Clock::Wall time) {
  std::chrono::microseconds fraction;
  return format(fields_of(time, &fraction), "");
}

std::string rfc3339_micro(Clock::Wall time) {
  std::chrono::microseconds fraction;
  const std::tm fields = fields_of(time, &fraction);
  char text[16];
  snprintf(text, sizeof text, ".%06d", static_cast<int>(fraction.count()));
  return format(fields, text);
}

Clock::Wall parse_rfc3339(const std::string& text) {
  using namespace std::chrono;
  if (text.size() < 20 || text[4] != '-' || text[7] != '-' || (text[10] != 'T' && text[10] != 't') ||
      text[13] != ':' || text[16] != ':') {
    return {};
  }
  const int hour = digits(text, 11, 2), minute = digits(text, 14, 2), second = digits(text, 17, 2);
  const int year_number = digits(text, 0, 4), month_number = digits(text, 5, 2),
            day_number = digits(text, 8, 2);
  if (year_number < 0 || month_number < 0 || day_number < 0) return {};
  // Wall counts nanoseconds in 64 bits: beyond these years they overflow.
  if (year_number < kFirstYear || year_number > kLastYear) return {};
  const year_month_day date{year(year_number), month(month_number), day(day_number)};
  if (!date.ok() || hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60)
    return {};
  size_t at = 19;
  nanoseconds fraction;
  minutes offset;
  if (!parse_fraction(text, &at, &fraction) || !parse_zone(text, at, &offset)) return {};
  return time_point_cast<Clock::Wall::duration>(sys_days(date) + hours(hour) + minutes(minute) +
                                                seconds(second) + fraction - offset);
}

}  // namespace collage::base
