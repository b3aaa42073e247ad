// The operator's side and the node's side of a StorageNode, over one API server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <latch>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/json.h"
#include "drivers/codec.h"
#include "operator/engine/operation_text.h"
#include "operator/kube/events.h"
#include "operator/reconcile/node_agent.h"
#include "operator/reconcile/storage_node_controller.h"
#include "operator/reconcile/storage_node_operations.h"
#include "operator/reconcile/world.h"
#include "unit/reconcile/stand_in_agent.h"
#include "unit/testing/builders.h"
#include "unit/testing/fake_api_server.h"
#include "unit/testing/fake_clock.h"
#include "unit/testing/fake_driver.h"

namespace collage::reconcile {
namespace {

using base::Json;
using testing::FakeApiServer;
using testing::FakeDriver;
using testing::StandInAgent;

class NodeLink : public ::testing::Test {
 protected:
  NodeLink() : client_(server_.client()), events_(*client_, "test", "test") {
    server_.put(testing::a_node("node-a"));
    server_.put(testing::a_backend("share").kind("fake", {{"size", 1}}));
  }
  ~NodeLink() override { stop(); }

  void start_operator() { start_operator(context_); }
  void start_operator(const base::Context& of_operations) {
    world_ = std::make_unique<World>(*client_, events_, kinds_, "collage-system");
    operations_ = std::make_unique<StorageNodeOperations>(*world_);
    nodes_ = std::make_unique<StorageNodeController>(*world_);
    world_->start(context_);
    ASSERT_TRUE(world_->wait_synced(context_).ok());
    nodes_->start(context_);
    operations_->start(of_operations);
  }
  void start_node() {
    link_ = std::make_unique<NodeAgent>(*client_, agent_, kinds_, "node-a", "0.1.0");
    link_->start(context_);
  }
  void stop_operator() {
    if (operations_) operations_->stop();
    if (nodes_) nodes_->stop();
    if (world_) world_->stop();
    operations_.reset();
    nodes_.reset();
    world_.reset();
  }
  void stop() {
    if (link_) link_->stop();
    link_.reset();
    stop_operator();
  }
  // Both sides run and know each other.
  void start() { start(context_); }
  void start(const base::Context& of_operations) {
    start_operator(of_operations);
    start_node();
    ASSERT_TRUE(server_.wait_until([&] { return operations_->ready_nodes("share").size() == 1; }));
  }
  absl::StatusOr<Json> call(drivers::Verb verb, const Json& arguments) {
    return operations_->run(context_.with_timeout(std::chrono::seconds(10)), "node-a", "share", verb,
                            arguments, engine::NodeOperations::kAnySilence);
  }
  Json storage_node() const { return server_.get(kube::kStorageNodes, "node-a").value_or(Json()); }
  // Comes to be so: its list is empty.
  bool nothing_is_asked() {
    return server_.wait_until([this] {
      const Json node = storage_node();
      const Json* asked = base::find(node, "/spec/operations");
      return asked != nullptr && asked->empty();
    });
  }

  static std::vector<drivers::Kind> kinds() {
    auto kind = testing::fake_kind();
    kind.validate = [](const Json&) { return absl::OkStatus(); };
    return {kind};
  }

