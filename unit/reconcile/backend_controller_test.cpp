#include "operator/reconcile/backend_controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "operator/kube/events.h"
#include "operator/reconcile/config_map_intents.h"
#include "unit/testing/builders.h"
#include "unit/testing/fake_api_server.h"
#include "unit/testing/fake_driver.h"
#include "unit/testing/fake_nodes.h"

namespace collage::reconcile {
namespace {

using base::Json;
using testing::FakeApiServer;
using testing::Fault;
using ::testing::HasSubstr;

// Backends of the kind "fake", whose control half runs on any node; two nodes tell that they reach it.
class BackendControllerTest : public ::testing::Test {
 protected:
  BackendControllerTest() : client_(server_.client()), events_(*client_, "test", "test") {
    nodes_.add("node-a", driver_);
    nodes_.add("node-b", driver_);
  }
  ~BackendControllerTest() override { stop(); }

  static testing::FakeDriverOptions options() {
    testing::FakeDriverOptions options;
    options.info.control = drivers::ControlPlace::kAnyNode;
    options.system_id = "";
    return options;
  }
  static std::vector<drivers::Kind> kinds() {
    auto kind = testing::fake_kind(options());
    kind.validate = [](const Json& block) {
      return block.contains("directory") ? absl::OkStatus()
                                         : absl::InvalidArgumentError("spec.fake.directory: is needed");
    };
    return {kind};
  }
  static testing::BackendBuilder share() {
    return testing::a_backend("share").kind("fake", {{"directory", "/srv"}});
  }

  void start() {
    world_ = std::make_unique<World>(*client_, events_, kinds_, "collage-system");
    world_->cluster_id = "cluster-1";
    intents_ = std::make_unique<ConfigMapIntents>(*client_, "collage-system");
    controller_ = std::make_unique<BackendController>(*world_, nodes_, *intents_);
    controller_->on_usable([this](const std::string& backend) {
      std::lock_guard lock(mutex_);
      usable_.push_back(backend);
    });
    world_->start(context_);
    ASSERT_TRUE(world_->wait_synced(context_).ok());
    controller_->start(context_);
  }
  void stop() {
    if (controller_) controller_->stop();
    if (world_) world_->stop();
    controller_.reset();
    world_.reset();
  }
  // What the node's agent would write.
  void node_says(const std::string& node, const std::string& backend, bool ready,
                 const std::string& message = "", int64_t available = int64_t{6} << 30) {
    Json state = {{"name", backend}, {"ready", ready}, {"message", message}};
    if (ready) state["capacity"] = {{"totalBytes", int64_t{10} << 30}, {"availableBytes", available}};
    server_.put(testing::a_storage_node(node)
                    .set("/status", {{"agentVersion", "0.1.0"}, {"backends", Json::array({state})}})
                    .set("/spec", Json::object()));
  }
  void both_nodes_ready() {
    node_says("node-a", "share", true);
    node_says("node-b", "share", true);
  }
  std::optional<Json> backend(const std::string& name = "share") const {
    return server_.get(kube::kStorageBackends, name);
  }
  std::string condition(const std::string& type, const std::string& field = "status") const {
    const auto object = backend();
    const Json* list = object ? base::find(*object, "/status/conditions") : nullptr;
    if (list == nullptr) return "";
    for (const Json& condition : *list) {
      if (base::get_string(condition, "/type") == type) return base::get_string(condition, "/" + field);
    }
    return "";
  }
  bool becomes(const std::string& type, const std::string& status, const std::string& reason) const {
    return server_.wait_until(
        [&] { return condition(type) == status && condition(type, "reason") == reason; });
  }
  bool ready() const { return becomes("Ready", "True", "Ready"); }

