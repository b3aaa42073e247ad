#include "operator/engine/intents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <stop_token>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "unit/testing/fake_clock.h"
#include "unit/testing/memory_intent_store.h"

namespace collage::engine {
namespace {

using namespace std::chrono_literals;
using testing::FakeClock;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MemoryIntentStore;
using ::testing::Pair;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

class IntentsTest : public ::testing::Test {
 protected:
  base::Context context() const { return base::Context(std::stop_token(), clock); }
  std::future<absl::Status> begin_later(Intents& intents, const std::string& key,
                                        const std::string& value = "v") {
    return std::async(std::launch::async,
                      [&intents, this, key, value] { return intents.begin(context(), key, value); });
  }
  static bool ready(const std::future<absl::Status>& status) {
    return status.wait_for(0s) == std::future_status::ready;
  }

  FakeClock clock;
  MemoryIntentStore store;
  Intents intents{store, "fast", clock};
};

TEST_F(IntentsTest, NothingBeginsBeforeTheLoad) {
  EXPECT_FALSE(intents.loaded());
  EXPECT_EQ(intents.begin(context(), "a", "v").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(intents.flush(context()).ok()) << "nothing to write";
  store.fail_load(absl::UnavailableError("down"));
  EXPECT_EQ(intents.load(context()).code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(intents.loaded());
  EXPECT_TRUE(intents.load(context()).ok());
  EXPECT_TRUE(intents.begin(context(), "a", "v").ok());
}

TEST_F(IntentsTest, IsDurableWhenBeginReturns) {
  ASSERT_TRUE(intents.load(context()).ok());
  ASSERT_TRUE(intents.begin(context(), "a", "one").ok()) << "at once when idle: no time has passed";
  EXPECT_THAT(store.stored("fast"), UnorderedElementsAre(Pair("a", "one")));
  EXPECT_THAT(intents.open(), UnorderedElementsAre(Pair("a", "one")));
}

TEST_F(IntentsTest, TheSameAgainNeedsNoWrite) {
  ASSERT_TRUE(intents.load(context()).ok());
  ASSERT_TRUE(intents.begin(context(), "a", "one").ok());
  ASSERT_TRUE(intents.begin(context(), "a", "one").ok());
  EXPECT_EQ(store.begun(), 1);
}

TEST_F(IntentsTest, AnotherValueReplaces) {
  ASSERT_TRUE(intents.load(context()).ok());
  ASSERT_TRUE(intents.begin(context(), "a", "one").ok());
  clock.advance(Intents::kWriteInterval);
  ASSERT_TRUE(intents.begin(context(), "a", "two").ok());
  EXPECT_THAT(store.stored("fast"), UnorderedElementsAre(Pair("a", "two")));
}

TEST_F(IntentsTest, LoadsWhatAnEarlierProcessLeft) {
  store.write_behind("fast", {{"old", "left"}});
  ASSERT_TRUE(intents.load(context()).ok());
  EXPECT_THAT(intents.open(), UnorderedElementsAre(Pair("old", "left")));
  ASSERT_TRUE(intents.begin(context(), "old", "left").ok());
  EXPECT_EQ(store.begun(), 0) << "it is durable already";
  ASSERT_TRUE(intents.begin(context(), "new", "v").ok());
  EXPECT_THAT(store.stored("fast"), UnorderedElementsAre(Pair("old", "left"), Pair("new", "v")));
}

TEST_F(IntentsTest, AllThatComeDuringAWriteShareTheNext) {
  ASSERT_TRUE(intents.load(context()).ok());
  store.close_gate();
  auto first = begin_later(intents, "first");
  ASSERT_TRUE(store.wait_begun(1));
  std::vector<std::future<absl::Status>> others;
  for (int i = 0; i < 20; ++i) others.push_back(begin_later(intents, absl::StrCat("k", i)));
  ASSERT_TRUE(clock.wait_for_sleepers(21)) << "all wait for their entry";
  EXPECT_FALSE(ready(first));
  store.open_gate();
  EXPECT_TRUE(first.get().ok());
  // The next write waits for its turn: 50 ms after the first began.
  ASSERT_TRUE(clock.wait_for_sleepers(21));
  EXPECT_EQ(store.begun(), 1);
  clock.advance(Intents::kWriteInterval);
  for (auto& other : others) EXPECT_TRUE(other.get().ok());
  EXPECT_EQ(store.begun(), 2);
  EXPECT_THAT(store.stored("fast"), SizeIs(21));
}

TEST_F(IntentsTest, AtMostTwentyWritesASecondUnderLoad) {
  ASSERT_TRUE(intents.load(context()).ok());
  constexpr int kThreads = 8, kEach = 40;
  std::atomic<int> done = 0;
  std::vector<std::jthread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        const std::string key = absl::StrCat(t, "-", i);
        EXPECT_TRUE(intents.begin(context(), key, "v").ok());
        intents.end(key);
        ++done;
      }
    });
  }
  const auto started = clock.now();
  while (done < kThreads * kEach) {
    clock.advance(1ms);
    std::this_thread::yield();
  }
  threads.clear();
  const auto passed = std::chrono::duration_cast<std::chrono::milliseconds>(clock.now() - started);
  EXPECT_LE(store.begun(), passed / Intents::kWriteInterval + 1);
  EXPECT_LT(store.begun(), kThreads * kEach / 2) << "writes are shared";
}

