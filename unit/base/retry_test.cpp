#include "base/retry.h"

#include <gtest/gtest.h>

#include <thread>

#include "unit/testing/fake_clock.h"

namespace collage::base {
namespace {

using namespace std::chrono_literals;
using testing::FakeClock;

TEST(Backoff, DoublesUpToItsLimitWithJitter) {
  const std::chrono::milliseconds longest[] = {100ms, 200ms, 400ms, 800ms, 1000ms, 1000ms};
  for (int repeat = 0; repeat < 50; ++repeat) {
    Backoff backoff(100ms, 1000ms);
    for (const auto limit : longest) {
      const auto delay = backoff.next();
      EXPECT_GE(delay, limit / 2);
      EXPECT_LE(delay, limit);
    }
    EXPECT_EQ(backoff.failures(), 6);
    backoff.reset();
    EXPECT_LE(backoff.next(), 100ms);
  }
}

TEST(Backoff, SpreadsACrowd) {
  std::chrono::milliseconds least = 1h, most = 0ms;
  for (int i = 0; i < 200; ++i) {
    const auto delay = Backoff::delay(1000ms, 1000ms, 1);
    least = std::min(least, delay);
    most = std::max(most, delay);
  }
  EXPECT_LT(least, 600ms);
  EXPECT_GT(most, 900ms);
}

TEST(Backoff, NeverOverflows) {
  EXPECT_LE(Backoff::delay(1ms, 24h, 1'000'000), 24h);
  EXPECT_GE(Backoff::delay(1ms, 24h, 1'000'000), 12h);
  EXPECT_LE(Backoff::delay(10s, 1s, 1), 1s);
}

bool unavailable(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable;
}

// Lets the time of a loop that sleeps pass until `done`.
template <typename Done>
void drive(FakeClock& clock, const Done& done) {
  while (!done()) {
    if (clock.sleepers() > 0) clock.advance(1s);
    std::this_thread::yield();
  }
}

TEST(Retry, GoesOnUntilItWorks) {
  FakeClock clock;
  int calls = 0;
  std::atomic<bool> done = false;
  absl::Status status = absl::UnknownError("");
  std::jthread loop([&] {
    status = retry(Context({}, clock), Backoff(1s, 4s), unavailable,
                   [&] { return ++calls < 5 ? absl::UnavailableError("not yet") : absl::OkStatus(); });
    done = true;
  });
  drive(clock, [&] { return done.load(); });
  loop.join();
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(calls, 5);
}

TEST(Retry, StopsAtWhatIsFinal) {
  int calls = 0;
  const absl::Status status = retry(Context(), Backoff(1h, 1h), unavailable, [&] {
    ++calls;
    return absl::NotFoundError("gone");
  });
  EXPECT_EQ(status, absl::NotFoundError("gone"));
  EXPECT_EQ(calls, 1);
}

TEST(Retry, AnswersTheLastStatusWhenTheContextEnds) {
  FakeClock clock;
  std::stop_source stop;
  absl::Status status;
  std::jthread loop([&] {
    status = retry(Context(stop.get_token(), clock), Backoff(1h, 1h), unavailable,
                   [] { return absl::UnavailableError("the reason"); });
  });
  ASSERT_TRUE(clock.wait_for_sleepers(1));
  stop.request_stop();
  loop.join();
  EXPECT_EQ(status, absl::UnavailableError("the reason"));
}

}  // namespace
}  // namespace collage::base
