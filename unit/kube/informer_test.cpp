#include "operator/kube/informer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/random.h"
#include "unit/testing/builders.h"
#include "unit/testing/fake_api_server.h"

namespace collage::kube {
namespace {

using base::Json;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using namespace collage::testing;  // NOLINT: builders read as words

ReflectorOptions quick() {
  ReflectorOptions options;
  options.backoff_initial = milliseconds(5);
  options.backoff_max = milliseconds(50);
  return options;
}

class InformerTest : public ::testing::Test {
 protected:
  ~InformerTest() override { stop_.request_stop(); }

  std::unique_ptr<Informer<Volume>> make(ReflectorOptions options = quick()) {
    auto informer = std::make_unique<Informer<Volume>>(*client_, std::move(options));
    informer->add_handler(
        [this](const Informer<Volume>::Object& before, const Informer<Volume>::Object& after) {
          std::lock_guard lock(mutex_);
          const char* what = !before ? "added " : !after ? "deleted " : "changed ";
          events_.push_back(what + (after ? after : before)->meta.name);
        });
    return informer;
  }
  void start(Informer<Volume>& informer) {
    informer.start(context_);
    ASSERT_TRUE(informer.wait_synced(context_.with_timeout(seconds(10))).ok());
    ASSERT_TRUE(watching());
  }
  bool watching() {
    return server_.wait_until([&] { return server_.open_watches("persistentvolumes") == 1; });
  }
  bool sees(const Informer<Volume>& informer, const std::string& name) {
    return server_.wait_until([&] { return informer.get(name) != nullptr; });
  }
  bool gone(const Informer<Volume>& informer, const std::string& name) {
    return server_.wait_until([&] { return informer.get(name) == nullptr; });
  }
  std::vector<std::string> events() {
    std::lock_guard lock(mutex_);
    return events_;
  }
  int lists() { return server_.count("list", "persistentvolumes"); }
  int watches() { return server_.count("watch", "persistentvolumes"); }

