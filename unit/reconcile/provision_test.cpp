// Claims become volumes: over a real client and a fake API server, with the driver in memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>

#include "unit/reconcile/cluster.h"
#include "unit/testing/shrinking_driver.h"

namespace collage::reconcile {
namespace {

using base::Json;
using testing::a_csi_node;
using testing::a_node;
using testing::a_volume;
using testing::Cluster;
using ::testing::Contains;
using ::testing::ElementsAre;
using testing::Fault;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kFake;
using ::testing::SizeIs;

TEST(Provision, AClaimBecomesABoundVolume) {
  Cluster cluster;
  cluster.start();
  cluster.api.put(cluster.claim("data").size("3Gi"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.bound("data"); }));
  const Json volume = *cluster.pv("pvc-uid-data");
  EXPECT_EQ(base::get_string(volume, "/spec/csi/driver"), kFake);
  EXPECT_EQ(base::get_string(volume, "/spec/csi/volumeHandle"), "fast/vol-pvc-uid-data");
  EXPECT_EQ(base::get_string(volume, "/spec/csi/fsType"), "ext4");
  EXPECT_EQ(base::get_string(volume, "/spec/csi/volumeAttributes/made-by"), "fake");
  EXPECT_EQ(
      base::get_string(volume, "/spec/csi/volumeAttributes/storage.kubernetes.io~1csiProvisionerIdentity"),
      "collage");
  EXPECT_EQ(base::get_string(volume, "/spec/csi/volumeAttributes/collage.storage~1system-id"), "fake-system");
  EXPECT_EQ(base::get_string(volume, "/spec/capacity/storage"), "3Gi");
  EXPECT_EQ(base::get_string(volume, "/spec/claimRef/uid"), "uid-data");
  EXPECT_EQ(volume["metadata"]["finalizers"], Json({"external-provisioner.volume.kubernetes.io/finalizer",
                                                    "external-attacher/fake-collage-storage"}));
  const auto requests = cluster.driver->create_requests();
  ASSERT_THAT(requests, SizeIs(1));
  EXPECT_EQ(requests[0].tags.at(drivers::kTagCluster), "cluster-1");
  EXPECT_EQ(requests[0].tags.at(drivers::kTagClaim), "default/data");
  EXPECT_TRUE(cluster.wait_event("ProvisioningSucceeded", "fast/vol-pvc-uid-data"));
  EXPECT_TRUE(cluster.wait([&] { return cluster.no_intents(); }));
  EXPECT_THAT(cluster.events("Provisioning"), IsEmpty());
}

TEST(Provision, TheIntentIsDurableBeforeTheDriverIsCalled) {
  Cluster cluster;
  std::atomic<bool> seen = false;
  cluster.driver->before([&](const base::Context&, drivers::Verb verb, const std::string&) -> absl::Status {
    if (verb == drivers::Verb::kCreate) seen = cluster.intents().contains("uid-data");
    return absl::OkStatus();
  });
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.bound("data"); }));
  EXPECT_TRUE(seen);
}

TEST(Provision, WritesStayWithinTheBudget) {
  Cluster cluster({.provision = {.threads_per_backend = 16}});
  cluster.start();
  constexpr int kClaims = 100;
  cluster.api.reset_counts();
  for (int i = 0; i < kClaims; ++i) cluster.api.put(cluster.claim("data-" + std::to_string(i)));
  ASSERT_TRUE(cluster.wait([&] {
    for (int i = 0; i < kClaims; ++i) {
      if (!cluster.bound("data-" + std::to_string(i))) return false;
    }
    return cluster.intents().empty();
  }));
  EXPECT_EQ(cluster.api.writes("persistentvolumes"), kClaims);
  EXPECT_EQ(cluster.api.writes("persistentvolumeclaims"), 0);
  EXPECT_LE(cluster.api.writes(), kClaims * 1.3);
  EXPECT_EQ(cluster.driver->calls(drivers::Verb::kCreate), kClaims);
}