TEST_F(IntentsTest, FinishedKeysLeaveWithTheNextWrite) {
  ASSERT_TRUE(intents.load(context()).ok());
  ASSERT_TRUE(intents.begin(context(), "a", "v").ok());
  intents.end("a");
  intents.end("unknown");
  EXPECT_THAT(intents.open(), IsEmpty());
  EXPECT_THAT(store.stored("fast"), SizeIs(1));
  clock.advance(Intents::kWriteInterval);
  ASSERT_TRUE(intents.begin(context(), "b", "v").ok());
  EXPECT_THAT(store.stored("fast"), UnorderedElementsAre(Pair("b", "v")));
}

TEST_F(IntentsTest, FinishedKeysLeaveAfterAWhileOfIdleness) {
  ASSERT_TRUE(intents.load(context()).ok());
  ASSERT_TRUE(intents.begin(context(), "a", "v").ok());
  intents.end("a");
  ASSERT_TRUE(clock.wait_for_sleepers(1));
  clock.advance(Intents::kFlushAfter - 1ms);
  ASSERT_TRUE(clock.wait_for_sleepers(1));
  EXPECT_EQ(store.begun(), 1);
  clock.advance(1ms);
  ASSERT_TRUE(store.wait_saved(2));
  EXPECT_THAT(store.stored("fast"), IsEmpty());
}

TEST_F(IntentsTest, AKeyBegunAgainBeforeItLeftNeedsNoWrite) {
  ASSERT_TRUE(intents.load(context()).ok());
  ASSERT_TRUE(intents.begin(context(), "a", "v").ok());
  intents.end("a");
  ASSERT_TRUE(intents.begin(context(), "a", "v").ok());
  EXPECT_THAT(store.stored("fast"), SizeIs(1));
  EXPECT_THAT(intents.open(), SizeIs(1));
}

// The write under way drops the key: that the store still has it is no promise.
TEST_F(IntentsTest, AKeyBegunAgainWhileItLeavesIsWrittenAgain) {
  ASSERT_TRUE(intents.load(context()).ok());
  ASSERT_TRUE(intents.begin(context(), "a", "v").ok());
  intents.end("a");
  store.close_gate();
  clock.advance(Intents::kFlushAfter);
  ASSERT_TRUE(store.wait_begun(2));
  auto again = begin_later(intents, "a");
  ASSERT_TRUE(clock.wait_for_sleepers(1));
  EXPECT_FALSE(ready(again));
  store.open_gate();
  ASSERT_TRUE(store.wait_saved(2));
  ASSERT_TRUE(clock.wait_for_sleepers(2));
  EXPECT_FALSE(ready(again));
  clock.advance(Intents::kWriteInterval);
  EXPECT_TRUE(again.get().ok());
  EXPECT_THAT(store.stored("fast"), UnorderedElementsAre(Pair("a", "v")));
}

