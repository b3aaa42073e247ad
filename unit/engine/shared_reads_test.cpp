#include "operator/engine/shared_reads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "unit/testing/fake_clock.h"

namespace collage::engine {
namespace {

constexpr std::chrono::milliseconds kSpacing{80};
constexpr int kCrowd = 8;
constexpr std::chrono::milliseconds kLone = kSpacing / kCrowd;

class SharedReadsTest : public ::testing::Test {
 protected:
  using Reads = SharedReads<int>;

  // Answers the number of the read; each waits at the gate while that is closed.
  Reads::Answer read(const base::Context&, const std::string& key) {
    const int number = ++begun_;
    if (key == "gated") {
      inside_.count_down();
      gate_.wait();
    }
    return std::make_shared<const int>(number);
  }

  testing::FakeClock clock_;
  const base::Context context_{std::stop_token(), clock_};
  std::atomic<int> begun_ = 0;
  std::latch inside_{1}, gate_{1};
  Reads reads_{kSpacing, kCrowd,
               [this](const base::Context& context, const std::string& key) { return read(context, key); }};
};

TEST_F(SharedReadsTest, TheFirstReadStartsAtOnce) {
  const auto answer = reads_.get(context_, "node-a");
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(**answer, 1);
}

TEST_F(SharedReadsTest, AnAnswerIsNeverOlderThanTheQuestion) {
  std::jthread first([&] { EXPECT_EQ(**reads_.get(context_, "gated"), 1); });
  inside_.wait();
  // Asked while the first read is under way: that one may have looked before.
  std::jthread second([&] { EXPECT_EQ(**reads_.get(context_, "gated"), 2); });
  gate_.count_down();
  ASSERT_TRUE(clock_.wait_for_sleepers(1));
  EXPECT_EQ(begun_, 1) << "the second waits for a short pause";
  clock_.advance(kLone);
}

TEST_F(SharedReadsTest, ACrowdSharesOneRead) {
  ASSERT_TRUE(reads_.get(context_, "node-a").ok());
  std::vector<std::jthread> crowd;
  for (int i = 0; i < kCrowd; ++i) {
    crowd.emplace_back([&] { EXPECT_EQ(**reads_.get(context_, "node-a"), 2); });
  }
  while (reads_.callers("node-a") < kCrowd) std::this_thread::yield();
  ASSERT_TRUE(clock_.wait_for_sleepers(1));
  clock_.advance(kLone);
  crowd.clear();
  EXPECT_EQ(begun_, 2);

  // More may come: the next of them share as well.
  std::jthread next([&] { EXPECT_EQ(**reads_.get(context_, "node-a"), 3); });
  ASSERT_TRUE(clock_.wait_for_sleepers(1));
  clock_.advance(kSpacing - std::chrono::milliseconds(1));
  ASSERT_TRUE(clock_.wait_for_sleepers(1));
  EXPECT_EQ(begun_, 2) << "after a crowd the whole pause";
  clock_.advance(std::chrono::milliseconds(1));
}

TEST_F(SharedReadsTest, KeysDoNotWaitForEachOther) {
  std::jthread first([&] { EXPECT_TRUE(reads_.get(context_, "gated").ok()); });
  inside_.wait();
  EXPECT_EQ(**reads_.get(context_, "node-b"), 2);
  gate_.count_down();
}

TEST_F(SharedReadsTest, ACallerThatIsStoppedTakesNobodyWithIt) {
  ASSERT_TRUE(reads_.get(context_, "node-a").ok());
  std::stop_source stop;
  const base::Context stopped(stop.get_token(), clock_);
  std::jthread first([&] { EXPECT_TRUE(absl::IsCancelled(reads_.get(stopped, "node-a").status())); });
  ASSERT_TRUE(clock_.wait_for_sleepers(1));
  std::jthread second([&] { EXPECT_EQ(**reads_.get(context_, "node-a"), 2); });
  stop.request_stop();
  first.join();
  ASSERT_TRUE(clock_.wait_for_sleepers(1));
  clock_.advance(kLone);
}

}  // namespace
}  // namespace collage::engine
