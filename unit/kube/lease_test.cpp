#include "operator/kube/lease.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "unit/testing/builders.h"
#include "unit/testing/fake_api_server.h"
#include "unit/testing/fake_clock.h"

namespace collage::kube {
namespace {

using base::Json;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::FakeApiServer;
using testing::FakeClock;
using testing::Fault;

// Happens once, from another thread.
class Flag {
 public:
  void raise() {
    std::lock_guard lock(mutex_);
    ++count_;
    changed_.notify_all();
  }
  bool wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, seconds(10), [&] { return count_ > 0; });
  }
  int count() {
    std::lock_guard lock(mutex_);
    return count_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
};

class LeaseTest : public ::testing::Test {
 protected:
  LeaseOptions options(const std::string& identity) const { return {{"collage", "operator"}, identity}; }
  Json lease() const { return server_.get(kLeases, "collage/operator").value_or(Json()); }
  std::string holder() const { return base::get_string(lease(), "/spec/holderIdentity"); }
  base::Context context(const FakeClock& clock) { return base::Context(stop_.get_token(), clock); }

  FakeApiServer server_;
  std::unique_ptr<Client> client_ = server_.client();
  FakeClock clock_;
  std::stop_source stop_;
};

TEST_F(LeaseTest, IsCreatedByTheFirst) {
  Lease lease_a(*client_, options("a"), clock_);
  EXPECT_EQ(lease_a.holds_for().status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(lease_a.acquire(context(clock_), MissingLease::kFree).ok());
  EXPECT_EQ(*lease_a.holds_for(), seconds(10));
  EXPECT_EQ(holder(), "a");
  EXPECT_EQ(base::get_int(lease(), "/spec/leaseDurationSeconds"), 15);
  EXPECT_EQ(base::get_string(lease(), "/spec/renewTime"), "2026-01-01T00:00:00.000000Z");
  EXPECT_EQ(base::get_string(lease(), "/spec/acquireTime"), "2026-01-01T00:00:00.000000Z");
  EXPECT_EQ(base::get_int(lease(), "/spec/leaseTransitions"), 0);
}

TEST_F(LeaseTest, IsRenewed) {
  Lease lease_a(*client_, options("a"), clock_);
  ASSERT_TRUE(lease_a.acquire(context(clock_), MissingLease::kFree).ok());
  Flag lost;
  lease_a.keep(context(clock_), [&] { lost.raise(); });
  for (int i = 1; i <= 5; ++i) {
    ASSERT_TRUE(clock_.wait_for_sleepers(1));
    clock_.advance(seconds(5));
    ASSERT_TRUE(server_.wait_until([&] { return server_.count("update", "leases") == i; }));
    ASSERT_TRUE(server_.wait_until([&] { return lease_a.holds_for().value_or(seconds(0)) == seconds(10); }));
  }
  EXPECT_EQ(base::get_string(lease(), "/spec/renewTime"), "2026-01-01T00:00:25.000000Z");
  EXPECT_EQ(base::get_string(lease(), "/spec/acquireTime"), "2026-01-01T00:00:00.000000Z");
  EXPECT_EQ(base::get_int(lease(), "/spec/leaseTransitions"), 0);
  EXPECT_EQ(lost.count(), 0);
  stop_.request_stop();
}

TEST_F(LeaseTest, AFailedRenewalIsTriedAgainBeforeTheFence) {
  Lease lease_a(*client_, options("a"), clock_);
  ASSERT_TRUE(lease_a.acquire(context(clock_), MissingLease::kFree).ok());
  Flag lost;
  lease_a.keep(context(clock_), [&] { lost.raise(); });
  ASSERT_TRUE(clock_.wait_for_sleepers(1));
  server_.fail_next("update", "leases", Fault::answer(500, "InternalError"), 2);
  clock_.advance(seconds(5));
  for (int i = 1; i <= 2; ++i) {
    ASSERT_TRUE(server_.wait_until([&] { return server_.count("update", "leases") == i; }));
    ASSERT_TRUE(clock_.wait_for_sleepers(1));
    clock_.advance(seconds(1));
  }
  ASSERT_TRUE(server_.wait_until([&] { return lease_a.holds_for().value_or(seconds(0)) == seconds(10); }));
  EXPECT_EQ(lost.count(), 0);
  stop_.request_stop();
}

TEST_F(LeaseTest, ARenewalWhoseAnswerWasLostIsRecognised) {
  Lease lease_a(*client_, options("a"), clock_);
  ASSERT_TRUE(lease_a.acquire(context(clock_), MissingLease::kFree).ok());
  Flag lost;
  lease_a.keep(context(clock_), [&] { lost.raise(); });
  ASSERT_TRUE(clock_.wait_for_sleepers(1));
  server_.fail_next("update", "leases", Fault::drop_after());
  clock_.advance(seconds(5));
  ASSERT_TRUE(server_.wait_until([&] { return server_.count("update", "leases") == 1; }));
  ASSERT_TRUE(clock_.wait_for_sleepers(1));
  clock_.advance(seconds(1));  // its resourceVersion is old now: a conflict, a look, and the renewal
  ASSERT_TRUE(server_.wait_until([&] { return lease_a.holds_for().value_or(seconds(0)) == seconds(10); }));
  EXPECT_EQ(holder(), "a");
  EXPECT_EQ(lost.count(), 0);
  stop_.request_stop();
}

TEST_F(LeaseTest, IsLostWhenTheServerIsAway) {
  Lease lease_a(*client_, options("a"), clock_);
  ASSERT_TRUE(lease_a.acquire(context(clock_), MissingLease::kFree).ok());
  Flag lost;
  lease_a.keep(context(clock_), [&] { lost.raise(); });
  server_.fail_next("update", "leases", Fault::answer(500, "InternalError"), 1000);
  for (int i = 0; i < 60 && lost.count() == 0; ++i) {
    ASSERT_TRUE(server_.wait_until([&] { return clock_.sleepers() > 0 || lost.count() > 0; }));
    clock_.advance(milliseconds(500));
  }
  ASSERT_TRUE(lost.wait());
  EXPECT_EQ(lost.count(), 1);
  EXPECT_EQ(lease_a.holds_for().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(LeaseTest, IsLostWhenAnotherHasIt) {
  Lease lease_a(*client_, options("a"), clock_);
  ASSERT_TRUE(lease_a.acquire(context(clock_), MissingLease::kFree).ok());
  Flag lost;
  lease_a.keep(context(clock_), [&] { lost.raise(); });
  server_.update(kLeases, "collage/operator", [](Json& lease) { lease["spec"]["holderIdentity"] = "thief"; });
  ASSERT_TRUE(clock_.wait_for_sleepers(1));
  clock_.advance(seconds(5));
  ASSERT_TRUE(lost.wait());
  EXPECT_FALSE(lease_a.holds_for().ok());
  EXPECT_EQ(holder(), "thief");
}

// The machine was suspended, or the process stopped: the monotonic clock knows nothing of it.
TEST_F(LeaseTest, ALeaderThatWasStoppedHoldsNothingWhenItContinues) {
  Lease lease_a(*client_, options("a"), clock_);
  ASSERT_TRUE(lease_a.acquire(context(clock_), MissingLease::kFree).ok());
  ASSERT_TRUE(lease_a.holds_for().ok());
  const auto fenced = server_.client(&lease_a);
  ASSERT_TRUE(fenced->create(context(clock_), kConfigMaps, "ns", {{"metadata", {{"name", "before"}}}}).ok());
  clock_.suspend(seconds(60));
  EXPECT_EQ(lease_a.holds_for().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(
      fenced->create(context(clock_), kConfigMaps, "ns", {{"metadata", {{"name", "after"}}}}).status().code(),
      absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(server_.count("create", "configmaps"), 1);
}

TEST_F(LeaseTest, ACleanReleaseHandsOverAtOnce) {
  Lease lease_a(*client_, options("a"), clock_);
  ASSERT_TRUE(lease_a.acquire(context(clock_), MissingLease::kFree).ok());
  Flag lost;
  lease_a.keep(context(clock_), [&] { lost.raise(); });
  const auto other = server_.client();
  FakeClock other_clock;
  Lease lease_b(*other, options("b"), other_clock);
  Flag acquired;
  std::jthread waiter([&] {
    EXPECT_TRUE(lease_b.acquire(context(other_clock)).ok());
    acquired.raise();
  });
  ASSERT_TRUE(server_.wait_until([&] { return server_.open_watches("leases") == 1; }));
  EXPECT_EQ(acquired.count(), 0);
  lease_a.release(base::Context());
  EXPECT_FALSE(lease_a.holds_for().ok());
  ASSERT_TRUE(acquired.wait()) << "without any time passing";
  EXPECT_EQ(lost.count(), 0);
  EXPECT_EQ(holder(), "b");
  EXPECT_EQ(base::get_int(lease(), "/spec/leaseTransitions"), 1);
  EXPECT_EQ(base::get_int(lease(), "/spec/leaseDurationSeconds"), 15);
}

TEST_F(LeaseTest, ReleaseAfterARenewalThatWasCutOff) {
  Lease lease_a(*client_, options("a"), clock_);
  ASSERT_TRUE(lease_a.acquire(context(clock_), MissingLease::kFree).ok());
  // As if a renewal had arrived whose answer was not read.
  server_.update(kLeases, "collage/operator",
                 [](Json& lease) { lease["spec"]["renewTime"] = "2026-01-01T00:00:05.000000Z"; });
  lease_a.release(base::Context());
  EXPECT_EQ(holder(), "");
  EXPECT_EQ(base::get_int(lease(), "/spec/leaseDurationSeconds"), 1);
}

TEST_F(LeaseTest, ALeaseThatIsHeldIsWaitedForWithoutCalls) {
  Lease lease_a(*client_, options("a"), clock_);
  ASSERT_TRUE(lease_a.acquire(context(clock_), MissingLease::kFree).ok());
  Lease lease_b(*client_, options("b"), clock_);
  Flag ended;
  absl::Status status;
  std::jthread waiter([&] {
    status = lease_b.acquire(context(clock_));
    ended.raise();
  });
  ASSERT_TRUE(server_.wait_until([&] { return server_.open_watches("leases") == 1; }));
  server_.reset_counts();
  for (int i = 0; i < 20; ++i) {
    server_.update(kLeases, "collage/operator",
                   [&](Json& lease) { lease["spec"]["renewTime"] = std::to_string(i); });
  }
  ASSERT_TRUE(server_.wait_until([&] { return server_.open_watches("leases") == 1; }));
  EXPECT_EQ(server_.requests().size(), 0u);
  stop_.request_stop();
  ASSERT_TRUE(ended.wait());
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(holder(), "a");
}

// In real time, with short durations: the holder vanished without a release.
TEST_F(LeaseTest, ALeaseWhoseHolderVanishedIsTakenAfterItsDuration) {
  server_.put({{"apiVersion", "coordination.k8s.io/v1"},
               {"kind", "Lease"},
               {"metadata", {{"namespace", "collage"}, {"name", "operator"}, {"labels", {{"keep", "me"}}}}},
               {"spec",
                {{"holderIdentity", "gone"},
                 {"leaseDurationSeconds", 1},
                 {"leaseTransitions", 6},
                 {"strategy", "OldestEmulationVersion"}}}});
  Lease lease_b(*client_, options("b"));
  const auto began = std::chrono::steady_clock::now();
  ASSERT_TRUE(lease_b.acquire(base::Context().with_timeout(seconds(20))).ok());
  EXPECT_GE(std::chrono::steady_clock::now() - began, seconds(1));
  EXPECT_EQ(holder(), "b");
  EXPECT_EQ(base::get_int(lease(), "/spec/leaseTransitions"), 7);
  EXPECT_EQ(base::get_string(lease(), "/metadata/labels/keep"), "me");
  EXPECT_EQ(base::get_string(lease(), "/spec/strategy"), "OldestEmulationVersion")
      << "fields that we do not know are kept";
}

// In real time, with short durations: a person deletes the Lease, and a process starts that never saw it.
TEST_F(LeaseTest, ADeletedLeaseIsNotTakenUnderItsHolder) {
  LeaseOptions quick = options("a");
  quick.duration = milliseconds(1500);
  quick.renew_deadline = milliseconds(1000);
  Lease lease_a(*client_, quick);
  ASSERT_TRUE(lease_a.acquire(base::Context().with_timeout(seconds(20)), MissingLease::kFree).ok());
  server_.erase(kLeases, "collage/operator");
  const auto began = std::chrono::steady_clock::now();
  quick.identity = "b";
  Lease lease_b(*client_, quick);
  ASSERT_TRUE(lease_b.acquire(base::Context().with_timeout(seconds(20))).ok());
  EXPECT_FALSE(lease_a.holds_for().ok()) << "two lead";
  EXPECT_GE(std::chrono::steady_clock::now() - began, quick.duration);
  EXPECT_EQ(holder(), "b");
  EXPECT_GT(*lease_b.holds_for(), seconds(0));
}

TEST_F(LeaseTest, AcquireOutlivesAServerThatIsAway) {
  server_.fail_next("get", "leases", Fault::answer(403, "Forbidden"), 2);
  LeaseOptions soon = options("a");
  soon.retry = milliseconds(20);
  Lease lease_a(*client_, soon);
  EXPECT_TRUE(lease_a.acquire(base::Context().with_timeout(seconds(20)), MissingLease::kFree).ok());
}

// Every answer comes later than the first patience of a call: the leader stays the leader.
TEST_F(LeaseTest, AServerThatIsSlowKeepsItsLeader) {
  LeaseOptions quick = options("a");
  quick.duration = milliseconds(3000);
  quick.renew_deadline = milliseconds(2000);
  quick.retry = milliseconds(1000);
  server_.on_request([](const testing::ApiRequest&) { return Fault::wait(milliseconds(700)); });
  Lease lease_a(*client_, quick);  // gives a call 500 ms at first
  ASSERT_TRUE(
      lease_a.acquire(base::Context(stop_.get_token()).with_timeout(seconds(20)), MissingLease::kFree).ok());
  Flag lost;
  lease_a.keep(base::Context(stop_.get_token()), [&] { lost.raise(); });
  ASSERT_TRUE(server_.wait_until([&] { return server_.count("update", "leases") >= 3; }));
  EXPECT_EQ(lost.count(), 0);
  EXPECT_EQ(holder(), "a");
  stop_.request_stop();
}

TEST_F(LeaseTest, IsUnhealthyWhenItRanOutAndTheProcessIsStillThere) {
  Lease lease_a(*client_, options("a"), clock_);
  EXPECT_TRUE(lease_a.healthy().ok()) << "who waits for the lease is well";
  ASSERT_TRUE(lease_a.acquire(context(clock_), MissingLease::kFree).ok());
  Flag lost;
  lease_a.keep(context(clock_), [&] { lost.raise(); });
  ASSERT_TRUE(clock_.wait_for_sleepers(1));
  clock_.suspend(seconds(30));
  EXPECT_TRUE(lease_a.healthy().ok()) << "it has its time to end";
  clock_.advance(seconds(10));
  ASSERT_TRUE(lost.wait());
  EXPECT_EQ(lease_a.healthy().code(), absl::StatusCode::kFailedPrecondition) << "lost or not";
  EXPECT_THAT(lease_a.healthy().message(), ::testing::HasSubstr("collage/operator"));
}

TEST_F(LeaseTest, IsHealthyAfterARelease) {
  Lease lease_a(*client_, options("a"), clock_);
  ASSERT_TRUE(lease_a.acquire(context(clock_), MissingLease::kFree).ok());
  lease_a.release(base::Context());
  clock_.advance(std::chrono::hours(1));
  EXPECT_TRUE(lease_a.healthy().ok());
}

}  // namespace
}  // namespace collage::kube