  FakeApiServer server_;
  std::unique_ptr<kube::Client> client_;
  kube::EventRecorder events_;
  const std::vector<drivers::Kind> kinds_ = kinds();
  FakeDriver driver_;
  StandInAgent agent_{driver_};
  const base::Context context_;
  std::unique_ptr<World> world_;
  std::unique_ptr<StorageNodeOperations> operations_;
  std::unique_ptr<StorageNodeController> nodes_;
  std::unique_ptr<NodeAgent> link_;
};

Json create_arguments(const std::string& name) {
  drivers::CreateRequest request{.name = name, .required_bytes = 1 << 20};
  request.capabilities = {{.fs_type = "ext4"}};
  return drivers::to_json(request);
}

TEST_F(NodeLink, EveryNodeHasAStorageNodeUntilItIsGoneAndNothingIsAttachedThere) {
  start_operator();
  ASSERT_TRUE(server_.wait_until([&] { return server_.get(kube::kStorageNodes, "node-a").has_value(); }));
  server_.put(testing::an_attachment("volume", "node-a").of_driver("fake.collage.storage").attached());
  ASSERT_TRUE(server_.wait_until([&] { return world_->attachments.size() == 1; }));
  server_.erase(kube::kNodes, "node-a");
  ASSERT_TRUE(server_.wait_until([&] { return world_->nodes.size() == 0; }));
  EXPECT_TRUE(server_.get(kube::kStorageNodes, "node-a").has_value());
  server_.erase(kube::kVolumeAttachments, "csi-volume-node-a");
  EXPECT_TRUE(server_.wait_until([&] { return !server_.get(kube::kStorageNodes, "node-a").has_value(); }));
}

TEST_F(NodeLink, ACallIsCarriedOutByTheNodeAndItsResultComesBack) {
  start();
  auto made = call(drivers::Verb::kCreate, create_arguments("pvc-1"));
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(driver_.volumes().size(), 1u);
  EXPECT_EQ(base::get_string(*made, "/name"), "pvc-1");
  auto found = call(drivers::Verb::kFind, {{"name", "pvc-2"}});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_TRUE(found->is_null()) << "nothing found is not an error";
}

TEST_F(NodeLink, TheDriversOwnErrorComesBackWithItsCodeAndMessage) {
  start();
  driver_.fail_before(drivers::Verb::kCreate, absl::ResourceExhaustedError("no room: 5 MiB are left"));
  auto made = call(drivers::Verb::kCreate, create_arguments("pvc-1"));
  EXPECT_TRUE(absl::IsResourceExhausted(made.status())) << made.status();
  EXPECT_EQ(made.status().message(), "no room: 5 MiB are left");
}

// One that the API server would refuse must not keep all the others from being told.
TEST_F(NodeLink, ALongAnswerIsCutOrAnError) {
  start();
  driver_.fail_before(drivers::Verb::kCreate, absl::InternalError(std::string(300 << 10, 'x')));
  const auto failed = call(drivers::Verb::kCreate, create_arguments("pvc-1"));
  EXPECT_TRUE(absl::IsInternal(failed.status()));
  EXPECT_EQ(failed.status().message(), std::string(4096, 'x'));
  const drivers::Volume large{
      .id = "vol-large", .name = "large", .context = {{"key", std::string(300 << 10, 'x')}}};
  driver_.put(large);
  const auto found = call(drivers::Verb::kFind, {{"name", "large"}});
  EXPECT_TRUE(absl::IsUnavailable(found.status()));
  EXPECT_NE(found.status().message().find("that a StorageNode can carry"), std::string::npos);
}

TEST_F(NodeLink, OperationsLeaveTheListWhenTheyAreDone) {
  start();
  ASSERT_TRUE(call(drivers::Verb::kCreate, create_arguments("pvc-1")).ok());
  EXPECT_TRUE(server_.wait_until([&] {
    const Json node = storage_node();
    const Json* asked = base::find(node, "/spec/operations");
    const Json* answers = base::find(node, "/status/operations");
    return (asked == nullptr || asked->empty()) && (answers == nullptr || answers->empty());
  })) << storage_node();
}

TEST_F(NodeLink, ManyCallsShareFewWrites) {
  start();
  ASSERT_TRUE(call(drivers::Verb::kCreate, create_arguments("warm")).ok());
  server_.reset_counts();
  constexpr int kCalls = 200;
  std::atomic<int> failed = 0;
  {
    std::vector<std::jthread> callers;
    for (int t = 0; t < 40; ++t) {
      callers.emplace_back([&, t] {
        for (int i = 0; i < kCalls / 40; ++i) {
          if (!call(drivers::Verb::kCreate,
                    create_arguments("pvc-" + std::to_string(t) + "-" + std::to_string(i)))
                   .ok())
            ++failed;
        }
      });
    }
  }
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(driver_.volumes().size(), kCalls + 1u);
  EXPECT_LE(server_.writes("storagenodes"), kCalls / 2) << "at most half a write a call, both sides together";
  for (const auto& request : server_.requests("patch", "storagenodes")) {
    const Json patch = base::parse_json(request.body).value_or(Json::object());
    if (const Json* list = base::find(patch, "/spec/operations")) {
      EXPECT_LE(list->size(), StorageNodeOperations::kMaxOpen);
    }
  }
}

// Calls of one verb that the node begins and does not end before it is told to.
class Stuck {
 public:
  Stuck(FakeDriver& driver, drivers::Verb verb) {
    driver.before([this, verb](const base::Context&, drivers::Verb now, const std::string&) {
      if (now == verb) {
        ++begun_;
        begun_.notify_all();
        open_.wait(false);
      }
      return absl::OkStatus();
    });
  }
  ~Stuck() { let_go(); }
  void wait_for(int count) {
    for (int begun = begun_; begun < count; begun = begun_) begun_.wait(begun);
  }
  void let_go() {
    open_ = true;
    open_.notify_all();
  }

