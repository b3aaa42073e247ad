// Released volumes go, at the provider and as objects.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "operator/reconcile/finalizers.h"
#include "unit/reconcile/cluster.h"
#include "unit/testing/other_writer.h"

namespace collage::reconcile {
namespace {

using base::Json;
using drivers::Verb;
using testing::a_volume;
using testing::an_attachment;
using testing::Cluster;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kFake;
using ::testing::SizeIs;
using testing::VolumeBuilder;

constexpr char kOurs[] = "external-provisioner.volume.kubernetes.io/finalizer";
constexpr char kAttachers[] = "external-attacher/fake-collage-storage";

std::vector<std::string> finalizers(const std::optional<Json>& object) {
  std::vector<std::string> list;
  if (!object.has_value()) return list;
  if (const Json* found = base::find(*object, "/metadata/finalizers")) {
    for (const Json& finalizer : *found) list.push_back(finalizer.get<std::string>());
  }
  return list;
}

TEST(DecideReclaim, Table) {
  struct Case {
    std::string_view name;
    VolumeBuilder volume;
    int attachments;
    ReclaimStep step;
  };
  const auto volume = [] { return a_volume("pv").of_driver(kFake); };
  const auto kept = [&] { return volume().finalizer(kOurs).finalizer(kAttachers); };
  const Case cases[] = {
      {"a released volume with policy Delete is deleted", kept().released(), 0, ReclaimStep::kDelete},
      {"also without our finalizer, as long as nobody deleted the object", volume().released(), 0,
       ReclaimStep::kDelete},
      {"also when the object was deleted, while our finalizer keeps it", kept().released().deleting(), 0,
       ReclaimStep::kDelete},
      {"not when the object was deleted and nothing of ours keeps it",
       volume().finalizer("other").released().deleting(), 0, ReclaimStep::kIgnore},
      {"an attachment is waited for", kept().released(), 1, ReclaimStep::kWaitForDetach},
      {"a bound volume stays", kept().bound(), 1, ReclaimStep::kIgnore},
      {"a bound volume whose object was deleted stays until it is released", kept().bound().deleting(), 0,
       ReclaimStep::kIgnore},
      {"an available volume stays", kept(), 0, ReclaimStep::kIgnore},
      {"a bound static volume with policy Delete gets our finalizer", volume().bound(), 0,
       ReclaimStep::kAddFinalizer},
      {"not when it is being deleted", volume().finalizer("other").bound().deleting(), 0,
       ReclaimStep::kIgnore},
      {"with policy Retain our finalizer goes", kept().retain().bound(), 0, ReclaimStep::kDropFinalizers},
      {"a retained volume that is released stays", volume().retain().released(), 0, ReclaimStep::kIgnore},
      {"the attacher's finalizer goes with the last attachment",
       volume().finalizer(kAttachers).retain().released().deleting(), 0, ReclaimStep::kDropFinalizers},
      {"not before", volume().finalizer(kAttachers).retain().released().deleting(), 1, ReclaimStep::kIgnore},
      {"another driver's volume is nobody's business", a_volume("pv").of_driver("ebs.csi.aws.com").released(),
       0, ReclaimStep::kIgnore},
      {"ours provisioned by somebody else is nobody's business",
       volume().annotation("pv.kubernetes.io/provisioned-by", "other").released(), 0, ReclaimStep::kIgnore},
  };
  const drivers::Kind kind = testing::fake_kind();
  for (const Case& c : cases) {
    const auto parsed = kube::parse<kube::Volume>(c.volume);
    ASSERT_TRUE(parsed.ok()) << c.name;
    const bool ours = !engine::kind_of_csi_driver(parsed->driver.str()).empty();
    EXPECT_EQ(decide_reclaim({&*parsed, ours ? &kind : nullptr, c.attachments}), c.step) << c.name;
  }
}

TEST(JudgeVolumeBackend, NamesTheBackendAndTheRemedy) {
  const auto volume = kube::parse<kube::Volume>(
      a_volume("pv").of_driver(kFake).handle("fast/vol-1").attribute("collage.storage/system-id", "sys-1"));
  ASSERT_TRUE(volume.ok());
  const absl::Status unknown = judge_volume_backend("fast", nullptr, *volume);
  EXPECT_THAT(std::string(unknown.message()),
              HasSubstr("StorageBackend \"fast\", which is not in use: create it again"));
  engine::Backend backend;
  backend.spec.kind = "fake";
  backend.system_id = "sys-1";
  EXPECT_TRUE(judge_volume_backend("fast", &backend, *volume).ok());
  backend.system_id = "sys-2";
  const absl::Status other = judge_volume_backend("fast", &backend, *volume);
  EXPECT_TRUE(absl::IsFailedPrecondition(other));
  EXPECT_THAT(std::string(other.message()), HasSubstr("sys-2"));
  backend.system_id = "";
  EXPECT_TRUE(absl::IsUnavailable(judge_volume_backend("fast", &backend, *volume)));
  backend.system_id = "sys-1";
  backend.spec.paused = true;
  EXPECT_TRUE(absl::IsUnavailable(judge_volume_backend("fast", &backend, *volume)));
  backend.spec = {};
  backend.spec.kind = "nfs";
  EXPECT_TRUE(absl::IsFailedPrecondition(judge_volume_backend("fast", &backend, *volume)));
}

TEST(Reclaim, AClaimIsDeletedAndEverythingIsGone) {
  Cluster cluster({.protects = true});
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.bound("data"); }));
  cluster.delete_claim("data");
  EXPECT_TRUE(cluster.wait(
      [&] { return cluster.driver->volumes().empty() && !cluster.pv("pvc-uid-data").has_value(); }));
  EXPECT_TRUE(cluster.wait([&] { return cluster.op->world.usage.total("fast").volumes == 0; }));
}

