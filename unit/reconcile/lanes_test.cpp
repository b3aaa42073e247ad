#include "operator/reconcile/lanes.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <latch>
#include <mutex>
#include <set>

#include "operator/reconcile/volume_locks.h"

namespace collage::reconcile {
namespace {

// A key is "<lane>/<rest>".
std::string lane_of(const std::string& key) {
  return key.substr(0, key.find('/'));
}

// Waits, in real time, for what other threads do.
class Seen {
 public:
  void add(const std::string& key) {
    std::lock_guard lock(mutex_);
    ++count_[key];
    changed_.notify_all();
  }
  bool wait(const std::string& key, int count = 1) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return count_[key] >= count; });
  }
  int count(const std::string& key) {
    std::lock_guard lock(mutex_);
    return count_[key];
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, int> count_;
};

TEST(Lanes, ALaneThatHangsHoldsUpNoOther) {
  Seen seen;
  std::latch release(1);
  LanedController lanes("test", 2, lane_of,
                        [&](const base::Context&, const std::string& key) -> kube::Outcome {
                          if (lane_of(key) == "slow") release.wait();
                          seen.add(key);
                          return kube::Done{};
                        });
  lanes.start({});
  for (int i = 0; i < 5; ++i) lanes.enqueue("slow/" + std::to_string(i));
  lanes.enqueue("fast/1");
  EXPECT_TRUE(seen.wait("fast/1"));
  EXPECT_EQ(seen.count("slow/0"), 0);
  release.count_down();
  EXPECT_TRUE(seen.wait("slow/4"));
}

TEST(Lanes, KeysFromBeforeTheStartAreNotLost) {
  Seen seen;
  LanedController lanes("test", 1, lane_of,
                        [&](const base::Context&, const std::string& key) -> kube::Outcome {
                          seen.add(key);
                          return kube::Done{};
                        });
  lanes.enqueue("a/1");
  EXPECT_EQ(lanes.depth(), 1u);
  lanes.start({});
  EXPECT_TRUE(seen.wait("a/1"));
}

TEST(Lanes, AKeyThatChangesItsLaneNeverRunsTwiceAtOnce) {
  std::atomic<bool> moved = false;
  std::atomic<int> running = 0, most = 0;
  std::latch in_work(1), release(1);
  Seen seen;
  LanedController lanes(
      "test", 2, [&](const std::string&) { return moved ? std::string("new") : std::string("old"); },
      [&](const base::Context&, const std::string& key) -> kube::Outcome {
        if (key == "other") {
          seen.add(key);
          return kube::Done{};
        }
        most = std::max<int>(most, ++running);
        if (!moved) {
          in_work.count_down();
          release.wait();
        }
        --running;
        seen.add(key);
        return kube::Done{};
      });
  lanes.start({});
  lanes.enqueue("key");
  in_work.wait();
  moved = true;
  lanes.enqueue("key");  // now in the new lane, while the old one still works on it
  lanes.enqueue("other");
  ASSERT_TRUE(seen.wait("other"));  // the new lane has come by the key
  release.count_down();
  EXPECT_TRUE(seen.wait("key", 2));
  EXPECT_EQ(most, 1);
}

TEST(Lanes, AKeyIsPassedOnToTheLaneItBelongsToNow) {
  std::atomic<bool> moved = false;
  Seen seen;
  LanedController lanes(
      "test", 1, [&](const std::string&) { return moved ? std::string("new") : std::string(); },
      [&](const base::Context&, const std::string& key) -> kube::Outcome {
        seen.add(key);
        return kube::Done{};
      });
  lanes.enqueue("key");
  moved = true;
  lanes.start({});
  EXPECT_TRUE(seen.wait("key"));
}

TEST(Lanes, StopWaitsForWhatIsUnderWayAndTakesNothingMore) {
  std::atomic<bool> finished = false;
  std::latch in_work(1);
  std::stop_source stop;
  LanedController lanes("test", 1, lane_of,
                        [&](const base::Context& context, const std::string&) -> kube::Outcome {
                          in_work.count_down();
                          while (!context.stopped()) std::this_thread::yield();
                          finished = true;
                          return kube::Done{};
                        });
  lanes.start(base::Context(stop.get_token()));
  lanes.enqueue("a/1");
  in_work.wait();
  stop.request_stop();
  lanes.stop();
  EXPECT_TRUE(finished);
  lanes.enqueue("a/2");
  EXPECT_EQ(lanes.depth(), 0u);
}

TEST(VolumeLocks, OneHoldsAVolumeAtATime) {
  VolumeLocks locks;
  {
    const VolumeLocks::Hold first = locks.try_hold("fast/1");
    EXPECT_TRUE(first);
    EXPECT_FALSE(locks.try_hold("fast/1"));
    EXPECT_TRUE(locks.try_hold("fast/2"));
  }
  EXPECT_TRUE(locks.try_hold("fast/1"));
}

}  // namespace
}  // namespace collage::reconcile