TEST(Provision, WaitsForTheFirstConsumer) {
  Cluster cluster;
  cluster.api.put(cluster.storage_class().wait_for_first_consumer());
  cluster.start();
  cluster.api.put(cluster.claim("early"));
  cluster.api.put(a_node());
  cluster.api.put(a_csi_node().driver(kFake, "id-a"));
  cluster.api.put(cluster.claim("late").on_node("node-a"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.bound("late"); }));
  EXPECT_THAT(cluster.driver->create_requests(), SizeIs(1));
  cluster.api.put(cluster.claim("early").on_node("node-a"));
  EXPECT_TRUE(cluster.wait([&] { return cluster.bound("early"); }));
}

TEST(Provision, AClassThatComesLateIsEnough) {
  Cluster cluster;
  cluster.start();
  cluster.api.put(cluster.claim("data").of_class("slow"));
  cluster.api.put(testing::a_class("slow").of_driver(kFake).of_backend("fast"));
  EXPECT_TRUE(cluster.wait([&] { return cluster.bound("data"); }));
}

TEST(Provision, ClaimsOfOthersAreLeftAlone) {
  Cluster cluster;
  cluster.api.put(testing::a_class("theirs").of_driver("ebs.csi.aws.com"));
  cluster.start();
  cluster.api.put(cluster.claim("theirs").of_class("theirs").of_driver("ebs.csi.aws.com"));
  cluster.api.put(cluster.claim("unmarked").without_driver());
  // The annotation names us, the class another: somebody changed the class.
  cluster.api.put(cluster.claim("changed").of_class("theirs"));
  cluster.api.put(cluster.claim("ours"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.bound("ours"); }));
  EXPECT_THAT(cluster.driver->create_requests(), SizeIs(1));
}

TEST(Provision, WhatCannotWorkIsSaidAndNotTriedAgainAtOnce) {
  struct Case {
    std::string_view name;
    testing::ClaimBuilder claim;
    std::string says;
  };
  const auto claim = [](const std::string& name) { return Cluster::claim(name); };
  const Case cases[] = {
      {"a mode that the driver cannot serve", claim("rwx").mode("ReadWriteMany"),
       "ReadWriteMany cannot be served by fake"},
      {"a size of zero", claim("zero").size("0"), "spec.resources.requests.storage"},
      {"a negative size", claim("negative").size("-1Gi"), "spec.resources.requests.storage"},
      {"a selector", claim("selector").set("/spec/selector", {{"matchLabels", {{"a", "b"}}}}),
       "spec.selector"},
      {"a snapshot as its source", claim("restore").from("VolumeSnapshot", "s", "snapshot.storage.k8s.io"),
       "spec.dataSource"},
      {"a parameter that the driver does not know", claim("odd").of_class("odd"), "\"color\""},
      {"a class without a backend", claim("nameless").of_class("nameless"),
       "StorageClass parameter \"backend\""},
      {"a backend that does not exist", claim("lost").of_class("lost"),
       "no StorageBackend \"nowhere\" is in use"},
      {"an unknown csi parameter", claim("csi").of_class("csi"), "csi.storage.k8s.io/colour"},
      {"half of a secret", claim("half").of_class("half"), "secret-namespace"},
      {"an attributes class", claim("vac").set("/spec/volumeAttributesClassName", "gold"),
       "spec.volumeAttributesClassName"},
  };
  Cluster cluster;
  using testing::a_class;
  cluster.api.put(a_class("odd").of_driver(kFake).of_backend("fast").parameter("color", "red"));
  cluster.api.put(a_class("nameless").of_driver(kFake));
  cluster.api.put(a_class("lost").of_driver(kFake).of_backend("nowhere"));
  cluster.api.put(
      a_class("csi").of_driver(kFake).of_backend("fast").parameter("csi.storage.k8s.io/colour", "red"));
  cluster.api.put(
      a_class("half").of_driver(kFake).of_backend("fast").parameter("csi.storage.k8s.io/secret-name", "s"));
  cluster.start();
  for (const Case& c : cases) cluster.api.put(c.claim);
  for (const Case& c : cases) EXPECT_TRUE(cluster.wait_event("ProvisioningFailed", c.says)) << c.name;
  EXPECT_THAT(cluster.driver->volumes(), IsEmpty());
  EXPECT_EQ(cluster.driver->calls(drivers::Verb::kCreate), 0);
}