  FakeApiServer server_;
  std::unique_ptr<Client> client_ = server_.client();
  std::stop_source stop_;
  base::Context context_{stop_.get_token()};
  std::mutex mutex_;
  std::vector<std::string> events_;
};

TEST_F(InformerTest, ListsThenWatches) {
  server_.put(a_volume("a"));
  const auto informer = make();
  EXPECT_FALSE(informer->has_synced());
  start(*informer);
  EXPECT_EQ(informer->size(), 1u);
  server_.put(a_volume("b"));
  ASSERT_TRUE(sees(*informer, "b"));
  server_.put(a_volume("b").released());
  ASSERT_TRUE(server_.wait_until([&] { return informer->get("b")->phase == "Released"; }));
  server_.erase(kPersistentVolumes, "a");
  ASSERT_TRUE(gone(*informer, "a"));
  ASSERT_TRUE(server_.wait_until([&] { return events().size() == 4; }));
  EXPECT_THAT(events(), ElementsAre("added a", "added b", "changed b", "deleted a"));
  EXPECT_EQ(lists(), 1);
  EXPECT_EQ(server_.requests("list")[0].query.count("resourceVersion"), 0u)
      << "the first list is not from a cache";
}

TEST_F(InformerTest, ResumesWhereItWasWhenTheServerEndsTheWatch) {
  server_.put(a_volume("a"));
  const auto informer = make();
  start(*informer);
  server_.put(a_volume("b"));
  ASSERT_TRUE(sees(*informer, "b"));
  const std::string version = informer->get("b")->meta.resource_version;
  server_.end_watches();
  ASSERT_TRUE(server_.wait_until([&] { return watches() == 2; }));
  server_.put(a_volume("c"));
  ASSERT_TRUE(sees(*informer, "c"));
  EXPECT_EQ(lists(), 1);
  EXPECT_EQ(server_.requests("watch")[1].query.at("resourceVersion"), version);
  EXPECT_THAT(events(), ElementsAre("added a", "added b", "added c"));
}

TEST_F(InformerTest, MissesNothingWhileTheConnectionIsBroken) {
  server_.put(a_volume("a"));
  const auto informer = make();
  start(*informer);
  server_.fail_next("watch", "persistentvolumes", Fault::drop_before(), 3);
  server_.break_watches();
  server_.put(a_volume("b"));
  server_.erase(kPersistentVolumes, "a");
  ASSERT_TRUE(sees(*informer, "b"));
  ASSERT_TRUE(gone(*informer, "a"));
  EXPECT_EQ(lists(), 1);
}

TEST_F(InformerTest, BookmarksMoveTheResumePoint) {
  const auto informer = make();
  start(*informer);
  for (int i = 0; i < 5; ++i)
    server_.put(a_node("n" + std::to_string(i)));  // the revision goes on without volumes
  const std::string now = std::to_string(server_.store().revision());
  server_.send_bookmarks();
  server_.put(a_volume("after"));
  ASSERT_TRUE(sees(*informer, "after"));
  server_.erase(kPersistentVolumes, "after");
  ASSERT_TRUE(gone(*informer, "after"));
  server_.bookmark_every(milliseconds(5));
  for (int i = 0; i < 5; ++i) server_.put(a_node("m" + std::to_string(i)));
  const uint64_t later = server_.store().revision();
  // Only a bookmark can tell the informer about a revision that no volume has.
  ASSERT_TRUE(server_.wait_until([&] {
    server_.end_watches();
    const auto all = server_.requests("watch", "persistentvolumes");
    return version_number(all.back().query.at("resourceVersion")) >= later;
  }));
  EXPECT_EQ(lists(), 1);
}

TEST_F(InformerTest, AnExpiredWatchListsAgainAndDeletesWhatVanished) {
  for (const char* name : {"a", "b", "c"}) server_.put(a_volume(name));
  const auto informer = make();
  start(*informer);
  server_.silence_watches(true);
  server_.erase(kPersistentVolumes, "b");
  server_.put(a_volume("c").released());
  server_.put(a_volume("d"));
  server_.compact();
  server_.end_watches();
  server_.silence_watches(false);
  ASSERT_TRUE(gone(*informer, "b"));
  ASSERT_TRUE(sees(*informer, "d"));
  ASSERT_TRUE(server_.wait_until([&] { return informer->get("c")->phase == "Released"; }));
  ASSERT_TRUE(server_.wait_until([&] { return events().size() == 6; }));
  EXPECT_EQ(lists(), 2);
  const auto all = events();
  EXPECT_EQ(
      std::multiset<std::string>(all.begin(), all.end()),
      (std::multiset<std::string>{"added a", "added b", "added c", "changed c", "added d", "deleted b"}));
  EXPECT_EQ(all.back(), "deleted b") << "deletes come at the end of the list";
}

TEST_F(InformerTest, ARefusedWatchListsAgain) {
  server_.put(a_volume("a"));
  const auto informer = make();
  start(*informer);
  server_.fail_next("watch", "persistentvolumes", Fault::answer(410, "Expired"));
  server_.break_watches();
  ASSERT_TRUE(server_.wait_until([&] { return lists() == 2; }));
  ASSERT_TRUE(watching());
  server_.put(a_volume("b"));
  ASSERT_TRUE(sees(*informer, "b"));
}

TEST_F(InformerTest, AWatchWaitsAsTheServerAsks) {
  server_.put(a_volume("a"));
  const auto informer = make();
  start(*informer);
  server_.fail_next("watch", "persistentvolumes",
                    Fault::answer(429, "TooManyRequests", {{"Retry-After", "1"}}));
  const auto began = std::chrono::steady_clock::now();
  server_.break_watches();
  ASSERT_TRUE(server_.wait_until([&] { return watches() == 3; }));
  EXPECT_GE(std::chrono::steady_clock::now() - began, seconds(1))
      << "not the reflector's own few milliseconds";
  EXPECT_EQ(lists(), 1);
}

TEST_F(InformerTest, AServerThatRefusesTheResumePointAgainAndAgainIsListed) {
  server_.put(a_volume("a"));
  const auto informer = make();
  start(*informer);
  server_.fail_next("watch", "persistentvolumes", Fault::answer(500, "InternalError"), 5);
  server_.break_watches();
  ASSERT_TRUE(server_.wait_until([&] { return lists() == 2; }));
  EXPECT_GE(watches(), 6);
  ASSERT_TRUE(watching());
}

TEST_F(InformerTest, APageThatExpiresHalfWayStartsTheListOverAndDeletesNothing) {
  for (int i = 0; i < 10; ++i) server_.put(a_volume("v" + std::to_string(i)));
  ReflectorOptions options = quick();
  options.selector.page_size = 4;
  const auto informer = make(options);
  start(*informer);
  EXPECT_EQ(informer->size(), 10u);
  int pages = 0;
  server_.on_request([&](const ApiRequest& request) {
    if (request.verb == "list" && request.query.contains("continue") && ++pages == 1)
      return Fault::answer(410, "Expired");
    return Fault{};
  });
  server_.silence_watches(true);
  server_.erase(kPersistentVolumes, "v3");
  server_.compact();
  server_.end_watches();
  server_.silence_watches(false);
  ASSERT_TRUE(gone(*informer, "v3"));
  EXPECT_EQ(informer->size(), 9u);
  const auto all = events();
  EXPECT_EQ(std::count_if(all.begin(), all.end(),
                          [](const std::string& each) { return each.starts_with("deleted"); }),
            1);
}

TEST_F(InformerTest, ASilentWatchIsDroppedAndResumed) {
  server_.put(a_volume("a"));
  ReflectorOptions options = quick();
  options.idle_timeout = milliseconds(1200);
  const auto informer = make(options);
  start(*informer);
  const int before = watches();
  server_.silence_watches(true);
  server_.put(a_volume("b"));
  ASSERT_TRUE(server_.wait_until([&] { return watches() > before; })) << "dropped";
  server_.silence_watches(false);
  ASSERT_TRUE(sees(*informer, "b"));
  EXPECT_EQ(lists(), 1) << "resumed, not listed";
}

TEST_F(InformerTest, HalfAnEventIsReadAgain) {
  server_.put(a_volume("a"));
  const auto informer = make();
  start(*informer);
  server_.fail_next("watch", "persistentvolumes", Fault::half_body());
  server_.break_watches();
  server_.put(a_volume("b"));
  ASSERT_TRUE(sees(*informer, "b"));
  EXPECT_EQ(lists(), 1);
  EXPECT_THAT(events(), ElementsAre("added a", "added b"));
}

TEST_F(InformerTest, WaitsWhileTheServerIsAway) {
  server_.put(a_volume("a"));
  server_.fail_next("list", "persistentvolumes", Fault::answer(500, "InternalError"), 8);
  const auto informer = make();
  informer->start(context_);
  EXPECT_EQ(informer->wait_synced(context_.with_timeout(milliseconds(1))).code(),
            absl::StatusCode::kDeadlineExceeded);
  ASSERT_TRUE(informer->wait_synced(context_.with_timeout(seconds(20))).ok());
  EXPECT_EQ(informer->size(), 1u);
}

TEST_F(InformerTest, AnUnreadableObjectIsSkipped) {
  server_.put(a_volume("a"));
  Json bad = a_volume("bad").json();
  bad["metadata"]["uid"] = 7;
  server_.put(bad);
  const auto informer = make();
  start(*informer);
  EXPECT_EQ(informer->size(), 1u);
  server_.put(a_volume("c"));
  EXPECT_TRUE(sees(*informer, "c"));
}

TEST_F(InformerTest, IndexesFollowTheObjects) {
  const auto informer = make();
  informer->add_index(
      "class", [](const Volume& volume) { return std::vector<std::string>{volume.storage_class.str()}; });
  server_.put(a_volume("a").of_class("fast"));
  server_.put(a_volume("b").of_class("slow"));
  server_.put(a_volume("c").of_class(""));
  start(*informer);
  EXPECT_EQ(informer->by_index("class", "fast").size(), 1u);
  EXPECT_EQ(informer->by_index("class", "").size(), 0u) << "empty values are left out";
  EXPECT_EQ(informer->by_index("no such index", "fast").size(), 0u);
  server_.put(a_volume("a").of_class("slow"));
  ASSERT_TRUE(server_.wait_until([&] { return informer->by_index("class", "slow").size() == 2; }));
  EXPECT_EQ(informer->by_index("class", "fast").size(), 0u);
  server_.erase(kPersistentVolumes, "b");
  ASSERT_TRUE(gone(*informer, "b"));
  ASSERT_EQ(informer->by_index("class", "slow").size(), 1u);
  EXPECT_EQ(informer->by_index("class", "slow")[0]->meta.name, "a");
}

TEST_F(InformerTest, OurOwnWriteIsSeenAtOnceAndItsEventIsNoChange) {
  const auto informer = make();
  start(*informer);
  server_.silence_watches(true);
  const auto made = client_->create(context_, kPersistentVolumes, "",
                                    a_volume("mine").set("/metadata/uid", nullptr).json());
  ASSERT_TRUE(made.ok()) << made.status();
  informer->observe(*made);
  ASSERT_NE(informer->get("mine"), nullptr);
  server_.silence_watches(false);
  server_.put(a_volume("next"));
  ASSERT_TRUE(sees(*informer, "next"));
  EXPECT_THAT(events(), ElementsAre("added mine", "added next"));
}

TEST_F(InformerTest, AnOlderEventDoesNotUndoOurWrite) {
  const Json old = server_.put(a_volume("a"));
  const auto informer = make();
  start(*informer);
  server_.silence_watches(true);
  server_.put(a_volume("a").bound());
  const Json mine = server_.put(a_volume("a").released());
  informer->observe(mine);
  server_.silence_watches(false);
  server_.put(a_volume("b"));
  ASSERT_TRUE(sees(*informer, "b"));
  EXPECT_EQ(informer->get("a")->phase, "Released");
  informer->observe(old);
  EXPECT_EQ(informer->get("a")->phase, "Released");
  EXPECT_THAT(events(), ElementsAre("added a", "changed a", "added b"));
}

TEST_F(InformerTest, ALateAnswerDoesNotBringBackWhatWasDeleted) {
  const auto informer = make();
  start(*informer);
  const Json mine = server_.put(a_volume("a"));
  ASSERT_TRUE(sees(*informer, "a"));
  server_.erase(kPersistentVolumes, "a");
  ASSERT_TRUE(gone(*informer, "a"));
  informer->observe(mine);  // the thread that wrote it was slow
  EXPECT_EQ(informer->get("a"), nullptr);
}

TEST_F(InformerTest, ForgetTakesOutAtOnce) {
  server_.put(a_volume("a"));
  const auto informer = make();
  start(*informer);
  server_.silence_watches(true);
  server_.erase(kPersistentVolumes, "a");
  informer->forget("a");
  EXPECT_EQ(informer->get("a"), nullptr);
  server_.silence_watches(false);
  server_.put(a_volume("b"));
  ASSERT_TRUE(sees(*informer, "b"));
  EXPECT_THAT(events(), ElementsAre("added a", "deleted a", "added b"));
}

// What a list under way does with writes of our own that happen at the same time, without a server.
TEST(Informer, AListUnderWayAndOurOwnWrites) {
  FakeApiServer server;
  const auto client = server.client();
  Informer<Volume> informer(*client);
  informer.begin_relist();
  ASSERT_TRUE(informer.upsert(a_volume("old").version(5).json()).ok());
  informer.position("10");
  informer.end_relist();

  informer.begin_relist();
  ASSERT_TRUE(informer.upsert(a_volume("old").version(5).json()).ok());
  informer.observe(a_volume("ghost").version(15).json());   // written and deleted before the list was taken
  informer.observe(a_volume("newer").version(25).json());   // written after it was taken
  informer.observe(a_volume("listed").version(18).json());  // and one that the list shows later
  ASSERT_TRUE(informer.upsert(a_volume("listed").version(18).json()).ok());
  informer.position("20");
  informer.end_relist();
  EXPECT_NE(informer.get("old"), nullptr);
  EXPECT_EQ(informer.get("ghost"), nullptr);
  EXPECT_NE(informer.get("newer"), nullptr);
  EXPECT_NE(informer.get("listed"), nullptr);
}

// Only then is the copy as good as the server: not amid a list, nor while what the list did not show is still
// being taken out.
TEST(Informer, IsCaughtUpWithOnceAllOfItIsInTheCopy) {
  FakeApiServer server;
  const auto client = server.client();
  Informer<Volume> informer(*client);
  const auto caught_up = [&](uint64_t version, milliseconds at_most = milliseconds(0)) {
    return informer.wait_for(version, at_most, {});
  };
  informer.add_handler([&](const Informer<Volume>::Object&, const Informer<Volume>::Object& after) {
    EXPECT_TRUE(after != nullptr || !caught_up(20));
  });
  EXPECT_FALSE(caught_up(1));
  informer.begin_relist();
  for (const char* name : {"a", "b"}) ASSERT_TRUE(informer.upsert(a_volume(name).version(5).json()).ok());
  informer.position("10");
  EXPECT_FALSE(caught_up(10));
  std::jthread waits([&] { EXPECT_TRUE(caught_up(10, seconds(30))); });
  informer.end_relist();
  waits.join();
  EXPECT_FALSE(caught_up(11));
  waits = std::jthread([&] { EXPECT_TRUE(caught_up(12, seconds(30))); });
  ASSERT_TRUE(informer.upsert(a_volume("a").version(12).json()).ok());
  waits.join();
  waits = std::jthread([&] { EXPECT_TRUE(caught_up(15, seconds(30))); });
  informer.position("15");
  waits.join();
  informer.begin_relist();  // both were deleted while no watch ran
  informer.position("20");
  informer.end_relist();
  EXPECT_EQ(informer.size(), 0u);
  EXPECT_TRUE(caught_up(20));
}

TEST(Informer, ADeleteOfAnEarlierObjectLeavesItsSuccessor) {
  FakeApiServer server;
  const auto client = server.client();
  Informer<Volume> informer(*client);
  informer.begin_relist();
  ASSERT_TRUE(informer.upsert(a_volume("a").version(5).json()).ok());
  informer.position("10");
  informer.end_relist();
  informer.observe(a_volume("a").uid("second").version(14).json());
  informer.remove(a_volume("a").version(12).json());
  ASSERT_NE(informer.get("a"), nullptr);
  EXPECT_EQ(informer.get("a")->meta.uid, "second");
}

// The copy and the server agree in the end, whatever happens to the connection in between.
TEST_F(InformerTest, AgreesWithTheServerAfterAnyTrouble) {
  const auto informer = make();
  start(*informer);
  for (int i = 0; i < 400; ++i) {
    const std::string name = "v" + std::to_string(base::random_uint64() % 30);
    switch (base::random_uint64() % 12) {
      case 0:
        server_.break_watches();
        break;
      case 1:
        server_.end_watches();
        break;
      case 2:
        server_.compact();
        break;
      case 3:
        server_.fail_next("watch", "persistentvolumes", Fault::half_body());
        break;
      case 4:
        server_.fail_next("list", "persistentvolumes", Fault::drop_before());
        break;
      case 5:
      case 6:
      case 7:
        server_.erase(kPersistentVolumes, name);
        break;
      case 8:
        informer->observe(server_.put(a_volume(name).bound()));
        break;
      default:
        server_.put(a_volume(name).set("/spec/csi/fsType", std::to_string(i)));
    }
  }
  server_.clear_faults();
  auto agree = [&] {
    const auto real = server_.list(kPersistentVolumes);
    if (real.size() != informer->size()) return false;
    return std::all_of(real.begin(), real.end(), [&](const Json& each) {
      const auto copy = informer->get(base::get_string(each, "/metadata/name"));
      return copy && copy->meta.resource_version == base::get_string(each, "/metadata/resourceVersion");
    });
  };
  EXPECT_TRUE(server_.wait_until(agree));
}

}  // namespace
}  // namespace collage::kube
