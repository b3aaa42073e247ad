#include "operator/reconcile/group_commit.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <utility>

#include "unit/testing/fake_clock.h"

namespace collage::reconcile {
namespace {

constexpr std::chrono::milliseconds kSpacing{800};
constexpr std::chrono::milliseconds kLone = kSpacing / 16;
constexpr std::chrono::milliseconds kIdle{5000};

class GroupCommitTest : public ::testing::Test {
 protected:
  GroupCommitTest() { commit_.start(context_); }

  absl::Status write() {
    std::lock_guard lock(mutex_);
    ++writes_;
    wrote_.notify_all();
    return std::exchange(answer_, absl::OkStatus());
  }
  bool wait_for_writes(int count) {
    std::unique_lock lock(mutex_);
    return wrote_.wait_for(lock, std::chrono::seconds(10), [&] { return writes_ >= count; });
  }
  int writes() {
    std::lock_guard lock(mutex_);
    return writes_;
  }
  // The writer sleeps until its time comes.
  bool sleeps() const { return clock_.wait_for_sleepers(1); }

  testing::FakeClock clock_;
  const base::Context context_{std::stop_token(), clock_};
  std::mutex mutex_;
  std::condition_variable wrote_;
  int writes_ = 0;
  absl::Status answer_;
  GroupCommit commit_{kSpacing, kIdle, [this](const base::Context&) { return write(); }};
};

TEST_F(GroupCommitTest, TheFirstChangeIsWrittenAtOnce) {
  commit_.touch();
  EXPECT_TRUE(wait_for_writes(1));
}

TEST_F(GroupCommitTest, ALoneChangeIsFollowedByAShortPauseOnly) {
  commit_.touch();
  ASSERT_TRUE(wait_for_writes(1));
  commit_.touch();
  ASSERT_TRUE(sleeps());
  clock_.advance(kLone - std::chrono::milliseconds(1));
  ASSERT_TRUE(sleeps());
  EXPECT_EQ(writes(), 1);
  clock_.advance(std::chrono::milliseconds(1));
  EXPECT_TRUE(wait_for_writes(2));
}

TEST_F(GroupCommitTest, ACrowdSharesAWriteAndIsFollowedByTheWholePause) {
  commit_.touch();
  ASSERT_TRUE(wait_for_writes(1));
  for (size_t i = 1; i <= 100; ++i) commit_.touch(i);
  ASSERT_TRUE(sleeps());
  clock_.advance(kLone);
  ASSERT_TRUE(wait_for_writes(2));
  commit_.touch();
  ASSERT_TRUE(sleeps());
  clock_.advance(kSpacing - std::chrono::milliseconds(1));
  ASSERT_TRUE(sleeps());
  EXPECT_EQ(writes(), 2) << "all hundred were in it";
  clock_.advance(std::chrono::milliseconds(1));
  EXPECT_TRUE(wait_for_writes(3));
}

TEST_F(GroupCommitTest, ManyWhoWaitMakeThePauseLongThoughTheyComeOneByOne) {
  commit_.touch(20);
  ASSERT_TRUE(wait_for_writes(1));
  commit_.touch(20);
  ASSERT_TRUE(sleeps());
  clock_.advance(kSpacing - std::chrono::milliseconds(1));
  ASSERT_TRUE(sleeps());
  EXPECT_EQ(writes(), 1);
  clock_.advance(std::chrono::milliseconds(1));
  EXPECT_TRUE(wait_for_writes(2));
}

TEST_F(GroupCommitTest, WhatIsTheLastForNowDoesNotPause) {
  commit_.touch(20);
  ASSERT_TRUE(wait_for_writes(1));
  commit_.touch_now();
  EXPECT_TRUE(wait_for_writes(2));
}

TEST_F(GroupCommitTest, AChangeThatCanWaitLeavesWithTheNextWriteOrAfterIdleness) {
  commit_.touch_later();
  ASSERT_TRUE(sleeps());
  commit_.touch();
  ASSERT_TRUE(wait_for_writes(1)) << "the sleep until idleness is cut short";
  clock_.advance(kIdle * 2);
  commit_.touch_later();
  ASSERT_TRUE(sleeps());
  EXPECT_EQ(writes(), 1) << "the first one left with the write that was made";
  clock_.advance(kIdle);
  EXPECT_TRUE(wait_for_writes(2));
}

TEST_F(GroupCommitTest, ASpacedChangeKeepsItsDistanceFromTheLastWriteOnly) {
  constexpr std::chrono::milliseconds kPause{2000};
  commit_.touch_spaced(kPause);
  ASSERT_TRUE(wait_for_writes(1)) << "after a rest, at once";
  commit_.touch_later();
  ASSERT_TRUE(sleeps());
  clock_.advance(std::chrono::milliseconds(500));
  commit_.touch_spaced(kPause);  // sooner than what waits already
  ASSERT_TRUE(sleeps());
  clock_.advance(std::chrono::milliseconds(1499));
  ASSERT_TRUE(sleeps());
  EXPECT_EQ(writes(), 1);
  clock_.advance(std::chrono::milliseconds(1));
  ASSERT_TRUE(wait_for_writes(2));
  commit_.touch_spaced(kPause);
  ASSERT_TRUE(sleeps());
  commit_.touch();  // takes it along
  clock_.advance(kLone);
  EXPECT_TRUE(wait_for_writes(3));
}

TEST_F(GroupCommitTest, AFailedWriteIsTriedAgain) {
  answer_ = absl::UnavailableError("no answer");
  commit_.touch();
  ASSERT_TRUE(wait_for_writes(1));
  ASSERT_TRUE(sleeps());
  clock_.advance(std::chrono::seconds(1));
  EXPECT_TRUE(wait_for_writes(2));
}

}  // namespace
}  // namespace collage::reconcile