TEST(Reclaim, WritesStayWithinTheBudget) {
  Cluster cluster({.protects = true});
  cluster.start();
  constexpr int kVolumes = 100;
  for (int i = 0; i < kVolumes; ++i) cluster.api.put(cluster.volume("pv-" + std::to_string(i)).bound());
  ASSERT_TRUE(cluster.wait([&] { return cluster.op->world.volumes.size() == kVolumes; }));
  cluster.api.reset_counts();
  for (int i = 0; i < kVolumes; ++i) {
    cluster.api.update(kube::kPersistentVolumes, "pv-" + std::to_string(i),
                       [](Json& json) { json["status"]["phase"] = "Released"; });
  }
  ASSERT_TRUE(cluster.wait([&] { return cluster.api.list(kube::kPersistentVolumes).empty(); }));
  EXPECT_THAT(cluster.driver->volumes(), IsEmpty());
  EXPECT_LE(cluster.api.writes(), kVolumes * 2.1);
  // Once live before the driver's call: our own writes come back as changes that need no second look.
  EXPECT_EQ(cluster.api.count("get", "persistentvolumes"), kVolumes);
  EXPECT_EQ(cluster.driver->calls(Verb::kRemove), kVolumes);
}

TEST(Reclaim, WhatIsStillAttachedWaits) {
  Cluster cluster({.attach = {.threads_per_backend = 1}});
  cluster.api.put(cluster.volume("pv-1").released());
  // Somebody else's finalizer keeps the attachment.
  cluster.api.put(an_attachment("pv-1").of_driver(kFake).attached().finalizer("theirs").deleting());
  cluster.api.put(cluster.volume("pv-2").released());
  cluster.start();
  ASSERT_TRUE(cluster.wait([&] { return !cluster.pv("pv-2").has_value(); }));
  EXPECT_TRUE(cluster.driver->volumes().contains("vol-pv-1"));
  cluster.api.erase(kube::kVolumeAttachments, "csi-pv-1-node-a");
  EXPECT_TRUE(cluster.wait([&] { return !cluster.pv("pv-1").has_value(); }));
  EXPECT_THAT(cluster.driver->volumes(), IsEmpty());
}

TEST(Reclaim, ADeleteThatFailsIsSaidAndTriedAgain) {
  Cluster cluster;
  cluster.driver->fail_before(Verb::kRemove, absl::FailedPreconditionError("busy: held by node-c"));
  cluster.api.put(cluster.volume("pv-1").released());
  cluster.start();
  EXPECT_TRUE(cluster.wait_event("VolumeFailedDelete", "busy: held by node-c"));
  EXPECT_TRUE(cluster.wait([&] { return !cluster.pv("pv-1").has_value(); }));
}

