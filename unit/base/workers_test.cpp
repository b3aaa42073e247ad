#include "base/workers.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <latch>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace collage::base {
namespace {

TEST(Workers, RunsEverythingInOrderOnOneThread) {
  std::vector<int> order;
  {
    Workers workers("one", 1);
    std::promise<void> last;
    for (int i = 0; i < 100; ++i) {
      EXPECT_TRUE(workers.submit([&, i] {
        order.push_back(i);
        if (i == 99) last.set_value();
      }));
    }
    last.get_future().wait();
  }
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[i], i);
}

TEST(Workers, UsesAllItsThreadsAndNoMore) {
  constexpr int kThreads = 4;
  Workers workers("four", kThreads);
  std::atomic<int> running = 0, most = 0;
  std::latch all_busy(kThreads), done(kThreads * 8);
  for (int i = 0; i < kThreads * 8; ++i) {
    workers.submit([&, i] {
      const int now = ++running;
      for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
      }
      if (i < kThreads) all_busy.arrive_and_wait();  // hangs unless four run at once
      --running;
      done.count_down();
    });
  }
  done.wait();
  EXPECT_EQ(most, kThreads);
}

TEST(Workers, WorkSubmittedByWorkIsDoneByAnIdleThread) {
  Workers workers("two", 2);
  std::promise<void> inner;
  std::promise<void> outer;
  workers.submit([&] {
    workers.submit([&] { inner.set_value(); });
    inner.get_future().wait();
    outer.set_value();
  });
  EXPECT_EQ(outer.get_future().wait_for(std::chrono::seconds(30)), std::future_status::ready);
}

TEST(Workers, StopDropsWhatHasNotBegunAndJoinsWhatHas) {
  auto workers = std::make_unique<Workers>("one", 1);
  std::promise<void> begun, go_on;
  std::atomic<bool> finished = false;
  auto dropped = std::make_shared<int>(1);
  workers->submit([&] {
    begun.set_value();
    go_on.get_future().wait();
    finished = true;
  });
  begun.get_future().wait();
  workers->submit([dropped] { ADD_FAILURE() << "ran after stop"; });
  EXPECT_EQ(workers->queued(), 1u);
  std::jthread stopper([&] { workers->stop(); });
  while (dropped.use_count() > 1) {
    if (workers->submit([] {}))
      std::this_thread::yield();  // until stop has begun
    else
      go_on.set_value(), stopper.join();
  }
  EXPECT_TRUE(finished);
  EXPECT_FALSE(workers->submit([] { ADD_FAILURE(); }));
  EXPECT_EQ(workers->queued(), 0u);
}

TEST(Workers, StopsTwice) {
  Workers workers("none", 3);
  workers.stop();
  workers.stop();
}

TEST(Workers, ReleasesWhatWorkCaptured) {
  Workers workers("one", 1);
  auto captured = std::make_shared<int>(1);
  std::weak_ptr<int> watch = captured;
  std::promise<void> after;
  workers.submit([captured = std::move(captured)] {});
  workers.submit([&] {
    EXPECT_TRUE(watch.expired());
    after.set_value();
  });
  after.get_future().wait();
}

}  // namespace
}  // namespace collage::base