  FakeApiServer server_;
  std::unique_ptr<kube::Client> client_;
  kube::EventRecorder events_;
  std::shared_ptr<testing::FakeDriver> driver_ = std::make_shared<testing::FakeDriver>(options());
  testing::FakeNodes nodes_;
  const std::vector<drivers::Kind> kinds_ = kinds();
  const base::Context context_;
  std::mutex mutex_;
  std::vector<std::string> usable_;
  std::unique_ptr<World> world_;
  std::unique_ptr<ConfigMapIntents> intents_;
  std::unique_ptr<BackendController> controller_;
};

TEST_F(BackendControllerTest, AGoodBackendGetsItsDriverItsClassesItsCapacityAndSaysReady) {
  both_nodes_ready();
  server_.put(share().with_class("fast", true));
  start();
  ASSERT_TRUE(ready()) << *backend();
  const Json object = *backend();
  EXPECT_NE(base::get_string(object, "/status/systemID"), "");
  EXPECT_EQ(base::get_string(object, "/status/clusterID"), "cluster-1");
  EXPECT_EQ(base::get_string(object, "/status/capacity/available"), "6 GiB");
  EXPECT_EQ(base::get_int(object, "/status/observedGeneration"),
            base::get_int(object, "/metadata/generation"));
  EXPECT_TRUE(server_.get(kube::kCsiDrivers, "fake.collage.storage").has_value());
  const auto made = server_.get(kube::kStorageClasses, "fast");
  ASSERT_TRUE(made.has_value());
  EXPECT_EQ(base::get_string(*made, "/parameters/backend"), "share");
  const auto rooms = server_.list(kube::kCsiStorageCapacities);
  ASSERT_EQ(rooms.size(), 1u);
  EXPECT_EQ(base::get_string(rooms[0], "/capacity"), "6Gi");
  EXPECT_EQ(base::get_string(rooms[0], "/storageClassName"), "fast");
  EXPECT_TRUE(server_.wait_until([&] { return controller_->settled().ok(); }));
  std::lock_guard lock(mutex_);
  EXPECT_THAT(usable_, ::testing::Contains("share"));
}

TEST_F(BackendControllerTest, TheMarkerIsPutOnceAndTheIdentityStays) {
  both_nodes_ready();
  server_.put(share());
  start();
  ASSERT_TRUE(ready());
  const std::string id = base::get_string(*backend(), "/status/systemID");
  EXPECT_EQ(driver_->calls(drivers::Verb::kProbe) > 0, true);
  const int probes = driver_->calls(drivers::Verb::kProbe);
  stop();
  start();
  ASSERT_TRUE(server_.wait_until([&] { return controller_->settled().ok(); }));
  EXPECT_EQ(driver_->calls(drivers::Verb::kProbe), probes)
      << "the identity is known: nothing is initialized again";
  EXPECT_EQ(base::get_string(*backend(), "/status/systemID"), id);
}

TEST_F(BackendControllerTest, AWrongSpecIsToldWithItsFieldAndMendedByThePerson) {
  both_nodes_ready();
  server_.put(testing::a_backend("share").kind("fake", Json::object()));
  start();
  ASSERT_TRUE(becomes("Ready", "False", "InvalidSpec"));
  EXPECT_THAT(condition("Ready", "message"), HasSubstr("spec.fake.directory"));
  EXPECT_TRUE(server_.wait_until([&] { return controller_->settled().ok(); }))
      << "a wrong backend holds up nobody";
  server_.update(kube::kStorageBackends, "share", [](Json& object) {
    object["spec"]["fake"]["directory"] = "/srv";
    object["metadata"]["generation"] = 2;
  });
  EXPECT_TRUE(ready());
}

TEST_F(BackendControllerTest, ANodeThatLacksTheShareIsNamedAndTheOthersGoOn) {
  node_says("node-a", "share", true);
  node_says("node-b", "share", false, "directory /srv is not the share of backend share: mount it there");
  server_.put(share());
  start();
  ASSERT_TRUE(becomes("Reachable", "False", "NodesLackStorage"));
  EXPECT_THAT(condition("Reachable", "message"), HasSubstr("node-b: directory /srv is not the share"));
  EXPECT_EQ(condition("Ready"), "True");
  EXPECT_TRUE(world_->backends.get("share")->ready.ok());
  node_says("node-b", "share", true);
  EXPECT_TRUE(becomes("Reachable", "True", "Reachable"));
}

TEST_F(BackendControllerTest, AClassThatIsNotOursIsLeftAloneAndNamed) {
  both_nodes_ready();
  server_.put(testing::a_class("fast").of_driver("other.example.com"));
  server_.put(share().with_class("fast"));
  start();
  ASSERT_TRUE(becomes("Ready", "False", "ClassConflict"));
  EXPECT_THAT(condition("Ready", "message"), HasSubstr("\"fast\""));
  EXPECT_EQ(base::get_string(*server_.get(kube::kStorageClasses, "fast"), "/provisioner"),
            "other.example.com");
  server_.erase(kube::kStorageClasses, "fast");
  EXPECT_TRUE(ready()) << "the name is free now";
}

TEST_F(BackendControllerTest, ASecondDefaultClassIsNotMadeTheDefault) {
  both_nodes_ready();
  server_.put(testing::a_class("standard").of_driver("other.example.com").is_default());
  server_.put(share().with_class("fast", true));
  start();
  ASSERT_TRUE(becomes("Ready", "False", "ClassConflict"));
  EXPECT_THAT(condition("Ready", "message"), HasSubstr("\"standard\""));
  const auto made = server_.get(kube::kStorageClasses, "fast");
  ASSERT_TRUE(made.has_value());
  EXPECT_EQ(base::get_string(*made, "/metadata/annotations/storageclass.kubernetes.io~1is-default-class"),
            "false");
}

TEST_F(BackendControllerTest, ADriftedClassIsSetRightAndADroppedOneIsRemoved) {
  both_nodes_ready();
  server_.put(share().with_class("fast").with_class("slow"));
  start();
  ASSERT_TRUE(ready());
  server_.update(kube::kStorageClasses, "fast", [](Json& object) { object["allowVolumeExpansion"] = true; });
  EXPECT_TRUE(server_.wait_until([&] {
    return base::get_bool(server_.get(kube::kStorageClasses, "fast").value_or(Json()),
                          "/allowVolumeExpansion", true) == false;
  }));
  server_.erase(kube::kStorageClasses, "fast");
  EXPECT_TRUE(server_.wait_until([&] { return server_.get(kube::kStorageClasses, "fast").has_value(); }));
  server_.update(kube::kStorageBackends, "share", [](Json& object) {
    object["spec"]["storageClasses"].erase(1);
    object["metadata"]["generation"] = 2;
  });
  EXPECT_TRUE(server_.wait_until([&] { return !server_.get(kube::kStorageClasses, "slow").has_value(); }));
  EXPECT_TRUE(server_.get(kube::kStorageClasses, "fast").has_value());
}

TEST_F(BackendControllerTest, AnImmutableChangeMakesTheClassAgainAndSaysSo) {
  both_nodes_ready();
  server_.put(share().with_class("fast"));
  start();
  ASSERT_TRUE(ready());
  server_.update(kube::kStorageBackends, "share", [](Json& object) {
    object["spec"]["storageClasses"][0]["reclaimPolicy"] = "Retain";
    object["metadata"]["generation"] = 2;
  });
  EXPECT_TRUE(server_.wait_until([&] {
    return base::get_string(server_.get(kube::kStorageClasses, "fast").value_or(Json()), "/reclaimPolicy") ==
           "Retain";
  }));
  events_.flush(context_.with_timeout(std::chrono::seconds(5)));
  bool told = false;
  for (const Json& event : server_.list(kube::kEvents))
    told = told || base::get_string(event, "/reason") == "StorageClassRecreated";
  EXPECT_TRUE(told);
}

TEST_F(BackendControllerTest, DeletionWaitsForTheVolumesAndSaysHowMany) {
  both_nodes_ready();
  server_.put(share().with_class("fast"));
  server_.put(testing::a_volume("pvc-1").of_driver("fake.collage.storage").handle("share/vol-1").bound());
  start();
  ASSERT_TRUE(ready());
  server_.remove(kube::kStorageBackends, "share");
  ASSERT_TRUE(becomes("Ready", "False", "Deleting"));
  EXPECT_THAT(condition("Ready", "message"), HasSubstr("1 PersistentVolumes"));
  EXPECT_FALSE(world_->backends.get("share")->ready.ok()) << "no new volumes";
  EXPECT_TRUE(server_.get(kube::kStorageClasses, "fast").has_value());
  server_.erase(kube::kPersistentVolumes, "pvc-1");
  EXPECT_TRUE(server_.wait_until([&] { return !backend().has_value(); }));
  EXPECT_FALSE(server_.get(kube::kStorageClasses, "fast").has_value());
  EXPECT_TRUE(server_.list(kube::kCsiStorageCapacities).empty());
}

// A claim that was refused for a limit waits until its backend is said to be usable.
TEST_F(BackendControllerTest, ARaisedLimitIsToldToWhoWaits) {
  both_nodes_ready();
  server_.put(share().limits({{"maxVolumes", 1}}).generation(1));
  start();
  ASSERT_TRUE(ready());
  const auto told = [&] {
    std::lock_guard lock(mutex_);
    return usable_.size();
  };
  ASSERT_TRUE(server_.wait_until([&] { return told() > 0; }));
  const size_t before = told();
  server_.update(kube::kStorageBackends, "share", [](Json& object) {
    object["spec"]["limits"]["maxVolumes"] = 2;
    object["metadata"]["generation"] = 2;
  });
  EXPECT_TRUE(server_.wait_until([&] { return told() > before; }));
  EXPECT_EQ(world_->backends.get("share")->spec.limits.max_volumes, 2);
}

TEST_F(BackendControllerTest, ABackendThatGoesCountsItsIntentsThoughItsSpecIsWrong) {
  server_.put(testing::a_backend("share")
                  .kind("fake", Json::object())  // no directory
                  .finalizer("collage.storage/backend"));
  server_.put({{"apiVersion", "v1"},
               {"kind", "ConfigMap"},
               {"metadata", {{"name", "collage-intents-share"}, {"namespace", "collage-system"}}},
               {"data", {{"uid-data", "{}"}}}});
  start();
  ASSERT_TRUE(server_.wait_until([&] { return condition("Ready") == "False"; }));
  server_.remove(kube::kStorageBackends, "share");
  ASSERT_TRUE(becomes("Ready", "False", "Deleting"));
  EXPECT_THAT(condition("Ready", "message"), HasSubstr("1 creates are under way"));
  EXPECT_TRUE(server_.get(kube::kConfigMaps, "collage-system/collage-intents-share").has_value());
}

TEST_F(BackendControllerTest, OrphanedDeletionLeavesTheVolumesWhereTheyAre) {
  both_nodes_ready();
  server_.put(share().deletion_policy("Orphan"));
  server_.put(testing::a_volume("pvc-1").of_driver("fake.collage.storage").handle("share/vol-1").bound());
  start();
  ASSERT_TRUE(ready());
  server_.remove(kube::kStorageBackends, "share");
  EXPECT_TRUE(server_.wait_until([&] { return !backend().has_value(); }));
  EXPECT_TRUE(server_.get(kube::kPersistentVolumes, "pvc-1").has_value());
}

TEST_F(BackendControllerTest, ACsiDriverThatCanNeverFitIsNamed) {
  both_nodes_ready();
  server_.put({{"apiVersion", "storage.k8s.io/v1"},
               {"kind", "CSIDriver"},
               {"metadata", {{"name", "fake.collage.storage"}}},
               {"spec", {{"attachRequired", false}, {"volumeLifecycleModes", Json::array({"Persistent"})}}}});
  server_.put(share());
  start();
  ASSERT_TRUE(becomes("Ready", "False", "ClassConflict"));
  EXPECT_THAT(condition("Ready", "message"), HasSubstr("attachRequired"));
}

TEST_F(BackendControllerTest, NothingIsWrittenWhenNothingChanged) {
  both_nodes_ready();
  server_.put(share().with_class("fast", true));
  start();
  ASSERT_TRUE(ready());
  // Make it look again, several times over: a node flaps, and an answer to an operation comes and goes.
  ASSERT_TRUE(server_.wait_until([&] { return backend()->contains("status"); }));
  stop();
  server_.reset_counts();
  start();
  ASSERT_TRUE(server_.wait_until([&] { return controller_->settled().ok(); }));
  node_says("node-a", "share", true, "", (int64_t{6} << 30) - (1 << 20));  // a thousandth less room
  EXPECT_EQ(server_.writes(), 0);
}

TEST_F(BackendControllerTest, AnApiServerInTroubleIsWaitedForAndEverythingComesRight) {
  both_nodes_ready();
  server_.put(share().with_class("fast", true));
  server_.fail_next("create", "storageclasses", Fault::answer(500, "InternalError"), 1);
  server_.fail_next("patch", "storagebackends", Fault::drop_after(), 1);
  server_.fail_next("create", "csidrivers", Fault::drop_before(), 1);
  start();
  EXPECT_TRUE(server_.wait_until(
      [&] { return condition("Ready") == "True" && server_.get(kube::kStorageClasses, "fast").has_value(); },
      std::chrono::seconds(30)));
}

}  // namespace
}  // namespace collage::reconcile
