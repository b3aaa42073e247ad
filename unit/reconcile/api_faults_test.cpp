// The whole operator over an API server that does not answer as it should: it waits, says so, and goes on by
// itself.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "unit/reconcile/cluster.h"
#include "unit/testing/captured_log.h"

namespace collage::reconcile {
namespace {

using base::Json;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::a_csi_node;
using testing::a_node;
using testing::an_attachment;
using testing::ApiRequest;
using testing::CapturedLog;
using testing::Cluster;
using testing::Fault;
using testing::kFake;
using ::testing::Le;
using ::testing::SizeIs;

constexpr char kTrouble[] = "the API server does not answer as it should";
constexpr char kGood[] = "the API server answers again";

// The real clock, whose date somebody sets.
class JumpingClock final : public base::Clock {
 public:
  Monotonic now() const override { return real().now(); }
  std::chrono::nanoseconds boot_time() const override { return real().boot_time(); }
  Wall wall() const override { return real().wall() + hours(jump); }
  bool sleep_until(std::stop_token stop, Monotonic until) const override {
    return real().sleep_until(std::move(stop), until);
  }
  std::atomic<int> jump = 0;
};

Cluster::Options quick(const base::Clock& clock) {
  Cluster::Options options;
  options.watching.backoff_initial = milliseconds(10);
  options.watching.backoff_max = milliseconds(200);
  options.watching.idle_timeout = milliseconds(1500);
  options.clock = &clock;
  return options;
}

class ApiFaults : public ::testing::Test {
 protected:
  // Work of each sort: a claim to serve, a volume to attach, one to detach and one to delete.
  void put_work(const std::string& name) {
    cluster_.api.put(Cluster::claim(name).uid("uid-" + name));
    cluster_.api.put(cluster_.volume("pv-" + name).bound());
    cluster_.api.put(an_attachment("pv-" + name, "node-a").of_driver(kFake));
    cluster_.api.put(cluster_.volume("old-" + name).released());
  }
  bool is_attached(const std::string& name) const {
    const auto object = cluster_.attachment("pv-" + name);
    return object && base::get_bool(*object, "/status/attached");
  }
  ::testing::AssertionResult done(const std::string& name) {
    if (!cluster_.wait([&] { return cluster_.bound(name); }))
      return ::testing::AssertionFailure() << name << " is not bound";
    if (!cluster_.wait([&] { return is_attached(name); }))
      return ::testing::AssertionFailure() << name << " is not attached";
    if (!cluster_.wait([&] { return !cluster_.pv("old-" + name); }))
      return ::testing::AssertionFailure() << name << " is not deleted";
    cluster_.api.remove(kube::kVolumeAttachments, "csi-pv-" + name + "-node-a");
    if (!cluster_.wait([&] { return !cluster_.attachment("pv-" + name); }))
      return ::testing::AssertionFailure() << name << " is not detached";
    return ::testing::AssertionSuccess();
  }
  void SetUp() override {
    cluster_.api.put(a_node("node-a"));
    cluster_.api.put(a_csi_node("node-a").driver(kFake, "id-node-a"));
    cluster_.start();
    put_work("before");
    ASSERT_TRUE(done("before"));
  }
  // What was made before and meanwhile is done once the fault is over, and what comes after too; nothing
  // twice.
  void goes_on() {
    put_work("after");
    for (const char* name : {"meanwhile", "after"}) ASSERT_TRUE(done(name));
    for (const char* name : {"before", "meanwhile", "after"}) {
      const auto volume = cluster_.pv(absl::StrCat("pvc-uid-", name));
      ASSERT_TRUE(volume) << name;
    }
    EXPECT_THAT(cluster_.driver->volumes(), SizeIs(6)) << "three made, three that were there";
    EXPECT_TRUE(cluster_.wait([&] { return cluster_.no_intents(); }));
    EXPECT_TRUE(cluster_.op->client->server_health().ok());
  }
  bool says(std::string_view problem) {
    return cluster_.wait([&] {
      return !log_.with({kTrouble,
                         absl::StrCat("problem=", absl::string_view(problem.data(), problem.size())),
                         cluster_.api.config().server})
                  .empty();
    });
  }