TEST(Reclaim, AnUnknownBackendIsSaidAndNothingIsLost) {
  Cluster cluster;
  cluster.api.put(cluster.volume("pv-1").handle("gone/vol-pv-1").released());
  cluster.start();
  ASSERT_TRUE(cluster.wait_event("VolumeFailedDelete", "StorageBackend \"gone\", which is not in use"));
  EXPECT_TRUE(cluster.driver->volumes().contains("vol-pv-1"));
  // It comes back: at once.
  cluster.use_backend([](engine::Backend& backend) { backend.spec.name = "gone"; });
  EXPECT_TRUE(
      cluster.wait([&] { return cluster.driver->volumes().empty() && !cluster.pv("pv-1").has_value(); }));
}

TEST(Reclaim, AnotherStorageSystemUnderTheSameNameIsNotTouched) {
  Cluster cluster;
  cluster.api.put(cluster.volume("pv-1").attribute("collage.storage/system-id", "the-old-one").released());
  cluster.start();
  ASSERT_TRUE(cluster.wait_event("VolumeFailedDelete", "the-old-one"));
  EXPECT_EQ(cluster.driver->calls(Verb::kRemove), 0);
  EXPECT_TRUE(cluster.pv("pv-1").has_value());
}

TEST(Reclaim, APolicyJustChangedToRetainWins) {
  Cluster cluster;
  cluster.start();
  cluster.use_backend([](engine::Backend& backend) { backend.spec.paused = true; });
  cluster.api.put(cluster.volume("pv-1").released());
  ASSERT_TRUE(cluster.wait([&] { return cluster.op->reclaimer.depth() == 1; }));
  // The watch does not tell.
  cluster.api.silence_watches(true);
  cluster.api.update(kube::kPersistentVolumes, "pv-1",
                     [](Json& json) { json["spec"]["persistentVolumeReclaimPolicy"] = "Retain"; });
  const int reads = cluster.api.count("get", "persistentvolumes");
  cluster.use_backend();
  ASSERT_TRUE(cluster.wait([&] { return cluster.api.count("get", "persistentvolumes") > reads; }));
  cluster.api.silence_watches(false);
  // Ours is taken off, as it has no meaning any more.
  ASSERT_TRUE(
      cluster.wait([&] { return finalizers(cluster.pv("pv-1")) == std::vector<std::string>{kAttachers}; }));
  EXPECT_EQ(cluster.driver->calls(Verb::kRemove), 0);
}

TEST(Reclaim, AStaticVolumeIsProtectedWhileItIsBound) {
  Cluster cluster;
  cluster.driver->put({.id = "static-1", .capacity_bytes = 1 << 30});
  cluster.api.put(a_volume("pv-1").of_driver(kFake).handle("fast/static-1").finalizer("theirs").bound());
  cluster.start();
  ASSERT_TRUE(cluster.wait([&] {
    return finalizers(cluster.pv("pv-1")) == std::vector<std::string>{"theirs", kOurs};
  }));
  cluster.api.update(kube::kPersistentVolumes, "pv-1",
                     [](Json& json) { json["status"]["phase"] = "Released"; });
  ASSERT_TRUE(
      cluster.wait([&] { return finalizers(cluster.pv("pv-1")) == std::vector<std::string>{"theirs"}; }));
  EXPECT_THAT(cluster.driver->volumes(), IsEmpty());
}

TEST(Reclaim, OthersFinalizersStayWhateverTheMoment) {
  Cluster cluster;
  cluster.driver->put({.id = "static-1", .capacity_bytes = 1 << 30});
  testing::write_before_ours(cluster.api, kube::kPersistentVolumes, "pv-1", testing::add_finalizer);
  cluster.api.put(a_volume("pv-1").of_driver(kFake).handle("fast/static-1").bound());
  cluster.start();
  EXPECT_TRUE(cluster.wait([&] {
    return finalizers(cluster.pv("pv-1")) == std::vector<std::string>{"theirs", kOurs};
  }));
}

