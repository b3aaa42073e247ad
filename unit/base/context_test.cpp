#include "base/context.h"

#include <gtest/gtest.h>

#include <thread>

#include "unit/testing/fake_clock.h"

namespace collage::base {
namespace {

using namespace std::chrono_literals;
using testing::FakeClock;

TEST(Context, DefaultHasNoEnd) {
  const Context context;
  EXPECT_TRUE(context.status().ok());
  EXPECT_EQ(context.deadline(), Clock::Monotonic::max());
  EXPECT_EQ(context.remaining(), std::chrono::nanoseconds::max());
  EXPECT_TRUE(context.fields().empty());
}

TEST(Context, DeadlinesOnlyNarrow) {
  FakeClock clock;
  const Context outer = Context({}, clock).with_timeout(10s);
  EXPECT_EQ(outer.with_timeout(20s).deadline(), clock.now() + 10s);
  EXPECT_EQ(outer.with_timeout(5s).deadline(), clock.now() + 5s);
  EXPECT_EQ(outer.with_deadline(clock.now() + 1s).remaining(), 1s);
  EXPECT_EQ(outer.with_timeout(std::chrono::nanoseconds::max()).deadline(), clock.now() + 10s);
  EXPECT_TRUE(Context({}, clock).with_timeout(std::chrono::nanoseconds::max()).status().ok());
}

TEST(Context, SaysWhyItEnded) {
  FakeClock clock;
  std::stop_source stop;
  const Context context = Context(stop.get_token(), clock).with_timeout(10s);
  EXPECT_TRUE(context.status().ok());
  clock.advance(10s);
  EXPECT_EQ(context.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(context.remaining(), 0s);
  stop.request_stop();
  EXPECT_EQ(context.status().code(), absl::StatusCode::kCancelled);
}

TEST(Context, StopCanBeReplacedWhileTheRestStays) {
  FakeClock clock;
  std::stop_source outer, inner;
  const Context context =
      Context(outer.get_token(), clock).with_timeout(10s).with_field("a", "1").with_stop(inner.get_token());
  outer.request_stop();
  EXPECT_TRUE(context.status().ok());
  EXPECT_EQ(context.remaining(), 10s);
  EXPECT_EQ(context.fields().size(), 1u);
  inner.request_stop();
  EXPECT_TRUE(context.stopped());
}

TEST(Context, FieldsAreAddedInACopy) {
  const Context one = Context().with_field("a", "1");
  const Context two = one.with_field("b", "2");
  ASSERT_EQ(one.fields().size(), 1u);
  ASSERT_EQ(two.fields().size(), 2u);
  EXPECT_EQ(two.fields()[0].key, "a");
  EXPECT_EQ(two.fields()[1].value, "2");
}

TEST(Context, SleepEndsWithTheTimeTheDeadlineOrTheStop) {
  const struct {
    std::chrono::nanoseconds timeout, sleep, pass;
    bool stop;
    absl::StatusCode code;
  } cases[] = {{10s, 5s, 5s, false, absl::StatusCode::kOk},
               {10s, 10s, 10s, false, absl::StatusCode::kOk},
               {10s, 20s, 10s, false, absl::StatusCode::kDeadlineExceeded},
               {10s, 20s, 0s, true, absl::StatusCode::kCancelled},
               {10s, std::chrono::nanoseconds::max(), 10s, false, absl::StatusCode::kDeadlineExceeded}};
  for (const auto& c : cases) {
    FakeClock clock;
    std::stop_source stop;
    const Context context = Context(stop.get_token(), clock).with_timeout(c.timeout);
    absl::Status status;
    std::jthread sleeper([&] { status = context.sleep_for(c.sleep); });
    ASSERT_TRUE(clock.wait_for_sleepers(1));
    if (c.stop) stop.request_stop();
    clock.advance(c.pass);
    sleeper.join();
    EXPECT_EQ(status.code(), c.code);
  }
}

TEST(Context, AGuardEndsItAsSoonAsItSaysSo) {
  absl::Status outer, inner;
  const Context context = Context().with_guard([&] { return outer; }).with_guard([&] { return inner; });
  EXPECT_TRUE(context.status().ok());
  inner = absl::CancelledError("inner");
  EXPECT_EQ(context.with_timeout(1h).status().message(), "inner");
  outer = absl::CancelledError("outer");
  EXPECT_EQ(context.with_field("a", "b").status().message(), "outer");
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(context.with_stop(stop.get_token()).status().message(), "stopped");
}

}  // namespace
}  // namespace collage::base