TEST(Provision, AnExternalPopulatorIsWaitedFor) {
  Cluster cluster;
  cluster.start();
  cluster.api.put(cluster.claim("filled").from("Hydrator", "h", "example.com"));
  EXPECT_TRUE(cluster.wait_event("Provisioning", "Hydrator"));
  EXPECT_EQ(cluster.driver->calls(drivers::Verb::kCreate), 0);
}

TEST(Provision, ABackendThatBecomesReadyServesItsWaitingClaimsAtOnce) {
  Cluster cluster;
  cluster.start();
  cluster.use_backend([](engine::Backend& backend) {
    backend.ready = absl::UnavailableError("the share is not mounted on node-b");
  });
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait_event("ProvisioningFailed", "the share is not mounted on node-b"));
  cluster.use_backend([](engine::Backend& backend) { backend.spec.paused = true; });
  ASSERT_TRUE(cluster.wait_event("ProvisioningFailed", "is paused"));
  cluster.use_backend();
  EXPECT_TRUE(cluster.wait([&] { return cluster.bound("data"); }));
}

TEST(Provision, ABackendThatTurnsOutUnusableIsToldAtOnce) {
  Cluster cluster;
  cluster.api.put(testing::a_backend("fast").kind("fake", base::Json::object()));
  cluster.start();
  cluster.drop_backend();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.op->world.claims.get("default/data") != nullptr; }));
  EXPECT_THAT(cluster.events("ProvisioningFailed"), IsEmpty());
  cluster.api.put(testing::a_backend("fast")
                      .kind("fake", base::Json::object())
                      .condition("Ready", false, "Unreachable", "no answer"));
  EXPECT_TRUE(cluster.wait_event("ProvisioningFailed", "no answer"));
}

TEST(Provision, ABackendOfAnotherKindIsRefused) {
  Cluster cluster;
  cluster.start();
  cluster.use_backend([](engine::Backend& backend) { backend.spec.kind = "nfs"; });
  cluster.api.put(cluster.claim("data"));
  EXPECT_TRUE(cluster.wait_event("ProvisioningFailed", "is of kind nfs"));
  EXPECT_EQ(cluster.driver->calls(drivers::Verb::kCreate), 0);
}

TEST(Provision, NamespacesAreHeldAgainstTheSelector) {
  Cluster cluster;
  cluster.api.put(testing::a_namespace("default"));
  cluster.start();
  const auto only_data = [](engine::Backend& backend) {
    backend.spec.allowed_namespaces = {{{"team", "data"}}, {}};
  };
  cluster.use_backend(only_data);
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait_event("ProvisioningFailed", "spec.allowedNamespaces"));
  Json name_space = testing::a_namespace("default");
  name_space["metadata"]["labels"]["team"] = "data";
  cluster.api.put(name_space);
  EXPECT_TRUE(cluster.wait([&] { return cluster.bound("data"); })) << "the label alone wakes the claim";
  // Taken away again: new claims are refused, what exists is untouched.
  cluster.api.put(testing::a_namespace("default"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.op->world.namespaces.get("default")->labels.empty(); }));
  cluster.api.put(cluster.claim("later"));
  ASSERT_TRUE(cluster.wait([&] {
    const auto told = cluster.events("ProvisioningFailed");
    return told.size() >= 2;
  }));
  EXPECT_FALSE(cluster.bound("later"));
  EXPECT_TRUE(cluster.bound("data"));
  EXPECT_THAT(cluster.driver->volumes(), SizeIs(1));
}

TEST(Provision, LimitsHoldAlsoAmongClaimsThatCameTogether) {
  Cluster cluster;
  cluster.start();
  cluster.use_backend([](engine::Backend& backend) { backend.spec.limits.max_volumes = 3; });
  for (int i = 0; i < 8; ++i) cluster.api.put(cluster.claim("data-" + std::to_string(i)));
  ASSERT_TRUE(cluster.wait_event("ProvisioningFailed", "spec.limits.maxVolumes is 3"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.api.list(kube::kPersistentVolumes).size() == 3; }));
  EXPECT_THAT(cluster.driver->volumes(), SizeIs(3));
  cluster.use_backend([](engine::Backend& backend) { backend.spec.limits.max_volumes = 20; });
  EXPECT_TRUE(cluster.wait([&] { return cluster.api.list(kube::kPersistentVolumes).size() == 8; }));
  EXPECT_EQ(cluster.op->world.usage.total("fast").volumes, 8);
}

