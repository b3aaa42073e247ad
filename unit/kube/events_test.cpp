#include "operator/kube/events.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "unit/testing/builders.h"
#include "unit/testing/fake_api_server.h"
#include "unit/testing/fake_clock.h"

namespace collage::kube {
namespace {

using base::Json;
using std::chrono::seconds;
using namespace collage::testing;  // NOLINT: builders read as words

class EventsTest : public ::testing::Test {
 protected:
  EventTarget claim(const std::string& name = "data") {
    return event_target(*parse<Claim>(a_claim(name).in("team").version(5).json()));
  }
  std::vector<Json> events() { return server_.list(kEvents); }
  bool wait_for_events(size_t count) {
    return server_.wait_until([&] { return events().size() == count; });
  }
  bool wait_for_count(int count) {
    return server_.wait_until(
        [&] { return !events().empty() && base::get_int(events()[0], "/count") == count; });
  }
  FakeApiServer server_;
  std::unique_ptr<Client> client_ = server_.client();
  FakeClock clock_;
  EventRecorder recorder_{*client_, "collage-operator", "pod-1", clock_};
};

TEST_F(EventsTest, AnEventAsPeopleSeeIt) {
  recorder_.event(claim(), EventType::kWarning, "ProvisioningFailed", "the directory /srv is full");
  ASSERT_TRUE(wait_for_events(1));
  const Json event = events()[0];
  EXPECT_EQ(base::get_string(event, "/metadata/namespace"), "team");
  EXPECT_TRUE(base::get_string(event, "/metadata/name").starts_with("data."));
  EXPECT_EQ(event["involvedObject"], (Json{{"apiVersion", "v1"},
                                           {"kind", "PersistentVolumeClaim"},
                                           {"namespace", "team"},
                                           {"name", "data"},
                                           {"uid", "uid-data"},
                                           {"resourceVersion", "5"}}));
  EXPECT_EQ(base::get_string(event, "/type"), "Warning");
  EXPECT_EQ(base::get_string(event, "/reason"), "ProvisioningFailed");
  EXPECT_EQ(base::get_string(event, "/message"), "the directory /srv is full");
  EXPECT_EQ(base::get_string(event, "/source/component"), "collage-operator");
  EXPECT_EQ(base::get_string(event, "/reportingInstance"), "pod-1");
  EXPECT_EQ(base::get_string(event, "/firstTimestamp"), "2026-01-01T00:00:00Z");
  EXPECT_EQ(base::get_int(event, "/count"), 1);
}

TEST_F(EventsTest, AClusterScopedObjectsEventsAreInDefault) {
  recorder_.event(event_target(*parse<BackendObject>(a_backend("fast").json())), EventType::kNormal, "Ready",
                  "ready");
  ASSERT_TRUE(wait_for_events(1));
  EXPECT_EQ(base::get_string(events()[0], "/metadata/namespace"), "default");
  EXPECT_EQ(base::find(events()[0], "/involvedObject/namespace"), nullptr);
  EXPECT_EQ(base::get_string(events()[0], "/involvedObject/apiVersion"), "collage.storage/v1beta1");
}

TEST_F(EventsTest, TheSameAgainCountsUpAtMostEveryTenSeconds) {
  recorder_.event(claim(), EventType::kWarning, "Failed", "no");
  ASSERT_TRUE(wait_for_events(1));
  for (int i = 0; i < 50; ++i) recorder_.event(claim(), EventType::kWarning, "Failed", "no");
  ASSERT_TRUE(clock_.wait_for_sleepers(1));
  clock_.advance(seconds(9));
  EXPECT_EQ(server_.count("patch", "events"), 0);
  clock_.advance(seconds(1));
  ASSERT_TRUE(wait_for_count(51));
  EXPECT_EQ(server_.count("patch", "events"), 1);
  EXPECT_EQ(server_.count("create", "events"), 1);
  EXPECT_EQ(base::get_string(events()[0], "/lastTimestamp"), "2026-01-01T00:00:00Z");
}

TEST_F(EventsTest, AfterTenMinutesItIsANewEvent) {
  recorder_.event(claim(), EventType::kWarning, "Failed", "no");
  ASSERT_TRUE(wait_for_events(1));
  recorder_.flush(base::Context().with_timeout(seconds(10)));
  clock_.advance(seconds(601));
  recorder_.event(claim(), EventType::kWarning, "Failed", "no");
  EXPECT_TRUE(wait_for_events(2));
}

TEST_F(EventsTest, OtherMessagesAreOtherEvents) {
  recorder_.event(claim(), EventType::kWarning, "Failed", "no");
  recorder_.event(claim(), EventType::kNormal, "Failed", "no");
  recorder_.event(claim(), EventType::kWarning, "Failed", "still no");
  recorder_.event(claim("other"), EventType::kWarning, "Failed", "no");
  EXPECT_TRUE(wait_for_events(4));
}

TEST_F(EventsTest, ABurstOfOneTargetIsCutOffAndRefilled) {
  for (int i = 0; i < 40; ++i)
    recorder_.event(claim(), EventType::kNormal, "Step", "step " + std::to_string(i));
  recorder_.event(claim("other"), EventType::kNormal, "Step", "of another");
  ASSERT_TRUE(wait_for_events(26));
  recorder_.flush(base::Context().with_timeout(seconds(10)));
  EXPECT_EQ(events().size(), 26u);
  clock_.advance(std::chrono::minutes(5));
  for (int i = 0; i < 3; ++i)
    recorder_.event(claim(), EventType::kNormal, "Later", "later " + std::to_string(i));
  recorder_.flush(base::Context().with_timeout(seconds(10)));
  EXPECT_EQ(events().size(), 27u);
}

TEST_F(EventsTest, TheRoutineOfAStormIsCutOffAndNothingElse) {
  const auto name = [](int i) { return "claim-" + std::to_string(i); };
  for (int i = 0; i < 200; ++i) recorder_.event(claim(name(i)), EventType::kRoutine, "Made", "a volume");
  ASSERT_TRUE(wait_for_events(50));
  EXPECT_EQ(base::get_string(events()[0], "/type"), "Normal");
  for (int i = 0; i < 50; ++i) recorder_.event(claim(name(i)), EventType::kWarning, "Failed", "no volume");
  for (int i = 0; i < 50; ++i) recorder_.event(claim(name(i)), EventType::kNormal, "Moved", "by force");
  ASSERT_TRUE(wait_for_events(150));
  clock_.advance(seconds(1));
  for (int i = 0; i < 10; ++i) recorder_.event(claim(name(i)), EventType::kRoutine, "Made", "another");
  recorder_.flush(base::Context().with_timeout(seconds(10)));
  EXPECT_EQ(events().size(), 152u);
}

TEST_F(EventsTest, FlushSendsWhatWaits) {
  recorder_.event(claim(), EventType::kNormal, "A", "a");
  ASSERT_TRUE(wait_for_events(1));
  recorder_.flush(base::Context().with_timeout(seconds(10)));
  recorder_.event(claim(), EventType::kNormal, "A", "a");  // would be patched in ten seconds
  recorder_.event(claim(), EventType::kNormal, "B", "b");
  recorder_.flush(base::Context().with_timeout(seconds(10)));
  EXPECT_EQ(events().size(), 2u);
  EXPECT_EQ(server_.count("patch", "events"), 1);
}

TEST_F(EventsTest, FlushEndsWithItsContext) {
  server_.fail_next("create", "events", Fault::answer(500, "InternalError"), 1000);
  recorder_.event(claim(), EventType::kNormal, "A", "a");
  const auto began = std::chrono::steady_clock::now();
  recorder_.flush(base::Context().with_timeout(std::chrono::milliseconds(100)));
  EXPECT_LT(std::chrono::steady_clock::now() - began, seconds(5));
}

TEST_F(EventsTest, AnEventThatCannotBeWrittenIsTriedAFewTimes) {
  server_.fail_next("create", "events", Fault::answer(500, "InternalError"), 2);
  recorder_.event(claim(), EventType::kNormal, "A", "a");
  for (int i = 1; i <= 2; ++i) {
    ASSERT_TRUE(server_.wait_until([&] { return server_.count("create", "events") == i; }));
    ASSERT_TRUE(clock_.wait_for_sleepers(1));
    clock_.advance(seconds(10));
  }
  EXPECT_TRUE(wait_for_events(1));
}

TEST_F(EventsTest, AnEventThatIsForbiddenIsDropped) {
  server_.fail_next("create", "events", Fault::answer(403, "Forbidden"));
  recorder_.event(claim(), EventType::kNormal, "A", "a");
  recorder_.flush(base::Context().with_timeout(seconds(10)));
  EXPECT_EQ(server_.count("create", "events"), 1);
  EXPECT_TRUE(events().empty());
}

TEST_F(EventsTest, AnEventThatWasRemovedMeanwhileIsMadeAnew) {
  recorder_.event(claim(), EventType::kNormal, "A", "a");
  ASSERT_TRUE(wait_for_events(1));
  recorder_.flush(base::Context().with_timeout(seconds(10)));
  server_.erase(kEvents, "team/" + base::get_string(events()[0], "/metadata/name"));
  recorder_.event(claim(), EventType::kNormal, "A", "a");
  recorder_.flush(base::Context().with_timeout(seconds(10)));
  ASSERT_EQ(events().size(), 1u);
  EXPECT_EQ(base::get_int(events()[0], "/count"), 2);
}

TEST_F(EventsTest, ALongMessageIsCutAtACharacter) {
  std::string text(1022, 'x');
  recorder_.event(claim(), EventType::kNormal, "A", text + "\u00e4\u00e4\u00e4");
  ASSERT_TRUE(wait_for_events(1));
  const std::string message = base::get_string(events()[0], "/message");
  EXPECT_LE(message.size(), 1024u);
  EXPECT_TRUE(message.ends_with("x..."));
}

TEST_F(EventsTest, TheOldestIsDroppedWhenTooManyWait) {
  std::atomic<bool> closed = true;
  server_.on_request([&](const ApiRequest&) {
    while (closed) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return Fault{};
  });
  recorder_.event(claim("first"), EventType::kNormal, "A", "a");
  ASSERT_TRUE(server_.wait_until([&] { return server_.connections() == 1; }))
      << "being sent, and not answered";
  for (int i = 0; i < 1500; ++i)
    recorder_.event(claim("c" + std::to_string(i)), EventType::kNormal, "A", "a");
  closed = false;
  recorder_.flush(base::Context().with_timeout(seconds(30)));
  std::set<std::string> names;
  for (const Json& event : events()) names.insert(base::get_string(event, "/involvedObject/name"));
  names.erase("first");
  EXPECT_EQ(names.size(), 1000u);
  EXPECT_TRUE(names.contains("c1499"));
  EXPECT_TRUE(names.contains("c500"));
  EXPECT_FALSE(names.contains("c0"));
}

}  // namespace
}  // namespace collage::kube