// Between our look and our call somebody has put another object in its place.
TEST(Reclaim, TheObjectOfTheSameNameThatCameAfterStays) {
  Cluster cluster;
  const Json another = a_volume("pv-1").uid("another").of_driver("theirs.example.com").handle("x").bound();
  cluster.api.put(cluster.volume("pv-1").released());
  cluster.api.on_request([&](const testing::ApiRequest& request) {
    if (request.verb == "delete" && request.resource == "persistentvolumes") {
      cluster.api.erase(kube::kPersistentVolumes, "pv-1");
      cluster.api.put(another);
    }
    return testing::Fault{};
  });
  cluster.start();
  ASSERT_TRUE(cluster.wait([&] { return cluster.api.count("delete", "persistentvolumes") > 0; }));
  ASSERT_TRUE(cluster.wait([&] {
    const auto seen = cluster.op->world.volumes.get("pv-1");
    return seen != nullptr && seen->meta.uid == "another";
  }));
  cluster.kill();
  ASSERT_TRUE(cluster.pv("pv-1").has_value());
  EXPECT_FALSE((*cluster.pv("pv-1"))["metadata"].contains("deletionTimestamp"));
}

TEST(Reclaim, ARetainedVolumeLosesItsObjectAndKeepsItsData) {
  Cluster cluster;
  cluster.api.put(cluster.volume("pv-1").retain().released());
  cluster.start();
  cluster.api.remove(kube::kPersistentVolumes, "pv-1");
  EXPECT_TRUE(cluster.wait([&] { return !cluster.pv("pv-1").has_value(); }));
  EXPECT_TRUE(cluster.driver->volumes().contains("vol-pv-1"));
  EXPECT_EQ(cluster.driver->calls(Verb::kRemove), 0);
}

TEST(Reclaim, ItsUsageIsGivenBack) {
  Cluster cluster;
  cluster.api.put(cluster.volume("pv-1").bound());
  cluster.start();
  ASSERT_EQ(cluster.op->world.usage.total("fast").volumes, 1);
  cluster.api.update(kube::kPersistentVolumes, "pv-1",
                     [](Json& json) { json["status"]["phase"] = "Released"; });
  EXPECT_TRUE(cluster.wait([&] { return cluster.op->world.usage.total("fast").volumes == 0; }));
}

// ---- Finalizers

TEST(Finalizers, RemovalTestsThePlaceOfEach) {
  kube::Meta meta;
  meta.uid = "u";
  meta.finalizers = {kube::Interned("a"), kube::Interned("b"), kube::Interned("c")};
  const Json expected = Json::parse(R"([
    {"op": "test", "path": "/metadata/finalizers/2", "value": "c"},
    {"op": "test", "path": "/metadata/finalizers/0", "value": "a"},
    {"op": "test", "path": "/metadata/uid", "value": "u"},
    {"op": "remove", "path": "/metadata/finalizers/2"},
    {"op": "remove", "path": "/metadata/finalizers/0"}])");
  EXPECT_EQ(remove_finalizers_patch(meta, {"a", "c", "x"}), expected);
  EXPECT_TRUE(remove_finalizers_patch(meta, {"x"}).empty());
}

TEST(Finalizers, AListThatMovedIsReadAgain) {
  testing::FakeApiServer api;
  const auto client = api.client();
  api.put(a_volume("pv").finalizer("theirs").finalizer("ours"));
  auto meta = kube::parse_meta(*api.get(kube::kPersistentVolumes, "pv"));
  ASSERT_TRUE(meta.ok());
  api.update(kube::kPersistentVolumes, "pv", [](Json& json) {
    json["metadata"]["finalizers"] = {"new", "theirs", "ours"};
  });
  const auto now = remove_finalizers({}, *client, kube::kPersistentVolumes, *meta, {"ours"});
  ASSERT_TRUE(now.ok()) << now.status();
  EXPECT_EQ((*now)["metadata"]["finalizers"], Json({"new", "theirs"}));
}

TEST(Finalizers, AnotherObjectOfTheSameNameKeepsIts) {
  testing::FakeApiServer api;
  const auto client = api.client();
  api.put(a_volume("pv").finalizer("ours"));
  auto meta = kube::parse_meta(*api.get(kube::kPersistentVolumes, "pv"));
  ASSERT_TRUE(meta.ok());
  api.erase(kube::kPersistentVolumes, "pv");
  api.put(a_volume("pv").uid("another").finalizer("ours"));
  const auto now = remove_finalizers({}, *client, kube::kPersistentVolumes, *meta, {"ours"});
  ASSERT_TRUE(now.ok()) << now.status();
  EXPECT_TRUE(now->is_null());
  EXPECT_THAT(finalizers(api.get(kube::kPersistentVolumes, "pv")), SizeIs(1));
}

}  // namespace
}  // namespace collage::reconcile