 private:
  std::atomic<int> begun_ = 0;
  std::atomic<bool> open_ = false;
};

TEST_F(NodeLink, ACallEndsAsSoonAsItsNodeIsKnownToBeAway) {
  struct Case {
    std::function<void()> change;
    std::string says;
  };
  const Case cases[] = {
      {[&] { server_.put(testing::a_node("node-a").not_ready()); }, "is not Ready"},
      {[&] { server_.put(testing::a_node("node-a").taint("node.kubernetes.io/out-of-service")); },
       "out-of-service"},
      {[&] { server_.erase(kube::kNodes, "node-a"); }, "node-a"},
  };
  Stuck stuck(driver_, drivers::Verb::kFind);
  start();
  int count = 0;
  for (const Case& c : cases) {
    absl::Status status;
    std::jthread caller([&] {
      status = call(drivers::Verb::kFind, {{"name", "pvc-" + std::to_string(count)}}).status();
    });
    stuck.wait_for(count + 1);
    c.change();
    caller.join();
    ++count;
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_NE(status.message().find(c.says), std::string::npos) << status;
    EXPECT_TRUE(operations_->agent_nodes().empty());
    server_.put(testing::a_node("node-a"));
    ASSERT_TRUE(server_.wait_until([&] { return operations_->ready_nodes("share").size() == 1; }));
  }
  stuck.let_go();
  stop();
}

TEST_F(NodeLink, ANodeWhoseAgentHasEndedIsNotAsked) {
  agent_.set_registered();
  server_.put(testing::a_csi_node("node-a").driver("fake.collage.storage", "node-a"));
  start();
  ASSERT_TRUE(call(drivers::Verb::kFind, {{"name", "pvc-1"}}).ok());
  server_.put(testing::a_csi_node("node-a").driver("other.csi.example.com", "node-a"));
  ASSERT_TRUE(server_.wait_until([&] { return operations_->agent_nodes().empty(); }));
  EXPECT_TRUE(operations_->ready_nodes("share").empty());
  const auto status = call(drivers::Verb::kFind, {{"name", "pvc-1"}}).status();
  EXPECT_NE(status.message().find("so its agent has ended"), std::string::npos) << status;
  server_.put(testing::a_csi_node("node-a").driver("fake.collage.storage", "node-a"));
  EXPECT_TRUE(server_.wait_until([&] { return operations_->ready_nodes("share").size() == 1; }));
}

// Real time, and what a test adds to it.
class HastyClock final : public base::Clock {
 public:
  Monotonic now() const override { return real().now() + ahead.load(); }
  std::chrono::nanoseconds boot_time() const override { return real().boot_time() + ahead.load(); }
  Wall wall() const override { return real().wall(); }
  bool sleep_until(std::stop_token stop, Monotonic until) const override {
    return real().sleep_until(std::move(stop), until - ahead.load());
  }
  std::atomic<std::chrono::nanoseconds> ahead{};
};

TEST_F(NodeLink, ANodeThatIsBusyWithOneCallAndAnswersOthersIsNotSilent) {
  constexpr std::chrono::seconds kSilence(30);
  HastyClock clock;
  const base::Context hasty(std::stop_token(), clock);
  Stuck stuck(driver_, drivers::Verb::kCreate);
  start(hasty);
  absl::Status status;
  std::atomic<bool> ended = false;
  std::jthread caller([&] {
    status = operations_
                 ->run(hasty, "node-a", "share", drivers::Verb::kCreate, create_arguments("pvc-1"), kSilence)
                 .status();
    ended = true;
  });
  stuck.wait_for(1);
  for (const char* other : {"pvc-2", "pvc-3"}) {
    clock.ahead = clock.ahead.load() + kSilence * 2 / 3;
    ASSERT_TRUE(call(drivers::Verb::kFind, {{"name", other}}).ok());
  }
  EXPECT_FALSE(server_.wait_until([&] { return ended.load(); }, std::chrono::seconds(1)));
  stuck.let_go();
  caller.join();
  EXPECT_TRUE(status.ok()) << status;
  stop();
}

TEST_F(NodeLink, ANodeThatAnswersNothingIsSilent) {
  Stuck stuck(driver_, drivers::Verb::kCreate);
  start();
  testing::FakeClock clock;
  absl::Status status;
  std::atomic<bool> ended = false;
  std::jthread caller([&] {
    const base::Context patient(std::stop_token(), clock);
    status = operations_
                 ->run(patient, "node-a", "share", drivers::Verb::kCreate, create_arguments("pvc-1"),
                       std::chrono::seconds(5))
                 .status();
    ended = true;
  });
  stuck.wait_for(1);
  EXPECT_FALSE(server_.wait_until([&] { return ended.load(); }, std::chrono::seconds(1)))
      << "no time has passed";
  clock.advance(std::chrono::seconds(6));
  caller.join();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_NE(status.message().find("answered nothing at all"), std::string::npos) << status;
  stuck.let_go();
  stop();
}

TEST_F(NodeLink, EqualCallsThatWaitTogetherAreOne) {
  start();
  std::latch inside(1), go_on(1);
  std::atomic<bool> first = true;
  driver_.before([&](const base::Context&, drivers::Verb verb, const std::string&) {
    if (verb == drivers::Verb::kCreate && first.exchange(false)) {
      inside.count_down();
      go_on.wait();
    }
    return absl::OkStatus();
  });
  std::atomic<int> fine = 0;
  std::jthread one([&] { fine += call(drivers::Verb::kCreate, create_arguments("pvc-1")).ok(); });
  inside.wait();
  std::jthread two([&] { fine += call(drivers::Verb::kCreate, create_arguments("pvc-1")).ok(); });
  // The second joins the first whenever it comes; let it come before the first ends.
  EXPECT_TRUE(server_.wait_until([&] { return true; }));
  go_on.count_down();
  one.join();
  two.join();
  EXPECT_EQ(fine, 2);
  EXPECT_EQ(driver_.volumes().size(), 1u);
}

TEST_F(NodeLink, CallsOnOneVolumeNeverRunAtOnce) {
  start();
  std::atomic<int> inside = 0, most = 0;
  driver_.before([&](const base::Context&, drivers::Verb verb, const std::string&) {
    if (verb != drivers::Verb::kCreate) return absl::OkStatus();  // the agent measures the room meanwhile
    const int now = ++inside;
    int seen = most.load();
    while (now > seen && !most.compare_exchange_weak(seen, now)) {
    }
    return absl::OkStatus();
  });
  driver_.after([&](const base::Context&, drivers::Verb verb, const std::string&) {
    if (verb == drivers::Verb::kCreate) --inside;
    return absl::OkStatus();
  });
  {
    std::vector<std::jthread> callers;
    for (int i = 0; i < 8; ++i) {
      callers.emplace_back([&, i] {
        // Different sizes: different calls on one name.
        Json arguments = create_arguments("pvc-1");
        arguments["limitBytes"] = (2 << 20) + i;
        (void)call(drivers::Verb::kCreate, arguments);
      });
    }
  }
  EXPECT_EQ(most, 1);
}

TEST_F(NodeLink, AnOldAnswerIsNeverTakenForANewOne) {
  start();
  ASSERT_TRUE(call(drivers::Verb::kCreate, create_arguments("pvc-1")).ok());
  ASSERT_TRUE(call(drivers::Verb::kRemove, {{"id", "vol-pvc-1"}}).ok());
  ASSERT_TRUE(call(drivers::Verb::kCreate, create_arguments("pvc-1")).ok());
  EXPECT_EQ(driver_.volumes().size(), 1u) << "the second create was really carried out";
}

TEST_F(NodeLink, ANodeWithoutAnAgentOrNotReadyIsSaidSo) {
  start_operator();
  ASSERT_TRUE(server_.wait_until([&] { return world_->storage_nodes.size() == 1; }));
  auto none = call(drivers::Verb::kFind, {{"name", "x"}});
  EXPECT_TRUE(absl::IsUnavailable(none.status()));
  EXPECT_THAT(std::string(none.status().message()), ::testing::HasSubstr("node-a runs no Collage agent"));
  start_node();
  ASSERT_TRUE(server_.wait_until([&] { return operations_->ready_nodes("share").size() == 1; }));
  server_.put(testing::a_node("node-a").not_ready());
  ASSERT_TRUE(server_.wait_until([&] { return operations_->ready_nodes("share").empty(); }));
  EXPECT_THAT(std::string(call(drivers::Verb::kFind, {{"name", "x"}}).status().message()),
              ::testing::HasSubstr("not Ready"));
}

TEST_F(NodeLink, TheNextOperatorDropsWhatNobodyWaitsForAndAsksAnew) {
  start();
  std::latch inside(1), go_on(1);
  std::atomic<bool> first = true;
  driver_.before([&](const base::Context&, drivers::Verb verb, const std::string&) {
    if (verb == drivers::Verb::kCreate && first.exchange(false)) {
      inside.count_down();
      go_on.wait();
    }
    return absl::OkStatus();
  });
  std::jthread caller([&] { EXPECT_FALSE(call(drivers::Verb::kCreate, create_arguments("pvc-1")).ok()); });
  inside.wait();
  operations_->stop();
  caller.join();
  stop_operator();
  start_operator();
  ASSERT_TRUE(server_.wait_until([&] { return operations_->ready_nodes("share").size() == 1; }));
  std::jthread again([&] { EXPECT_TRUE(call(drivers::Verb::kCreate, create_arguments("pvc-1")).ok()); });
  // The node is still at the first call: the second waits for it.
  ASSERT_TRUE(server_.wait_until([&] {
    const Json node = storage_node();
    const Json* asked = base::find(node, "/spec/operations");
    return asked != nullptr && asked->size() == 1;
  }));
  go_on.count_down();
  again.join();
  EXPECT_EQ(driver_.volumes().size(), 1u);
}

// Its operator is dead, and the next one may have removed the volume since.
TEST_F(NodeLink, WhatIsTakenOffTheListBeforeItBeganIsNotBegun) {
  const auto create = [](const std::string& id, const std::string& name) {
    return base::dump_json(
        {{"id", id}, {"backend", "share"}, {"verb", "create"}, {"arguments", create_arguments(name)}});
  };
  const auto ask = [&](Json operations) {
    server_.update(kube::kStorageNodes, "node-a",
                   [&](Json& object) { object["spec"]["operations"] = std::move(operations); });
  };
  std::latch inside(1), go_on(1);
  std::atomic<bool> first = true;
  driver_.before([&](const base::Context&, drivers::Verb verb, const std::string&) {
    if (verb == drivers::Verb::kCreate && first.exchange(false)) {
      inside.count_down();
      go_on.wait();
    }
    return absl::OkStatus();
  });
  server_.put(testing::a_storage_node("node-a").set("/spec", Json::object()));
  start_node();
  ask({create("dead-1", "pvc-1")});
  inside.wait();
  ask({create("dead-1", "pvc-1"), create("dead-2", "pvc-1")});  // it waits for the first
  ask({create("next-1", "pvc-2")});
  const bool answered = server_.wait_until([&] {
    const Json node = storage_node();
    return base::get_string(node, "/status/operations/0").find("\"next-1\"") != std::string::npos;
  });
  go_on.count_down();
  ASSERT_TRUE(answered);
  link_->stop();  // what has begun comes to its end
  EXPECT_EQ(driver_.calls(drivers::Verb::kCreate), 2);
}

// The operator may have acted on the answer: carried out again, a create would leave a volume behind.
TEST_F(NodeLink, WhatWasAnsweredBeforeTheAgentRestartedIsNotCarriedOutAgain) {
  const auto create = [](const std::string& id, const std::string& name) {
    return base::dump_json(
        {{"id", id}, {"backend", "share"}, {"verb", "create"}, {"arguments", create_arguments(name)}});
  };
  server_.put(testing::a_storage_node("node-a")
                  .set("/spec", {{"operations", {create("op-1", "pvc-gone"), create("op-2", "pvc-2")}}})
                  .set("/status", {{"operations", {R"({"id":"op-1","code":"OK"})"}}}));
  start_node();
  ASSERT_TRUE(server_.wait_until([&] {
    return engine::operations_in(storage_node(), engine::kAnswers).size() == 2;
  })) << storage_node();
  EXPECT_EQ(driver_.calls(drivers::Verb::kCreate), 1);
  EXPECT_EQ(base::get_string(engine::operations_in(storage_node(), engine::kAnswers)[0], "/code"), "OK");
}

TEST_F(NodeLink, WhatAnEarlierOperatorAskedForLeavesEveryNodeThoughNobodyCallsIt) {
  // Left by an operator that was killed: an agent that starts later would carry it out again.
  server_.put(testing::a_storage_node("node-a").set(
      "/spec", {{"operations",
                 {R"({"id":"dead-1","backend":"share","verb":"create","arguments":{}})",
                  "nothing that can be read"}}}));
  start_operator();
  EXPECT_TRUE(nothing_is_asked()) << storage_node();
}

TEST_F(NodeLink, AlsoWhenItIsALongListThatWasPacked) {
  std::vector<std::string> many;
  for (int i = 0; i < 100; ++i)
    many.push_back(
        base::dump_json({{"id", "dead-" + std::to_string(i)}, {"backend", "share"}, {"verb", "probe"}}));
  const Json packed = engine::list_of(many);
  ASSERT_EQ(packed.size(), 1u);
  server_.put(testing::a_storage_node("node-a").set("/spec", {{"operations", packed}}));
  start_operator();
  EXPECT_TRUE(nothing_is_asked()) << storage_node();
}

// What its node was asked for was lost with it, and somebody waits for the answer.
TEST_F(NodeLink, AStorageNodeThatIsMadeAnewIsAskedAgain) {
  const auto made = [](const std::string& uid) {
    return testing::a_storage_node("node-a")
        .uid(uid)
        .set("/spec", Json::object())
        .set("/status", {{"agentVersion", "0.1.0"}});
  };
  const auto asked = [this] { return engine::operations_in(storage_node(), engine::kOperations); };
  server_.put(made("first"));
  start_operator();
  absl::Status status = absl::UnknownError("not answered");
  std::jthread caller([&] { status = call(drivers::Verb::kFind, {{"name", "pvc-1"}}).status(); });
  ASSERT_TRUE(server_.wait_until([&] { return asked().size() == 1; }));
  server_.put(made("second"));
  ASSERT_TRUE(server_.wait_until([&] { return asked().size() == 1; })) << storage_node();
  EXPECT_EQ(base::get_string(storage_node(), "/metadata/uid"), "second");
  const std::string id = base::get_string(asked().front(), "/id");
  server_.update(kube::kStorageNodes, "node-a", [&](Json& node) {
    node["status"]["operations"] = engine::list_of({base::dump_json({{"id", id}, {"code", "OK"}})});
  });
  caller.join();
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(NodeLink, AStorageNodeThatWasDeletedIsFilledAgain) {
  start();
  server_.erase(kube::kStorageNodes, "node-a");
  EXPECT_TRUE(server_.wait_until([&] {
    return base::get_string(storage_node(), "/status/agentVersion") == "0.1.0" &&
           operations_->ready_nodes("share").size() == 1;
  })) << storage_node();
}

TEST_F(NodeLink, AWriteThatFailsIsTriedAgainAndNothingIsLost) {
  start();
  server_.fail_next("patch", "storagenodes", testing::Fault::answer(500, "InternalError"), 2);
  EXPECT_TRUE(call(drivers::Verb::kCreate, create_arguments("pvc-1")).ok());
  server_.fail_next("patch", "storagenodes", testing::Fault::drop_after(), 1);
  EXPECT_TRUE(call(drivers::Verb::kCreate, create_arguments("pvc-2")).ok());
  EXPECT_EQ(driver_.volumes().size(), 2u);
}

TEST_F(NodeLink, TheNodeTellsWhatChangesAndNothingElse) {
  start();
  ASSERT_TRUE(server_.wait_until([&] {
    return base::find(storage_node(), "/status/backends/0/capacity") != nullptr;
  })) << storage_node();
  server_.reset_counts();
  agent_.set_mounts(3);
  ASSERT_TRUE(server_.wait_until([&] { return base::get_int(storage_node(), "/status/mounts/held") == 3; }));
  agent_.set_mounts(3);
  agent_.set_mounts(3);
  EXPECT_EQ(server_.writes("storagenodes"), 1);
  EXPECT_EQ(base::get_string(storage_node(), "/status/agentVersion"), "0.1.0");
}

TEST_F(NodeLink, TheNodeReadsBackendsAndItsOwnStorageNodeAndNothingElse) {
  start_node();
  server_.put(testing::a_storage_node("node-a"));
  ASSERT_TRUE(server_.wait_until([&] { return link_->ready().ok(); })) << link_->ready();
  for (const auto& request : server_.requests()) {
    EXPECT_TRUE(request.resource == "storagebackends" || request.resource == "storagenodes")
        << request.verb << " " << request.resource;
    if (request.resource == "storagenodes" && !request.is_write()) {
      auto selector = request.query.find("fieldSelector");
      EXPECT_TRUE(selector != request.query.end() && selector->second == "metadata.name=node-a");
    }
    if (request.is_write()) {
      EXPECT_EQ(request.subresource, "status");
    }
  }
}

TEST_F(NodeLink, ABackendsBlockIsOneObjectAsLongAsItsContentIsTheSame) {
  start();
  const auto before = agent_.backends();
  ASSERT_EQ(before.size(), 1u);
  server_.update(kube::kStorageBackends, "share", [](Json& object) {
    object["spec"]["paused"] = true;
    object["metadata"]["generation"] = 2;
  });
  ASSERT_TRUE(server_.wait_until([&] { return agent_.told() >= 2; }));
  EXPECT_EQ(agent_.backends().front().block, before.front().block)
      << "or every status change would make a new driver";
}

}  // namespace
}  // namespace collage::reconcile
