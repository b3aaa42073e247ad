#include "base/clock.h"

#include <gtest/gtest.h>

#include <thread>

#include "unit/testing/fake_clock.h"

namespace collage::base {
namespace {

using namespace std::chrono_literals;
using testing::FakeClock;

TEST(Rfc3339, PrintsAndParses) {
  const Clock::Wall time = parse_rfc3339("2026-11-22T16:56:38.123456Z");
  EXPECT_EQ(rfc3339(time), "2026-11-22T16:56:38Z");
  EXPECT_EQ(rfc3339_micro(time), "2026-11-22T16:56:38.123456Z");
  EXPECT_EQ(rfc3339(Clock::Wall()), "1970-01-01T00:00:00Z");
  EXPECT_EQ(rfc3339_micro(Clock::Wall()), "1970-01-01T00:00:00.000000Z");
  EXPECT_EQ(rfc3339(Clock::Wall() - 1ms), "1969-12-31T23:59:59Z");
  EXPECT_EQ(time.time_since_epoch(), 1795366598123456us);
}

TEST(Rfc3339, ReadsZonesAndFractions) {
  const Clock::Wall noon = parse_rfc3339("2026-01-01T12:00:00Z");
  EXPECT_EQ(parse_rfc3339("2026-01-01T14:00:00+02:00"), noon);
  EXPECT_EQ(parse_rfc3339("2026-01-01T06:30:00-05:30"), noon);
  EXPECT_EQ(parse_rfc3339("2026-01-01t12:00:00z"), noon);
  EXPECT_EQ(parse_rfc3339("2026-01-01T12:00:00.5Z"), noon + 500ms);
  EXPECT_EQ(parse_rfc3339("2026-01-01T12:00:00.000000001Z") - noon, 1ns);
  EXPECT_EQ(parse_rfc3339("2024-02-29T00:00:00Z"), parse_rfc3339("2024-02-28T00:00:00Z") + 24h);
  // The first and the last whole year that a Wall can hold.
  EXPECT_EQ(rfc3339(parse_rfc3339("1678-01-01T00:00:00Z")), "1678-01-01T00:00:00Z");
  EXPECT_EQ(rfc3339(parse_rfc3339("2261-12-31T23:59:59-23:59")), "2262-01-01T23:58:59Z");
}

TEST(Rfc3339, AnswersZeroForAnythingElse) {
  for (const char* text :
       {"", "now", "2026-01-01", "2026-01-01T12:00:00", "2026-01-01 12:00:00Z", "2026-13-01T12:00:00Z",
        "2026-02-29T12:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T12:60:00Z", "2026-01-01T12:00:00.Z",
        "2026-01-01T12:00:00ZZ", "2026-01-01T12:00:00+2:00", "2026-01-01T12:00:00+24:00",
        "+026-01-01T12:00:00Z", "2026-01-01T12:00:00Z ", "4052-01-01T00:00:00Z", "2262-01-01T00:00:00Z",
        "1677-12-31T23:59:59Z", "0001-01-01T00:00:00Z"}) {
    EXPECT_EQ(parse_rfc3339(text), Clock::Wall()) << text;
  }
}

TEST(RealClock, GoesOn) {
  const Clock& clock = Clock::real();
  const auto now = clock.now();
  const auto boot = clock.boot_time();
  EXPECT_TRUE(clock.sleep_until({}, now + 5ms));
  EXPECT_GE(clock.now() - now, 5ms);
  EXPECT_GE(clock.boot_time() - boot, 5ms);
  EXPECT_GT(clock.wall(), parse_rfc3339("2026-01-01T00:00:00Z"));
}

TEST(RealClock, WakesWhenStopped) {
  std::stop_source stop;
  std::jthread stopper([&] { stop.request_stop(); });
  EXPECT_FALSE(Clock::real().sleep_until(stop.get_token(), Clock::Monotonic::max()));
}

TEST(FakeClock, WakesSleepersWhenTheirTimeComes) {
  FakeClock clock;
  const auto start = clock.now();
  std::stop_source stop;
  bool early = false, stopped = true;
  std::jthread first([&] { early = clock.sleep_until({}, start + 1s); });
  std::jthread second([&] { stopped = clock.sleep_until(stop.get_token(), start + 10s); });
  ASSERT_TRUE(clock.wait_for_sleepers(2));
  clock.advance(1s);
  first.join();
  EXPECT_TRUE(early);
  EXPECT_EQ(clock.sleepers(), 1);
  stop.request_stop();
  second.join();
  EXPECT_FALSE(stopped);
}

TEST(FakeClock, KnowsSuspensionFromTimeThatPasses) {
  FakeClock clock;
  const auto now = clock.now();
  const auto boot = clock.boot_time();
  const auto wall = clock.wall();
  clock.suspend(60s);
  EXPECT_EQ(clock.now(), now);
  EXPECT_EQ(clock.boot_time(), boot + 60s);
  EXPECT_EQ(clock.wall(), wall + 60s);
}

}  // namespace
}  // namespace collage::base
