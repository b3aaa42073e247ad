#include "operator/kube/queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "base/random.h"
#include "unit/testing/fake_clock.h"

namespace collage::kube {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::FakeClock;

TEST(WorkQueue, AKeyThatWaitsIsThereOnce) {
  FakeClock clock;
  WorkQueue queue("test", clock);
  queue.add("a");
  queue.add("a");
  queue.add("b");
  EXPECT_EQ(queue.depth(), 2u);
  EXPECT_EQ(queue.get(), "a");
  EXPECT_EQ(queue.get(), "b");
  queue.done("a");
  queue.done("b");
  EXPECT_EQ(queue.depth(), 0u);
}

TEST(WorkQueue, KeysComeInTheOrderOfTheirTimes) {
  FakeClock clock;
  WorkQueue queue("test", clock);
  queue.add_after("late", seconds(20));
  queue.add_after("soon", seconds(10));
  queue.add("now");
  clock.advance(seconds(30));
  EXPECT_EQ(queue.get(), "now");
  EXPECT_EQ(queue.get(), "soon");
  EXPECT_EQ(queue.get(), "late");
}

TEST(WorkQueue, EarlierTimeWins) {
  FakeClock clock;
  WorkQueue queue("test", clock);
  queue.add_after("a", seconds(60));
  queue.add_after("a", seconds(10));
  queue.add_after("a", seconds(90));
  EXPECT_EQ(queue.depth(), 1u);
  clock.advance(seconds(10));
  EXPECT_EQ(queue.get(), "a");  // would hang if the time were another
  queue.done("a");
  EXPECT_EQ(queue.depth(), 0u);
}

TEST(WorkQueue, AnEarlierKeyWakesTheSleeper) {
  FakeClock clock;
  WorkQueue queue("test", clock);
  queue.add_after("later", seconds(60));
  std::optional<std::string> got;
  std::jthread worker([&] { got = queue.get(); });
  ASSERT_TRUE(clock.wait_for_sleepers(1));
  queue.add("now");
  worker.join();
  EXPECT_EQ(got, "now");
}

TEST(WorkQueue, ASleeperWakesWhenTheTimeComes) {
  FakeClock clock;
  WorkQueue queue("test", clock);
  queue.add_after("a", seconds(60));
  std::optional<std::string> got;
  std::jthread worker([&] { got = queue.get(); });
  ASSERT_TRUE(clock.wait_for_sleepers(1));
  clock.advance(seconds(60));
  worker.join();
  EXPECT_EQ(got, "a");
}

TEST(WorkQueue, AKeyInWorkIsNotHandedOutAgainUntilDone) {
  FakeClock clock;
  WorkQueue queue("test", clock);
  queue.add("a");
  ASSERT_EQ(queue.get(), "a");
  queue.add("a");  // the object changed meanwhile
  queue.add("b");
  EXPECT_EQ(queue.get(), "b");
  EXPECT_EQ(queue.depth(), 0u);
  queue.done("a");
  EXPECT_EQ(queue.depth(), 1u);
  EXPECT_EQ(queue.get(), "a");
}

TEST(WorkQueue, AChangeDuringAFailedTryComesAtOnce) {
  FakeClock clock;
  WorkQueue queue("test", clock);
  queue.add("a");
  ASSERT_EQ(queue.get(), "a");
  queue.add("a");
  queue.add_failed("a");
  queue.done("a");
  EXPECT_EQ(queue.get(), "a");  // at once, not after the back-off
}

TEST(WorkQueue, BackoffGrowsUpToItsLimitAndIsForgotten) {
  FakeClock clock;
  WorkQueue queue("test", clock, seconds(1), seconds(8));
  const std::vector<milliseconds> longest{seconds(1), seconds(2), seconds(4), seconds(8), seconds(8)};
  queue.add("a");
  for (const milliseconds limit : longest) {
    ASSERT_EQ(queue.get(), "a");
    queue.add_failed("a");
    queue.done("a");
    std::optional<std::string> got;
    std::jthread worker([&] { got = queue.get(); });
    ASSERT_TRUE(clock.wait_for_sleepers(1));
    clock.advance(limit / 2 - milliseconds(1));  // never before half of it
    EXPECT_EQ(clock.sleepers(), 1);
    clock.advance(limit / 2 + milliseconds(2));
    worker.join();
    ASSERT_EQ(got, "a");
    queue.done("a");
    queue.add("a");
  }
  EXPECT_EQ(queue.failures("a"), 5);
  queue.forget_failures("a");
  EXPECT_EQ(queue.failures("a"), 0);
}

TEST(WorkQueue, StopEndsEveryWaiter) {
  FakeClock clock;
  WorkQueue queue("test", clock);
  queue.add_after("later", seconds(3600));
  std::atomic<int> ended = 0;
  std::vector<std::jthread> waiters;
  for (int i = 0; i < 4; ++i) {
    waiters.emplace_back([&] {
      EXPECT_EQ(queue.get(), std::nullopt);
      ++ended;
    });
  }
  ASSERT_TRUE(clock.wait_for_sleepers(1));
  queue.stop();
  waiters.clear();
  EXPECT_EQ(ended, 4);
  queue.add("a");
  EXPECT_EQ(queue.get(), std::nullopt);
}

// Many threads add, fail and finish keys at random: no key is ever worked on by two, and whatever was added
// last is seen.
TEST(WorkQueue, NeverTwiceAtOnceAndNothingIsLost) {
  WorkQueue queue("test", base::Clock::real(), milliseconds(1), milliseconds(4));
  constexpr int kKeys = 20;
  std::mutex mutex;
  std::set<std::string> in_work;
  std::map<std::string, int> wanted, seen;
  std::atomic<int> overlaps = 0;
  auto work = [&] {
    while (const auto key = queue.get()) {
      int target;
      {
        std::lock_guard lock(mutex);
        if (!in_work.insert(*key).second) ++overlaps;
        target = wanted[*key];
      }
      if (base::random_unit() < 0.3) std::this_thread::yield();
      const bool fails = base::random_unit() < 0.2;
      {
        std::lock_guard lock(mutex);
        in_work.erase(*key);
        if (!fails) seen[*key] = std::max(seen[*key], target);
      }
      fails ? queue.add_failed(*key) : queue.forget_failures(*key);
      queue.done(*key);
    }
  };
  std::vector<std::jthread> workers;
  for (int i = 0; i < 8; ++i) workers.emplace_back(work);
  std::vector<std::jthread> adders;
  for (int a = 0; a < 3; ++a) {
    adders.emplace_back([&] {
      for (int i = 0; i < 3000; ++i) {
        const std::string key = "key-" + std::to_string(base::random_uint64() % kKeys);
        {
          std::lock_guard lock(mutex);
          ++wanted[key];
        }
        base::random_unit() < 0.2 ? queue.add_after(key, milliseconds(2)) : queue.add(key);
      }
    });
  }
  adders.clear();
  const auto end = std::chrono::steady_clock::now() + seconds(10);
  bool all_seen = false;
  while (!all_seen && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(milliseconds(1));
    std::lock_guard lock(mutex);
    all_seen = seen == wanted;
  }
  EXPECT_TRUE(all_seen);
  EXPECT_EQ(overlaps, 0);
  queue.stop();
}

}  // namespace
}  // namespace collage::kube