TEST(Provision, TheSumOfSizesHoldsToTheByteAlsoAfterRounding) {
  Cluster cluster;
  cluster.start();
  // Sizes are rounded up to whole MiB: two of 5 MiB fit into 10 MiB, not into one byte less.
  cluster.use_backend(
      [](engine::Backend& backend) { backend.spec.limits.max_provisioned_bytes = (10 << 20) - 1; });
  for (const char* name : {"one", "two"}) cluster.api.put(cluster.claim(name).size("5242879"));
  ASSERT_TRUE(cluster.wait_event("ProvisioningFailed", "spec.limits.maxProvisioned"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.bound("one") || cluster.bound("two"); }));
  EXPECT_THAT(cluster.driver->volumes(), SizeIs(1));
  cluster.use_backend([](engine::Backend& backend) { backend.spec.limits.max_provisioned_bytes = 10 << 20; });
  ASSERT_TRUE(cluster.wait([&] { return cluster.bound("one") && cluster.bound("two"); }));
  EXPECT_EQ(cluster.op->world.usage.total("fast").bytes, 10 << 20);
}

TEST(Provision, AVolumeThatGoesLetsAWaitingClaimIn) {
  Cluster cluster;
  cluster.start();
  const auto one = [](engine::Backend& backend) { backend.spec.limits.max_volumes = 1; };
  cluster.use_backend(one);
  cluster.api.put(cluster.claim("first"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.bound("first"); }));
  for (const char* name : {"second", "third"}) cluster.api.put(cluster.claim(name));
  ASSERT_TRUE(cluster.wait([&] { return cluster.events("ProvisioningFailed").size() >= 2; }));
  cluster.delete_claim("first");
  EXPECT_TRUE(cluster.wait([&] { return cluster.bound("second") != cluster.bound("third"); }))
      << "exactly one has room now";
}

TEST(Provision, OpenIntentsOfAnEarlierProcessCountAgainstTheLimits) {
  Cluster cluster;
  cluster.start();
  cluster.driver->fail_after(drivers::Verb::kCreate, absl::UnavailableError("the answer is lost"), 1000);
  cluster.api.put(cluster.claim("first"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.driver->volumes().size() == 1; }));
  cluster.kill();
  cluster.start();
  const auto one = [](engine::Backend& backend) { backend.spec.limits.max_volumes = 1; };
  cluster.use_backend(one);
  cluster.api.put(cluster.claim("second"));
  EXPECT_TRUE(cluster.wait_event("ProvisioningFailed", "spec.limits.maxVolumes is 1, 1 are used"));
}

TEST(Provision, ACreateThatHasBegunEndsAlsoWhileItsBackendIsBeingDeleted) {
  Cluster cluster;
  cluster.start();
  cluster.driver->fail_after(drivers::Verb::kCreate, absl::UnavailableError("the answer is lost"), 1);
  const auto deleting = [](engine::Backend& backend) {
    backend.ready = absl::FailedPreconditionError("the StorageBackend is being deleted");
  };
  cluster.driver->before([&](const base::Context&, drivers::Verb verb, const std::string&) {
    if (verb == drivers::Verb::kCreate) cluster.use_backend(deleting);
    return absl::OkStatus();
  });
  cluster.api.put(cluster.claim("first"));
  EXPECT_TRUE(cluster.wait([&] { return cluster.bound("first"); }));
  cluster.api.put(cluster.claim("second"));
  EXPECT_TRUE(cluster.wait_event("ProvisioningFailed", "is not ready: the StorageBackend is being deleted"));
}