  CapturedLog log_;
  JumpingClock clock_;
  Cluster cluster_{quick(clock_)};
};

struct Outage {
  std::string_view name, problem;
  Fault fault;
};
void PrintTo(const Outage& outage, std::ostream* out) {
  *out << outage.name;
}

class ApiOutage : public ApiFaults, public ::testing::WithParamInterface<Outage> {};

// Every call fails so, until the server is well again.
TEST_P(ApiOutage, IsWaitedFor) {
  const Outage& outage = GetParam();
  cluster_.api.on_request([&](const ApiRequest&) { return outage.fault; });
  put_work("meanwhile");  // seen by watches that still run
  cluster_.api.break_watches();
  ASSERT_TRUE(says(outage.problem));
  ASSERT_TRUE(cluster_.wait([&] { return !cluster_.op->client->server_health().ok(); }));
  EXPECT_FALSE(cluster_.bound("meanwhile"));
  cluster_.api.clear_faults();
  goes_on();
  EXPECT_THAT(log_.with({kTrouble, absl::StrCat("problem=", outage.problem.data())}), SizeIs(1))
      << "said once";
  EXPECT_THAT(log_.with({kGood}), SizeIs(1));
}

INSTANTIATE_TEST_SUITE_P(
    Of, ApiOutage,
    ::testing::Values(Outage{"Down", "unreachable", Fault::drop_before()},
                      Outage{"LostAnswers", "unreachable", Fault::half_body()},
                      Outage{"InternalErrors", "failing", Fault::answer(500, "InternalError")},
                      Outage{"HalfJson", "garbled", Fault::half_json()},
                      Outage{"Overload", "overloaded",
                             Fault::answer(429, "TooManyRequests", {{"Retry-After", "1"}})}),
    [](const auto& info) { return std::string(info.param.name); });

// It asks for a second of peace after each call; at most eight watches and a few writes are under way.
TEST_F(ApiFaults, AnOverloadedServerIsNotHammered) {
  cluster_.api.reset_counts();
  const auto began = std::chrono::steady_clock::now();
  cluster_.api.on_request([](const ApiRequest&) {
    return Fault::answer(429, "TooManyRequests", {{"Retry-After", "1"}});
  });
  for (int i = 0; i < 20; ++i)
    cluster_.api.put(Cluster::claim(absl::StrCat("c-", i)).uid(absl::StrCat("u-", i)));
  put_work("meanwhile");
  cluster_.api.end_watches();
  ASSERT_TRUE(says("overloaded"));
  ASSERT_TRUE(cluster_.wait([&] { return cluster_.api.count("watch", "persistentvolumes") >= 2; }));
  const double seconds_long = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  // A caller each: 8 informers, 4 threads for each of provision, delete, attach and detach, intents, events.
  EXPECT_LE(static_cast<double>(cluster_.api.requests().size()), 26 * (seconds_long + 1));
  cluster_.api.clear_faults();
  for (int i = 0; i < 20; ++i)
    ASSERT_TRUE(cluster_.wait([&] { return cluster_.bound(absl::StrCat("c-", i)); }));
  put_work("after");
  for (const char* name : {"meanwhile", "after"}) ASSERT_TRUE(done(name));
}

// Every answer comes late: it is all done, only later.
TEST_F(ApiFaults, ASlowServerIsWaitedFor) {
  cluster_.api.on_request([](const ApiRequest&) { return Fault::wait(milliseconds(150)); });
  cluster_.api.end_watches();
  put_work("meanwhile");
  goes_on();
}

// Another writer was faster, at the first try of every write.
TEST_F(ApiFaults, ConflictsAreTriedAgain) {
  auto seen = std::make_shared<std::set<std::string>>();
  auto mutex = std::make_shared<std::mutex>();
  cluster_.api.on_request([=](const ApiRequest& request) {
    const bool changes = request.verb == "patch" || request.verb == "update";
    if (!changes || request.resource == "events") return Fault{};
    std::lock_guard lock(*mutex);
    const bool first =
        seen->insert(absl::StrCat(request.resource, "/", request.name, "/", request.subresource)).second;
    return first ? Fault::answer(409, "Conflict") : Fault{};
  });
  put_work("meanwhile");
  goes_on();
  EXPECT_GE(seen->size(), 4u) << "intents, attachments, volumes";
  EXPECT_THAT(log_.with({kTrouble}), SizeIs(0)) << "a conflict is an answer";
}

// The history of every watch was compacted, and the pages of the lists that follow expire half-way.
TEST_F(ApiFaults, ExpiredWatchesAndListsAreReadAgain) {
  cluster_.api.silence_watches(true);
  put_work("meanwhile");
  cluster_.api.erase(kube::kPersistentVolumes, "pv-before");
  cluster_.api.compact();
  cluster_.api.fail_next("list", "persistentvolumes", Fault::answer(410, "Expired"), 2);
  cluster_.api.end_watches();
  cluster_.api.silence_watches(false);
  ASSERT_TRUE(cluster_.wait([&] { return cluster_.op->world.volumes.get("pv-before") == nullptr; }));
  goes_on();
  EXPECT_FALSE(log_.with({"watch expired, listing again"}).empty());
}

// As behind a load balancer that forgot the connection: no data, no bookmark, no end.
TEST_F(ApiFaults, SilentWatchesAreNoticedAndResumed) {
  cluster_.api.stall_watches();
  put_work("meanwhile");
  goes_on();
  EXPECT_FALSE(
      log_.with({"watch was silent for too long, resuming", "resource=persistentvolumeclaims"}).empty());
}

TEST_F(ApiFaults, JumpsOfTheDateChangeNothing) {
  for (const int jump : {10, -10, 100000, -100000, 0}) {
    clock_.jump = jump;
    const std::string name = absl::StrCat("jump-", jump < 0 ? "back" : "on", std::abs(jump));
    put_work(name);
    ASSERT_TRUE(done(name)) << jump;
  }
  put_work("meanwhile");
  put_work("after");
  for (const char* name : {"meanwhile", "after"}) ASSERT_TRUE(done(name));
}

}  // namespace
}  // namespace collage::reconcile
