#include "operator/reconcile/backend_controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "operator/engine/intent_record.h"
#include "operator/engine/names.h"
#include "operator/kube/events.h"
#include "operator/reconcile/config_map_intents.h"
#include "unit/testing/builders.h"
#include "unit/testing/fake_api_server.h"
#include "unit/testing/fake_driver.h"
#include "unit/testing/fake_nodes.h"
#include "unit/testing/other_writer.h"

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
    world_->cluster_uid = "uid-of-cluster-1";
    world_->leads = [this] { return leads_ ? absl::OkStatus() : absl::CancelledError("leads no more"); };
    intents_ = std::make_unique<ConfigMapIntents>(*client_, "collage-system");
    controller_ = std::make_unique<BackendController>(*world_, nodes_, *intents_,
                                                      SurveyOptions{.after = std::chrono::milliseconds(1)});
    controller_->on_usable([this](const std::string& backend) {
      std::lock_guard lock(mutex_);
      usable_.push_back(backend);
    });
    controller_->on_lost_attachment([this](const std::string& attachment) {
      std::lock_guard lock(mutex_);
      lost_.push_back(attachment);
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

  // One of ours, on the storage and as an object: Released and retained.
  testing::VolumeBuilder retained(const std::string& name, const std::string& cluster = "cluster-1") {
    driver_->put({.id = "vol-" + name,
                  .name = name,
                  .capacity_bytes = 1 << 20,
                  .tags = {{drivers::kTagCluster, cluster}, {drivers::kTagVolume, name}}});
    return testing::a_volume(name)
        .of_driver("fake.collage.storage")
        .handle("share/vol-" + name)
        .attribute("collage.storage/system-id", base::get_string(*backend(), "/status/systemID"))
        .retain()
        .released();
  }
  std::string policy_of(const std::string& volume) const {
    return base::get_string(server_.get(kube::kPersistentVolumes, volume).value_or(Json()),
                            "/spec/persistentVolumeReclaimPolicy");
  }
  void annotate(const std::string& key, const std::string& value) {
    server_.update(kube::kStorageBackends, "share",
                   [&](Json& object) { object["metadata"]["annotations"][key] = value; });
  }
  bool says(const std::string& type, const std::string& text) const {
    return server_.wait_until([&] { return condition(type, "message").find(text) != std::string::npos; });
  }

  FakeApiServer server_;
  std::unique_ptr<kube::Client> client_;
  kube::EventRecorder events_;
  std::shared_ptr<testing::FakeDriver> driver_ = std::make_shared<testing::FakeDriver>(options());
  testing::FakeNodes nodes_;
  const std::vector<drivers::Kind> kinds_ = kinds();
  const base::Context context_;
  std::mutex mutex_;
  std::vector<std::string> usable_;
  std::vector<std::string> lost_;
  std::atomic<bool> leads_ = true;
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

TEST_F(BackendControllerTest, ItsDriverObeysTheLease) {
  both_nodes_ready();
  server_.put(share());
  start();
  ASSERT_TRUE(ready());
  const auto driver = world_->backends.get("share")->driver;
  EXPECT_TRUE(driver->find(context_, "pvc-1").ok());
  const int before = driver_->calls(drivers::Verb::kFind);
  leads_ = false;
  EXPECT_TRUE(absl::IsCancelled(driver->find(context_, "pvc-1").status()));
  EXPECT_EQ(driver_->calls(drivers::Verb::kFind), before);
}

// A finalizer that somebody adds between our look and our write is not lost.
TEST_F(BackendControllerTest, OthersFinalizersStayWhateverTheMoment) {
  both_nodes_ready();
  testing::write_before_ours(server_, kube::kStorageBackends, "share", testing::add_finalizer);
  server_.put(share());
  start();
  ASSERT_TRUE(ready());
  const Json both = {"theirs", engine::kBackendFinalizer};
  EXPECT_TRUE(server_.wait_until([&] { return (*backend())["metadata"]["finalizers"] == both; }))
      << (*backend())["metadata"]["finalizers"];
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
               {"data", {{"uid-data", R"({"ns":"apps","pvc":"data","b":1048576})"}, {"uid-x", "{}"}}}});
  start();
  ASSERT_TRUE(server_.wait_until([&] { return condition("Ready") == "False"; }));
  server_.remove(kube::kStorageBackends, "share");
  ASSERT_TRUE(becomes("Ready", "False", "Deleting"));
  EXPECT_THAT(
      condition("Ready", "message"),
      AllOf(HasSubstr("1 creates are under way (apps/data)"), HasSubstr("1 intents cannot be read (uid-x)"),
            HasSubstr("take these keys out of ConfigMap collage-system/collage-intents-share")));
  EXPECT_TRUE(server_.get(kube::kConfigMaps, "collage-system/collage-intents-share").has_value());

  server_.update(kube::kConfigMaps, "collage-system/collage-intents-share",
                 [](Json& map) { map["data"] = Json::object(); });
  server_.update(kube::kStorageBackends, "share",
                 [](Json& object) { object["metadata"]["annotations"]["seen"] = "yes"; });
  EXPECT_TRUE(server_.wait_until([&] { return !backend().has_value(); })) << "both are done";
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

TEST_F(BackendControllerTest, ADriftedCsiDriverAndCapacityAreSetRightAtOnce) {
  both_nodes_ready();
  server_.put(share().with_class("fast"));
  start();
  ASSERT_TRUE(ready());
  server_.update(kube::kCsiDrivers, "fake.collage.storage",
                 [](Json& object) { object["spec"]["storageCapacity"] = false; });
  EXPECT_TRUE(server_.wait_until([&] {
    return base::get_bool(*server_.get(kube::kCsiDrivers, "fake.collage.storage"), "/spec/storageCapacity");
  }));
  server_.erase(kube::kCsiDrivers, "fake.collage.storage");
  EXPECT_TRUE(
      server_.wait_until([&] { return server_.get(kube::kCsiDrivers, "fake.collage.storage").has_value(); }));
  const std::string room =
      "collage-system/" + base::get_string(server_.list(kube::kCsiStorageCapacities)[0], "/metadata/name");
  server_.update(kube::kCsiStorageCapacities, room, [](Json& object) { object["capacity"] = "1Ti"; });
  EXPECT_TRUE(server_.wait_until([&] {
    return base::get_string(*server_.get(kube::kCsiStorageCapacities, room), "/capacity") == "6Gi";
  }));
  server_.erase(kube::kCsiStorageCapacities, room);
  EXPECT_TRUE(server_.wait_until([&] { return server_.get(kube::kCsiStorageCapacities, room).has_value(); }));
}

TEST_F(BackendControllerTest, AFightOverAClassEndsInAConditionInsteadOfALoop) {
  both_nodes_ready();
  server_.put(share().with_class("fast"));
  start();
  ASSERT_TRUE(ready());
  // A controller that always wants it otherwise.
  server_.on_change("storageclasses", [this](const testing::FakeStore::Change& change) {
    if (change.type == "DELETED" || base::get_bool(*change.object, "/allowVolumeExpansion")) return;
    server_.update(kube::kStorageClasses, "fast",
                   [](Json& object) { object["allowVolumeExpansion"] = true; });
  });
  server_.reset_counts();
  server_.update(kube::kStorageClasses, "fast",
                 [](Json& object) { object["mountOptions"] = Json::array({"noatime"}); });
  ASSERT_TRUE(becomes("Degraded", "True", "Contested"));
  EXPECT_THAT(condition("Degraded", "message"), HasSubstr("StorageClass fast is changed by somebody else"));
  EXPECT_EQ(condition("Ready"), "True");
  EXPECT_LE(server_.writes("storageclasses"), Corrections::kAtOnce);
}

TEST_F(BackendControllerTest, ANodeWithoutTheShareGetsNoVolumePlaced) {
  node_says("node-a", "share", true);
  node_says("node-b", "share", false, "no marker");
  server_.put(testing::a_node("node-b").label("kubernetes.io/hostname", "host-b"));
  server_.put(share().with_class("fast"));
  start();
  ASSERT_TRUE(ready());
  const auto without = [&] {
    const auto rooms = server_.list(kube::kCsiStorageCapacities);
    return rooms.size() == 1 ? base::get_string(rooms[0], "/nodeTopology/matchExpressions/0/values/0") : "?";
  };
  EXPECT_TRUE(server_.wait_until([&] { return without() == "host-b"; })) << without();
  const std::string one = base::get_string(server_.list(kube::kCsiStorageCapacities)[0], "/metadata/name");
  node_says("node-b", "share", true);
  EXPECT_TRUE(server_.wait_until([&] { return without().empty(); })) << without();
  EXPECT_NE(base::get_string(server_.list(kube::kCsiStorageCapacities)[0], "/metadata/name"), one)
      << "the nodes of an object cannot be changed";
}

TEST_F(BackendControllerTest, TheClusterIsRegisteredOnceAndRecorded) {
  both_nodes_ready();
  server_.put(share());
  start();
  ASSERT_TRUE(ready());
  ASSERT_TRUE(server_.wait_until(
      [&] { return base::get_string(*backend(), "/status/clusterUID") == "uid-of-cluster-1"; }));
  EXPECT_EQ(base::get_string(*backend(), "/status/clusterID"), "cluster-1");
}

TEST_F(BackendControllerTest, AnotherClusterOfOurIdIsToldAndStopsRemovalUntilAPersonConfirms) {
  both_nodes_ready();
  driver_->register_other({"cluster-1", "uid-of-the-other"});
  server_.put(share().deletion_policy("Delete"));
  start();
  ASSERT_TRUE(becomes("Degraded", "True", "ClusterIdentity"));
  EXPECT_THAT(condition("Degraded", "message"), HasSubstr("uid-of-the-other"));
  EXPECT_EQ(condition("Ready"), "True") << "claims are served";
  EXPECT_EQ(base::get_string(*backend(), "/status/clusterUID"), "") << "the next process asks again";
  server_.put(retained("pvc-1"));
  ASSERT_TRUE(server_.wait_until([&] { return world_->volumes.get("pvc-1") != nullptr; }));
  server_.remove(kube::kStorageBackends, "share");
  ASSERT_TRUE(says("Ready", "Nothing is removed by spec.deletionPolicy Delete"));
  EXPECT_EQ(policy_of("pvc-1"), "Retain");
  annotate(kClusterGone, "somebody-else");
  annotate(kClusterGone, "somebody-else,uid-of-the-other");
  EXPECT_TRUE(server_.wait_until([&] { return policy_of("pvc-1") == "Delete"; }));
}

TEST_F(BackendControllerTest, AStatusOfAnotherClusterIsNotTakenForOurs) {
  both_nodes_ready();
  server_.put(share().set("/status/clusterUID", "uid-of-the-cluster-that-was-copied"));
  start();
  ASSERT_TRUE(becomes("Degraded", "True", "ClusterIdentity"));
  EXPECT_THAT(condition("Degraded", "message"), HasSubstr("uid-of-the-cluster-that-was-copied"));
  annotate(kClusterGone, "uid-of-the-cluster-that-was-copied");
  ASSERT_TRUE(becomes("Degraded", "False", "AsExpected"));
  EXPECT_TRUE(server_.wait_until(
      [&] { return base::get_string(*backend(), "/status/clusterUID") == "uid-of-cluster-1"; }));
}

TEST_F(BackendControllerTest, PolicyDeleteRemovesWhatIsOursAndOnlyThat) {
  both_nodes_ready();
  server_.put(share().deletion_policy("Delete"));
  start();
  ASSERT_TRUE(ready());
  server_.put(retained("pvc-ours"));
  server_.put(retained("pvc-theirs", "another-cluster"));
  server_.put(retained("pvc-by-hand").annotation("pv.kubernetes.io/provisioned-by", "a-person"));
  server_.put(retained("pvc-elsewhere").attribute("collage.storage/system-id", "another-system"));
  server_.put(retained("pvc-bound").bound());
  ASSERT_TRUE(server_.wait_until([&] { return world_->volumes.size() == 5; }));
  server_.remove(kube::kStorageBackends, "share");
  ASSERT_TRUE(server_.wait_until([&] { return policy_of("pvc-ours") == "Delete"; }));
  ASSERT_TRUE(says("Ready", "pvc-theirs is not removed"));
  EXPECT_THAT(condition("Ready", "message"), HasSubstr("another-cluster"));
  for (const char* left : {"pvc-theirs", "pvc-by-hand", "pvc-elsewhere", "pvc-bound"})
    EXPECT_EQ(policy_of(left), "Retain") << left;
  EXPECT_EQ(driver_->calls(drivers::Verb::kRemove), 0) << "removal is the reclaimer's, by the policy";
}

TEST_F(BackendControllerTest, DeletionNamesAttachmentsAndCreatesUnderWay) {
  both_nodes_ready();
  server_.put(share().deletion_policy("Orphan"));
  start();
  ASSERT_TRUE(ready());
  const auto intents = world_->backends.get("share")->intents;
  engine::IntentRecord record;
  record.claim = {.uid = "uid-data",
                  .name_space = "default",
                  .name = "data",
                  .access_modes = {"ReadWriteOnce"},
                  .requested_bytes = 1};
  record.class_name = "fast";
  record.class_uid = "uid-fast";
  const auto text = engine::encode_intent(record);
  ASSERT_TRUE(text.ok()) << text.status();
  ASSERT_TRUE(intents->begin(context_, "uid-data", *text).ok());
  server_.remove(kube::kStorageBackends, "share");
  ASSERT_TRUE(says("Ready", "1 creates are under way (default/data)"));
  EXPECT_TRUE(backend().has_value()) << "also with policy Orphan";
  intents->end("uid-data");
  EXPECT_TRUE(server_.wait_until([&] { return !backend().has_value(); }));
}

TEST_F(BackendControllerTest, OrphansAreCountedToldAndLeftAlone) {
  both_nodes_ready();
  driver_->put({.id = "vol-lost",
                .name = "pvc-lost",
                .capacity_bytes = 1,
                .tags = {{drivers::kTagCluster, "cluster-1"}}});
  driver_->put(
      {.id = "vol-theirs", .name = "x", .capacity_bytes = 1, .tags = {{drivers::kTagCluster, "another"}}});
  server_.put(share());
  start();
  const auto orphans = [&] {
    return base::get_int(backend().value_or(Json()), "/status/volumes/orphans", -1);
  };
  ASSERT_TRUE(server_.wait_until([&] { return orphans() == 1; })) << orphans();
  EXPECT_TRUE(server_.wait_until([&] {
    events_.flush(context_.with_timeout(std::chrono::seconds(5)));
    const auto events = server_.list(kube::kEvents);
    return std::any_of(events.begin(), events.end(), [](const Json& event) {
      return base::get_string(event, "/reason") == "OrphansFound" &&
             base::get_string(event, "/message").find("share/vol-lost") != std::string::npos;
    });
  }));
  EXPECT_EQ(driver_->calls(drivers::Verb::kRemove), 0);
  // A retained volume whose object a person deletes is looked for without being asked.
  server_.put(retained("pvc-kept"));
  ASSERT_TRUE(server_.wait_until([&] { return world_->volumes.size() == 1; }));
  server_.erase(kube::kPersistentVolumes, "pvc-kept");
  EXPECT_TRUE(server_.wait_until([&] { return orphans() == 2; })) << orphans();
}

TEST_F(BackendControllerTest, AThousandClaimsAreNotAThousandStatusWrites) {
  both_nodes_ready();
  server_.put(share());
  start();
  ASSERT_TRUE(ready());
  ASSERT_TRUE(server_.wait_until([&] { return base::get_string(*backend(), "/status/clusterUID") != ""; }));
  server_.reset_counts();
  for (int i = 0; i < 1000; ++i) {
    server_.put(testing::a_volume("pvc-" + std::to_string(i))
                    .of_driver("fake.collage.storage")
                    .handle("share/vol-" + std::to_string(i))
                    .bound());
  }
  ASSERT_TRUE(server_.wait_until([&] { return world_->volumes.size() == 1000; }, std::chrono::seconds(30)));
  EXPECT_LE(server_.writes("storagebackends"), 3);
}

TEST_F(BackendControllerTest, AttachmentsThatTheStorageKnowsNothingOfAreTold) {
  both_nodes_ready();
  for (const char* name : {"kept", "lost", "moved"}) {
    driver_->put({.id = std::string("vol-") + name,
                  .name = name,
                  .capacity_bytes = 1,
                  .attached_to = std::string(name) == "kept"    ? "id-a"
                                 : std::string(name) == "moved" ? "id-b"
                                                                : ""});
    server_.put(testing::a_volume(name)
                    .of_driver("fake.collage.storage")
                    .handle(std::string("share/vol-") + name)
                    .bound());
    server_.put(
        testing::an_attachment(name).of_driver("fake.collage.storage").with_node_id("id-a").attached());
  }
  // What is attached while the storage is being listed may be missing from the list.
  driver_->put({.id = "vol-late", .name = "late", .capacity_bytes = 1});
  server_.put(testing::a_volume("late").of_driver("fake.collage.storage").handle("share/vol-late").bound());
  server_.put(testing::an_attachment("late").of_driver("fake.collage.storage").with_node_id("id-a"));
  driver_->after([this](const base::Context&, drivers::Verb verb, const std::string&) {
    if (verb != drivers::Verb::kList) return absl::OkStatus();
    server_.update(kube::kVolumeAttachments, "csi-late-node-a",
                   [](Json& object) { object["status"]["attached"] = true; });
    EXPECT_TRUE(server_.wait_until([this] { return world_->attachments.get("csi-late-node-a")->attached; }));
    return absl::OkStatus();
  });
  server_.put(share());
  start();
  const auto told = [&] {
    std::lock_guard lock(mutex_);
    std::vector<std::string> names = lost_;
    std::sort(names.begin(), names.end());
    return names;
  };
  EXPECT_TRUE(server_.wait_until([&] { return told().size() >= 2; }));
  EXPECT_THAT(told(), ::testing::ElementsAre("csi-lost-node-a", "csi-moved-node-a"));
}

TEST_F(BackendControllerTest, AVolumeThatIsReleasedWhileItsBackendGoesIsRemovedAtOnce) {
  both_nodes_ready();
  server_.put(share().deletion_policy("Delete"));
  start();
  ASSERT_TRUE(ready());
  server_.put(retained("pvc-1").bound());
  ASSERT_TRUE(server_.wait_until([&] { return world_->volumes.get("pvc-1") != nullptr; }));
  server_.remove(kube::kStorageBackends, "share");
  ASSERT_TRUE(says("Ready", "1 of them bound"));
  EXPECT_EQ(policy_of("pvc-1"), "Retain");
  server_.update(kube::kPersistentVolumes, "pvc-1",
                 [](Json& object) { object["status"]["phase"] = "Released"; });
  EXPECT_TRUE(server_.wait_until([&] { return policy_of("pvc-1") == "Delete"; }));
}

}  // namespace
}  // namespace collage::reconcile