TEST(Provision, AVolumeLargerThanTheLimitIsRefused) {
  Cluster cluster;
  cluster.start();
  cluster.use_backend(
      [](engine::Backend& backend) { backend.spec.limits.max_volume_bytes = int64_t{1} << 30; });
  cluster.api.put(cluster.claim("data").size("2Gi"));
  EXPECT_TRUE(cluster.wait_event("ProvisioningFailed", "spec.limits.maxVolumeSize is 1Gi"));
  EXPECT_EQ(cluster.op->world.usage.total("fast").volumes, 0);
}

TEST(Provision, OnlyACreateThatTakesLongIsAnnounced) {
  Cluster cluster({.provision = {.announce_after = std::chrono::milliseconds(20)}});
  std::mutex mutex;
  std::condition_variable gate;
  bool open = false;
  cluster.driver->before([&](const base::Context&, drivers::Verb verb, const std::string&) -> absl::Status {
    if (verb != drivers::Verb::kCreate) return absl::OkStatus();
    std::unique_lock lock(mutex);
    gate.wait(lock, [&] { return open; });
    return absl::OkStatus();
  });
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  EXPECT_TRUE(
      cluster.wait_event("Provisioning", "StorageBackend \"fast\" is making the volume pvc-uid-data"));
  {
    std::lock_guard lock(mutex);
    open = true;
  }
  gate.notify_all();
  EXPECT_TRUE(cluster.wait([&] { return cluster.bound("data"); }));
}

TEST(Provision, AnErrorThatIsNotFinalRepeatsTheSameRequest) {
  Cluster cluster;
  cluster.driver->fail_after(drivers::Verb::kCreate, absl::DeadlineExceededError("slow"));
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait_event("ProvisioningFailed", "slow"));
  EXPECT_TRUE(cluster.intents().contains("uid-data"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.bound("data"); }));
  const auto requests = cluster.driver->create_requests();
  ASSERT_THAT(requests, SizeIs(2));
  EXPECT_EQ(requests[0].name, requests[1].name);
  EXPECT_EQ(requests[0].required_bytes, requests[1].required_bytes);
  EXPECT_THAT(cluster.driver->volumes(), SizeIs(1));
}

TEST(Provision, AFinalErrorEndsTheIntentOnceNothingIsLeft) {
  Cluster cluster;
  cluster.driver->fail_before(drivers::Verb::kCreate, absl::InvalidArgumentError("speed must be a number"));
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait_event("ProvisioningFailed", "speed must be a number"));
  EXPECT_TRUE(cluster.wait([&] { return cluster.no_intents(); }));
  EXPECT_EQ(cluster.op->world.usage.total("fast").volumes, 0);
  // Slowly by itself; at once when the class changes.
  EXPECT_EQ(cluster.driver->calls(drivers::Verb::kCreate), 1);
  cluster.api.put(cluster.storage_class().parameter("speed", "1"));
  EXPECT_TRUE(cluster.wait([&] { return cluster.bound("data"); }));
}

TEST(Provision, AFinalErrorThatLeftAVolumeBehindIsCleanedUp) {
  Cluster cluster;
  cluster.driver->fail_after(drivers::Verb::kCreate, absl::InternalError("mkfs failed"));
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.driver->calls(drivers::Verb::kRemove) == 1; }));
  EXPECT_TRUE(cluster.wait([&] { return cluster.bound("data"); }));
  EXPECT_THAT(cluster.driver->volumes(), SizeIs(1));
}

TEST(Provision, AVolumeOfOurNameThatIsNotOursIsNeverRemoved) {
  Cluster cluster;
  cluster.driver->put({.id = "vol-pvc-uid-data",
                       .name = "pvc-uid-data",
                       .capacity_bytes = 5 << 20,
                       .tags = {{drivers::kTagCluster, "cluster-2"}}});
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait_event("ProvisioningFailed", "exists with"));
  cluster.delete_claim("data");
  ASSERT_TRUE(cluster.wait([&] { return cluster.no_intents(); }));
  EXPECT_THAT(cluster.driver->volumes(), SizeIs(1));
  EXPECT_EQ(cluster.driver->calls(drivers::Verb::kRemove), 0);
}