TEST_F(IntentsTest, FlushWritesWhatIsPending) {
  ASSERT_TRUE(intents.load(context()).ok());
  ASSERT_TRUE(intents.flush(context()).ok());
  EXPECT_EQ(store.begun(), 0);
  ASSERT_TRUE(intents.begin(context(), "a", "v").ok());
  intents.end("a");
  clock.advance(Intents::kWriteInterval);
  ASSERT_TRUE(intents.flush(context()).ok());
  EXPECT_THAT(store.stored("fast"), IsEmpty());
  EXPECT_EQ(store.begun(), 2);
}

TEST_F(IntentsTest, RefusesWhatTheStoreCannotHold) {
  ASSERT_TRUE(intents.load(context()).ok());
  EXPECT_TRUE(intents.begin(context(), "a", std::string(512, 'x')).ok());
  const absl::Status status = intents.begin(context(), "b", std::string(513, 'x'));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("513 bytes, at most 512"));
  for (const std::string& key :
       {std::string(""), std::string("a/b"), std::string("a b"), std::string(254, 'k')}) {
    EXPECT_EQ(intents.begin(context(), key, "v").code(), absl::StatusCode::kInvalidArgument) << key;
  }
  EXPECT_THAT(intents.open(), SizeIs(1));
}

TEST_F(IntentsTest, WhenFullNothingBeginsUntilOneEnds) {
  MemoryIntentStore::Entries full;
  for (size_t i = 0; i < Intents::kMaxEntries; ++i) full[absl::StrCat("k", i)] = "v";
  store.write_behind("fast", full);
  ASSERT_TRUE(intents.load(context()).ok());
  EXPECT_EQ(intents.room(), 0);
  const absl::Status status = intents.begin(context(), "late", "v");
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("\"fast\" has 1000 creates under way"));
  EXPECT_FALSE(intents.open().contains("late"));
  ASSERT_TRUE(intents.begin(context(), "k7", "other").ok()) << "to replace one needs no room";
  intents.end("k3");
  EXPECT_EQ(intents.room(), 1);
  clock.advance(Intents::kWriteInterval);
  EXPECT_TRUE(intents.begin(context(), "late", "v").ok());
  EXPECT_TRUE(store.stored("fast").contains("late"));
  for (const auto& saved : store.saved()) EXPECT_LE(saved.size(), Intents::kMaxEntries);
}

TEST_F(IntentsTest, OnceClosedNothingBegins) {
  ASSERT_TRUE(intents.load(context()).ok());
  ASSERT_TRUE(intents.begin(context(), "a", "v").ok());
  EXPECT_FALSE(intents.close()) << "a create is under way";
  clock.advance(Intents::kWriteInterval);
  ASSERT_TRUE(intents.begin(context(), "b", "v").ok()) << "nothing has changed";
  intents.end("a");
  intents.end("b");
  EXPECT_TRUE(intents.close());
  const absl::Status status = intents.begin(context(), "c", "v");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("\"fast\" is being deleted"));
  EXPECT_THAT(intents.open(), IsEmpty());
}

// ---- Faults

TEST_F(IntentsTest, AFailedWriteBeginsNothing) {
  ASSERT_TRUE(intents.load(context()).ok());
  store.fail_save(absl::UnavailableError("down"));
  const absl::Status status = intents.begin(context(), "a", "v");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("note the begin of create a: down"));
  EXPECT_THAT(intents.open(), IsEmpty());
  clock.advance(Intents::kWriteInterval);
  EXPECT_TRUE(intents.begin(context(), "b", "v").ok()) << "the next try goes through";
  EXPECT_THAT(store.stored("fast"), UnorderedElementsAre(Pair("b", "v")));
}

TEST_F(IntentsTest, AFailedReplacementKeepsTheOldValue) {
  ASSERT_TRUE(intents.load(context()).ok());
  ASSERT_TRUE(intents.begin(context(), "a", "one").ok());
  clock.advance(Intents::kWriteInterval);
  store.fail_save(absl::UnavailableError("down"));
  EXPECT_FALSE(intents.begin(context(), "a", "two").ok());
  EXPECT_THAT(intents.open(), UnorderedElementsAre(Pair("a", "one")));
}

