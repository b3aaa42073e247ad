#include "operator/reconcile/backend_controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>

#include "operator/engine/intent_record.h"
#include "operator/engine/names.h"
#include "unit/reconcile/backend_fixture.h"
#include "unit/testing/other_writer.h"

namespace collage::reconcile {
namespace {

using base::Json;
using testing::BackendControllerTest;
using testing::FakeApiServer;
using testing::Fault;
using ::testing::HasSubstr;

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

}  // namespace
}  // namespace collage::reconcile