TEST(Provision, ASmallerAnswerIsRemovedAndTriedAgain) {
  Cluster cluster;
  auto shrinking = std::make_shared<testing::ShrinkingDriver>(cluster.driver);
  shrinking->shrink = 1;
  cluster.driver_used = shrinking;
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait_event("ProvisioningFailed", "were asked for"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.bound("data"); }));
  EXPECT_EQ(cluster.driver->calls(drivers::Verb::kRemove), 1);
  EXPECT_EQ(base::get_string(*cluster.pv("pvc-uid-data"), "/spec/capacity/storage"), "1Gi");
}

TEST(Provision, AnAnswerWithoutASizeHasTheSizeAskedFor) {
  Cluster cluster;
  auto silent = std::make_shared<testing::ShrinkingDriver>(cluster.driver);
  silent->silent = true;
  cluster.driver_used = silent;
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.bound("data"); }));
  EXPECT_EQ(base::get_string(*cluster.pv("pvc-uid-data"), "/spec/capacity/storage"), "1Gi");
}

TEST(Provision, AFailedPersistentVolumeIsTriedAgainWithoutTheDriver) {
  Cluster cluster;
  cluster.api.fail_next("create", "persistentvolumes", Fault::answer(500, "InternalError"));
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.bound("data"); }));
  EXPECT_EQ(cluster.driver->calls(drivers::Verb::kCreate), 1);
}

TEST(Provision, OurOwnWriteWhoseAnswerWasLostIsRecognised) {
  Cluster cluster;
  cluster.api.fail_next("create", "persistentvolumes", Fault::drop_after());
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.bound("data") && cluster.no_intents(); }));
  EXPECT_THAT(cluster.driver->volumes(), SizeIs(1));
  EXPECT_EQ(cluster.driver->calls(drivers::Verb::kRemove), 0);
}

TEST(Provision, APersistentVolumeOnItsWayOutIsNoSuccess) {
  Cluster cluster;
  // Not in our caches yet, when the create runs into it: it appears with the driver's call.
  cluster.driver->after([&](const base::Context&, drivers::Verb verb, const std::string&) -> absl::Status {
    if (verb == drivers::Verb::kCreate && cluster.driver->calls(verb) == 1) {
      cluster.api.put(
          a_volume("pvc-uid-data").of_driver("other.csi.io").handle("other").finalizer("keep").deleting());
    }
    return absl::OkStatus();
  });
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.driver->calls(drivers::Verb::kRemove) >= 1; }));
  cluster.api.erase(kube::kPersistentVolumes, "pvc-uid-data");
  ASSERT_TRUE(cluster.wait([&] { return cluster.bound("data"); }));
  EXPECT_EQ(base::get_string(*cluster.pv("pvc-uid-data"), "/spec/csi/volumeHandle"), "fast/vol-pvc-uid-data");
  EXPECT_THAT(cluster.driver->volumes(), SizeIs(1));
}

TEST(Provision, AClaimDeletedWhileItsCreateIsUnderWayLeavesNothing) {
  Cluster cluster;
  cluster.driver->fail_after(drivers::Verb::kCreate, absl::UnavailableError("no answer"));
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.driver->calls(drivers::Verb::kCreate) == 1; }));
  cluster.delete_claim("data");
  EXPECT_TRUE(cluster.wait([&] { return cluster.driver->volumes().empty() && cluster.no_intents(); }));
  EXPECT_FALSE(cluster.pv("pvc-uid-data").has_value());
  EXPECT_EQ(cluster.op->world.usage.total("fast").volumes, 0);
}

TEST(Provision, AClaimMadeAnewUnderItsOldNameIsOtherWork) {
  Cluster cluster;
  cluster.driver->fail_after(drivers::Verb::kCreate, absl::UnavailableError("no answer"));
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.driver->calls(drivers::Verb::kCreate) == 1; }));
  cluster.delete_claim("data");
  cluster.api.put(cluster.claim("data").uid("uid-2"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.pv("pvc-uid-2").has_value(); }));
  EXPECT_TRUE(cluster.wait([&] { return cluster.driver->volumes().size() == 1 && cluster.no_intents(); }));
  EXPECT_TRUE(cluster.driver->volumes().contains("vol-pvc-uid-2"));
}