TEST_F(IntentsTest, AWriteWhoseAnswerWasLostDoesNotFenceItsOwnProcess) {
  ASSERT_TRUE(intents.load(context()).ok());
  store.lose_answer(absl::UnavailableError("connection lost"));
  EXPECT_EQ(intents.begin(context(), "a", "v").code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(store.stored("fast"), SizeIs(1)) << "it was written all the same";
  clock.advance(Intents::kWriteInterval);
  EXPECT_TRUE(intents.begin(context(), "b", "v").ok());
  EXPECT_THAT(store.stored("fast"), UnorderedElementsAre(Pair("b", "v"))) << "what was not begun has left";
  EXPECT_TRUE(intents.loaded());
}

TEST_F(IntentsTest, AnotherWriterFences) {
  ASSERT_TRUE(intents.load(context()).ok());
  ASSERT_TRUE(intents.begin(context(), "a", "v").ok());
  store.write_behind("fast", {{"theirs", "v"}});
  clock.advance(Intents::kWriteInterval);
  EXPECT_EQ(intents.begin(context(), "b", "v").code(), absl::StatusCode::kAborted);
  EXPECT_FALSE(intents.loaded());
  EXPECT_EQ(intents.begin(context(), "c", "v").code(), absl::StatusCode::kAborted)
      << "until it is loaded again";
  EXPECT_EQ(intents.begin(context(), "a", "v").code(), absl::StatusCode::kAborted)
      << "also what was durable once";
  EXPECT_EQ(intents.flush(context()).code(), absl::StatusCode::kAborted);
  EXPECT_THAT(store.stored("fast"), UnorderedElementsAre(Pair("theirs", "v")))
      << "nothing was written over it";

  ASSERT_TRUE(intents.load(context()).ok());
  EXPECT_THAT(intents.open(), UnorderedElementsAre(Pair("a", "v"), Pair("theirs", "v")))
      << "what we began stays open";
  clock.advance(Intents::kWriteInterval);
  EXPECT_TRUE(intents.begin(context(), "b", "v").ok());
  EXPECT_THAT(store.stored("fast"),
              UnorderedElementsAre(Pair("a", "v"), Pair("b", "v"), Pair("theirs", "v")));
}

TEST_F(IntentsTest, AnotherWriterAfterALostAnswerFences) {
  ASSERT_TRUE(intents.load(context()).ok());
  store.lose_answer(absl::DeadlineExceededError("late"));
  EXPECT_FALSE(intents.begin(context(), "a", "v").ok());
  store.write_behind("fast", {{"theirs", "v"}});
  clock.advance(Intents::kWriteInterval);
  EXPECT_EQ(intents.begin(context(), "b", "v").code(), absl::StatusCode::kAborted);
  EXPECT_THAT(store.stored("fast"), UnorderedElementsAre(Pair("theirs", "v")));
}

TEST_F(IntentsTest, WithoutTheStoreAfterALostAnswerNothingBegins) {
  ASSERT_TRUE(intents.load(context()).ok());
  store.lose_answer(absl::UnavailableError("connection lost"));
  EXPECT_FALSE(intents.begin(context(), "a", "v").ok());
  store.fail_load(absl::UnavailableError("still down"));
  clock.advance(Intents::kWriteInterval);
  EXPECT_EQ(intents.begin(context(), "b", "v").code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(store.begun(), 1);
  clock.advance(Intents::kWriteInterval);
  EXPECT_TRUE(intents.begin(context(), "b", "v").ok());
}

TEST_F(IntentsTest, AFailedRemovalIsTriedAgain) {
  ASSERT_TRUE(intents.load(context()).ok());
  ASSERT_TRUE(intents.begin(context(), "a", "v").ok());
  store.fail_save(absl::UnavailableError("down"));
  intents.end("a");
  ASSERT_TRUE(clock.wait_for_sleepers(1));
  clock.advance(Intents::kFlushAfter);
  ASSERT_TRUE(store.wait_begun(2));
  ASSERT_TRUE(clock.wait_for_sleepers(1));
  clock.advance(Intents::kFlushAfter);
  ASSERT_TRUE(store.wait_saved(2));
  EXPECT_THAT(store.stored("fast"), IsEmpty());
}

TEST_F(IntentsTest, ACallerThatGivesUpLeavesNothingBehind) {
  ASSERT_TRUE(intents.load(context()).ok());
  store.close_gate();
  std::stop_source stop;
  auto waiting = std::async(std::launch::async,
                            [&] { return intents.begin(base::Context(stop.get_token(), clock), "a", "v"); });
  ASSERT_TRUE(store.wait_begun(1));
  ASSERT_TRUE(clock.wait_for_sleepers(1));
  stop.request_stop();
  EXPECT_EQ(waiting.get().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(intents.open(), IsEmpty());
  store.open_gate();
  ASSERT_TRUE(store.wait_saved(1));
  EXPECT_THAT(store.stored("fast"), SizeIs(1)) << "the write under way could not be called back";
  ASSERT_TRUE(clock.wait_for_sleepers(1));
  clock.advance(Intents::kFlushAfter);
  ASSERT_TRUE(store.wait_saved(2));
  EXPECT_THAT(store.stored("fast"), IsEmpty());
}

TEST_F(IntentsTest, TwoCallersOfOneKeyBothHaveIt) {
  ASSERT_TRUE(intents.load(context()).ok());
  store.close_gate();
  std::stop_source stop;
  auto one = std::async(std::launch::async,
                        [&] { return intents.begin(base::Context(stop.get_token(), clock), "a", "v"); });
  ASSERT_TRUE(store.wait_begun(1));
  auto two = begin_later(intents, "a");
  ASSERT_TRUE(clock.wait_for_sleepers(2));
  stop.request_stop();
  EXPECT_FALSE(one.get().ok());
  store.open_gate();
  EXPECT_TRUE(two.get().ok());
  EXPECT_THAT(intents.open(), SizeIs(1)) << "the one that gave up takes nothing from the other";
}

TEST_F(IntentsTest, BackendsAreKeptApart) {
  Intents other(store, "slow", clock);
  ASSERT_TRUE(intents.load(context()).ok());
  ASSERT_TRUE(other.load(context()).ok());
  ASSERT_TRUE(intents.begin(context(), "a", "v").ok());
  ASSERT_TRUE(other.begin(context(), "b", "v").ok());
  EXPECT_THAT(store.stored("fast"), UnorderedElementsAre(Pair("a", "v")));
  EXPECT_THAT(store.stored("slow"), UnorderedElementsAre(Pair("b", "v")));
}

TEST(Intents, EndWithAWriteUnderWay) {
  FakeClock clock;
  MemoryIntentStore store;
  const base::Context context(std::stop_token(), clock);
  std::future<absl::Status> waiting;
  {
    Intents intents(store, "fast", clock);
    ASSERT_TRUE(intents.load(context).ok());
    ASSERT_TRUE(intents.begin(context, "a", "v").ok());
    intents.end("a");
    store.close_gate();
    clock.advance(Intents::kFlushAfter);
    ASSERT_TRUE(store.wait_begun(2));
  }
  EXPECT_THAT(store.stored("fast"), SizeIs(1)) << "the write was given up, not waited for";
}

TEST(Intents, ManyThreadsOnTheRealClock) {
  MemoryIntentStore store;
  Intents intents(store, "fast");
  ASSERT_TRUE(intents.load({}).ok());
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 8; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 5; ++i) {
          const std::string key = absl::StrCat(t, "-", i);
          EXPECT_TRUE(intents.begin({}, key, "v").ok());
          EXPECT_TRUE(store.stored("fast").contains(key));
          intents.end(key);
        }
      });
    }
  }
  EXPECT_TRUE(intents.flush({}).ok());
  EXPECT_THAT(store.stored("fast"), IsEmpty());
}

}  // namespace
}  // namespace collage::engine