TEST(Provision, AClaimThatIsGoneLiveIsNotBegun) {
  Cluster cluster;
  // The watch of claims says nothing of the delete.
  cluster.start();
  ASSERT_TRUE(cluster.wait([&] { return cluster.api.open_watches("persistentvolumeclaims") == 1; }));
  cluster.use_backend([](engine::Backend& backend) { backend.ready = absl::UnavailableError("not yet"); });
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait_event("ProvisioningFailed", "not yet"));
  cluster.api.silence_watches(true);
  cluster.delete_claim("data");
  const int reads = cluster.api.count("get", "persistentvolumeclaims");
  cluster.use_backend();
  ASSERT_TRUE(cluster.wait([&] { return cluster.api.count("get", "persistentvolumeclaims") > reads; }));
  cluster.api.silence_watches(false);
  cluster.api.put(cluster.claim("next"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.bound("next"); }));
  EXPECT_THAT(cluster.driver->create_requests(), SizeIs(1));
}

// ---- Places

testing::Cluster::Options on_node_a() {
  Cluster::Options options;
  options.driver.info.control = drivers::ControlPlace::kOwnerNode;
  options.driver.node = "node-a";
  return options;
}

void put_node(Cluster& cluster, const std::string& name) {
  const std::string key = drivers::node_topology_key("fake");
  cluster.api.put(a_node(name).label(key, name));
  cluster.api.put(a_csi_node(name).driver(kFake, "id-" + name, {key}));
}

TEST(ProvisionPlace, TheSelectedNodeIsTheVolumesPlace) {
  Cluster cluster(on_node_a());
  cluster.api.put(cluster.storage_class().wait_for_first_consumer());
  put_node(cluster, "node-a");
  put_node(cluster, "node-b");
  cluster.start();
  cluster.api.put(cluster.claim("data").on_node("node-a"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.bound("data"); }));
  const drivers::Topology place{{drivers::node_topology_key("fake"), "node-a"}};
  EXPECT_THAT(cluster.driver->create_requests().at(0).requisite, ElementsAre(place));
  const Json volume = *cluster.pv("pvc-uid-data");
  EXPECT_EQ(
      base::get_string(volume, "/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/values/0"),
      "node-a");
}

TEST(ProvisionPlace, AFullNodeIsGivenBackToTheScheduler) {
  Cluster cluster(on_node_a());
  cluster.api.put(cluster.storage_class().wait_for_first_consumer());
  put_node(cluster, "node-a");
  cluster.driver->fail_before(drivers::Verb::kCreate, absl::ResourceExhaustedError("node-a is full"));
  cluster.start();
  cluster.api.put(cluster.claim("data").on_node("node-a"));
  ASSERT_TRUE(cluster.wait_event("ProvisioningFailed", "asked for another node than node-a"));
  ASSERT_TRUE(cluster.wait([&] {
    const auto claim = cluster.api.get(kube::kPersistentVolumeClaims, "default/data");
    return base::get_string(*claim, "/metadata/annotations/volume.kubernetes.io~1selected-node").empty();
  }));
  EXPECT_TRUE(cluster.wait([&] { return cluster.no_intents(); }));
}

TEST(ProvisionPlace, ANodeThatIsGoneIsGivenBackToTheScheduler) {
  Cluster cluster(on_node_a());
  cluster.api.put(cluster.storage_class().wait_for_first_consumer());
  cluster.start();
  cluster.api.put(cluster.claim("data").on_node("node-z"));
  EXPECT_TRUE(cluster.wait_event("ProvisioningFailed", "node node-z does not exist"));
  EXPECT_TRUE(cluster.wait([&] {
    const auto claim = cluster.api.get(kube::kPersistentVolumeClaims, "default/data");
    return base::get_string(*claim, "/metadata/annotations/volume.kubernetes.io~1selected-node").empty();
  }));
}

TEST(ProvisionPlace, WithoutARegisteredNodeTheClaimWaits) {
  Cluster cluster(on_node_a());
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait_event("ProvisioningFailed", "no node has registered the CSI driver"));
  put_node(cluster, "node-a");
  EXPECT_TRUE(cluster.wait([&] { return cluster.bound("data"); }));
}

}  // namespace
}  // namespace collage::reconcile
