// VolumeAttachments become attachments at the provider, and end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "unit/reconcile/attach_fixture.h"
#include "unit/testing/other_writer.h"

namespace collage::reconcile {
namespace {

using base::Json;
using drivers::Verb;
using testing::a_csi_node;
using testing::an_attachment;
using testing::AttachTest;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kFake;

constexpr char kFinalizer[] = "external-attacher/fake-collage-storage";
constexpr char kNodeId[] = "/metadata/annotations/csi.alpha.kubernetes.io~1node-id";

TEST_F(AttachTest, AttachesAndSaysSo) {
  cluster.start();
  attach_to("node-a");
  const Json object = *cluster.attachment("pv-1");
  EXPECT_EQ(object["metadata"]["finalizers"], Json({kFinalizer}));
  EXPECT_EQ(base::get_string(object, kNodeId), "id-node-a");
  EXPECT_EQ(object["status"]["attachmentMetadata"], Json({{"device", "vol-pv-1"}}));
  EXPECT_EQ(holder(), "id-node-a");
}

TEST_F(AttachTest, AndDetachesAgain) {
  cluster.start();
  attach_to("node-a");
  delete_attachment();
  EXPECT_TRUE(cluster.wait([&] { return !cluster.attachment("pv-1").has_value(); }));
  EXPECT_EQ(holder(), "");
}

TEST_F(AttachTest, WritesStayWithinTheBudget) {
  constexpr int kAttachments = 100;
  for (int i = 0; i < kAttachments; ++i) cluster.api.put(cluster.volume("many-" + std::to_string(i)).bound());
  cluster.start();
  cluster.api.reset_counts();
  for (int i = 0; i < kAttachments; ++i) cluster.api.put(attachment("node-a", "many-" + std::to_string(i)));
  ASSERT_TRUE(cluster.wait([&] {
    for (int i = 0; i < kAttachments; ++i) {
      if (!attached("node-a", "many-" + std::to_string(i))) return false;
    }
    return true;
  }));
  EXPECT_LE(cluster.api.writes(), kAttachments * 2.1);
  cluster.api.reset_counts();
  for (int i = 0; i < kAttachments; ++i)
    cluster.api.remove(kube::kVolumeAttachments, "csi-many-" + std::to_string(i) + "-node-a");
  ASSERT_TRUE(cluster.wait([&] { return cluster.api.list(kube::kVolumeAttachments).empty(); }));
  EXPECT_LE(cluster.api.writes(), kAttachments * 2.0);
  EXPECT_EQ(cluster.driver->calls(Verb::kDetach), kAttachments);
}

TEST_F(AttachTest, AStaticVolumeIsProtectedFirst) {
  cluster.api.put(testing::a_volume("pv-1").of_driver(kFake).handle("fast/vol-pv-1").retain().bound());
  cluster.start();
  attach_to("node-a");
  EXPECT_EQ((*cluster.pv("pv-1"))["metadata"]["finalizers"], Json({kFinalizer}));
}

// A finalizer that somebody adds between our look and our write is not lost, on neither object.
TEST_F(AttachTest, OthersFinalizersStayWhateverTheMoment) {
  cluster.api.put(testing::a_volume("pv-1").of_driver(kFake).handle("fast/vol-pv-1").retain().bound());
  testing::write_before_ours(cluster.api, kube::kPersistentVolumes, "pv-1", testing::add_finalizer);
  testing::write_before_ours(cluster.api, kube::kVolumeAttachments, "csi-pv-1-node-a",
                             testing::add_finalizer);
  cluster.start();
  attach_to("node-a");
  EXPECT_EQ((*cluster.pv("pv-1"))["metadata"]["finalizers"], Json({"theirs", kFinalizer}));
  EXPECT_EQ((*cluster.attachment("pv-1"))["metadata"]["finalizers"], Json({"theirs", kFinalizer}));
}

TEST_F(AttachTest, WhatMovesOnWhileItIsAttachedIsStillSaidToBeAttached) {
  cluster.driver->after([this](const base::Context&, Verb verb, const std::string&) {
    if (verb == Verb::kAttach) {
      cluster.api.update(kube::kVolumeAttachments, "csi-pv-1-node-a",
                         [](Json& object) { object["metadata"]["annotations"]["theirs"] = "yes"; });
    }
    return absl::OkStatus();
  });
  cluster.start();
  attach_to("node-a");
  EXPECT_EQ(base::get_string(*cluster.attachment("pv-1"), "/metadata/annotations/theirs"), "yes");
  EXPECT_EQ(cluster.driver->calls(Verb::kAttach), 1);
}

// Its predecessor vanished while it was being attached.
TEST_F(AttachTest, OneOfTheSameNameThatWasMadeMeanwhileIsProtectedToo) {
  std::atomic<bool> done = false;
  cluster.driver->after([&](const base::Context&, Verb verb, const std::string&) {
    if (verb == Verb::kAttach && !done.exchange(true)) {
      cluster.api.erase(kube::kVolumeAttachments, "csi-pv-1-node-a");
      cluster.api.put(attachment("node-a").uid("second"));
    }
    return absl::OkStatus();
  });
  cluster.start();
  attach_to("node-a");
  const Json object = *cluster.attachment("pv-1");
  EXPECT_EQ(base::get_string(object, "/metadata/uid"), "second");
  EXPECT_EQ(object["metadata"]["finalizers"], Json({kFinalizer}));
  EXPECT_EQ(base::get_string(object, kNodeId), "id-node-a");
}

TEST_F(AttachTest, AMoveIsADetachAndAnAttachAtOnce) {
  cluster.start();
  attach_to("node-a");
  cluster.api.put(attachment("node-b"));
  ASSERT_TRUE(wait_error("node-b", "/status/attachError/message", "is attached to id-node-a"));
  EXPECT_EQ(base::get_int(*cluster.attachment("pv-1", "node-b"), "/status/attachError/errorCode"),
            static_cast<int>(absl::StatusCode::kFailedPrecondition));
  delete_attachment("node-a");
  ASSERT_TRUE(cluster.wait([&] { return attached("node-b"); }));
  EXPECT_EQ(attach_error("node-b"), "");
  EXPECT_EQ(holder(), "id-node-b");
}

TEST_F(AttachTest, TheSameErrorIsWrittenOnce) {
  cluster.driver->fail_before(Verb::kAttach, absl::InternalError("no"), 2);
  cluster.start();
  cluster.api.put(attachment());
  ASSERT_TRUE(cluster.wait([&] { return attached(); }));
  // The finalizer, the error once, the success.
  EXPECT_EQ(cluster.api.writes("volumeattachments"), 3);
  EXPECT_EQ(cluster.driver->calls(Verb::kAttach), 3);
}

TEST_F(AttachTest, ANodeThatRegistersLaterIsEnough) {
  cluster.api.erase(kube::kCsiNodes, "node-a");
  cluster.start();
  cluster.api.put(attachment());
  ASSERT_TRUE(wait_error("node-a", "/status/attachError/message", "has not registered fake.collage.storage"));
  // Nothing was begun: the attachment can be deleted freely.
  EXPECT_FALSE(cluster.attachment("pv-1")->at("metadata").contains("finalizers"));
  cluster.api.put(a_csi_node("node-a").driver(kFake, "id-node-a"));
  EXPECT_TRUE(cluster.wait([&] { return attached(); }));
}

// As right after a change of leaders, while a storage system hangs.
struct AttachWhileBeingSetUp : AttachTest {
  void SetUp() override {
    cluster.api.put(testing::a_backend("fast").kind("fake", Json::object()));
    cluster.api.put(testing::a_volume("other").of_driver(kFake).handle("unknown/vol-other").bound());
    cluster.start();
    cluster.drop_backend();
    cluster.api.put(attachment("node-a"));
    cluster.api.put(attachment("node-a", "other"));
    ASSERT_TRUE(cluster.wait(
        [&] { return base::get_string(*cluster.attachment("other"), "/status/attachError/message") != ""; }));
    EXPECT_EQ(attach_error("node-a"), "");
  }
};

TEST_F(AttachWhileBeingSetUp, ABackendIsWaitedForInSilence) {
  cluster.api.reset_counts();
  cluster.use_backend();
  ASSERT_TRUE(cluster.wait([&] { return attached(); }));
  EXPECT_EQ(cluster.api.writes("volumeattachments"), 2);  // no error had to be taken back
}

// Who waits in silence is not left in the dark when nothing comes of it.
TEST_F(AttachWhileBeingSetUp, ABackendThatTurnsOutUnusableIsToldAtOnce) {
  cluster.api.put(testing::a_backend("fast")
                      .kind("fake", Json::object())
                      .condition("Ready", false, "Unreachable", "no answer"));
  EXPECT_TRUE(wait_error("node-a", "/status/attachError/message", "no answer"));
}

TEST_F(AttachTest, AVolumeThatIsGoingIsNotAttached) {
  cluster.api.put(cluster.volume("pv-1").bound().deleting());
  cluster.start();
  cluster.api.put(attachment());
  EXPECT_TRUE(wait_error("node-a", "/status/attachError/message", "PersistentVolume pv-1 is being deleted"));
  EXPECT_EQ(cluster.driver->calls(Verb::kAttach), 0);
}

TEST_F(AttachTest, AnotherStorageSystemUnderTheSameNameIsNotTouched) {
  cluster.api.put(cluster.volume("pv-1").attribute("collage.storage/system-id", "the-old-one").bound());
  cluster.start();
  cluster.api.put(attachment());
  EXPECT_TRUE(wait_error("node-a", "/status/attachError/message", "the-old-one"));
  EXPECT_EQ(cluster.driver->calls(Verb::kAttach), 0);
}

TEST_F(AttachTest, AnotherAttachersAttachmentsAreLeftAlone) {
  cluster.start();
  cluster.api.put(an_attachment("pv-1", "node-b").of_driver("ebs.csi.aws.com"));
  attach_to("node-a");
  EXPECT_FALSE(cluster.attachment("pv-1", "node-b")->at("metadata").contains("finalizers"));
}

TEST_F(AttachTest, AnAttachWithoutAnAnswerIsDetachedBeforeItsFinalizerGoes) {
  cluster.driver->fail_after(Verb::kAttach, absl::DeadlineExceededError("no answer"), 100);
  cluster.start();
  cluster.api.put(attachment());
  ASSERT_TRUE(wait_error("node-a", "/status/attachError/message", "no answer"));
  EXPECT_EQ(holder(), "id-node-a");
  delete_attachment();
  ASSERT_TRUE(cluster.wait([&] { return !cluster.attachment("pv-1").has_value(); }));
  EXPECT_EQ(holder(), "");
}

TEST_F(AttachTest, ADetachThatFailsKeepsTheAttachment) {
  cluster.start();
  attach_to("node-a");
  cluster.driver->fail_before(Verb::kDetach, absl::NotFoundError("what volume?"));
  delete_attachment();
  EXPECT_TRUE(wait_error("node-a", "/status/detachError/message", "what volume?"));
  EXPECT_TRUE(cluster.wait([&] { return !cluster.attachment("pv-1").has_value(); }));
}

TEST_F(AttachTest, TheNodesIdIsTakenFromTheAttachmentWhenTheNodeIsUnregistered) {
  cluster.start();
  attach_to("node-a");
  cluster.api.erase(kube::kCsiNodes, "node-a");
  ASSERT_TRUE(cluster.wait([&] { return cluster.op->world.csi_nodes.get("node-a") == nullptr; }));
  delete_attachment();
  EXPECT_TRUE(cluster.wait([&] { return !cluster.attachment("pv-1").has_value(); }));
  EXPECT_EQ(holder(), "");
}

TEST_F(AttachTest, OthersFinalizersKeepTheAttachmentAndItsStatusSaysDetached) {
  cluster.start();
  attach_to("node-a");
  cluster.api.update(kube::kVolumeAttachments, "csi-pv-1-node-a", [](Json& json) {
    json["metadata"]["finalizers"].insert(json["metadata"]["finalizers"].begin(), "theirs");
  });
  delete_attachment();
  ASSERT_TRUE(cluster.wait([&] { return !attached(); }));
  const Json object = *cluster.attachment("pv-1");
  EXPECT_EQ(object["metadata"]["finalizers"], Json({"theirs"}));
  EXPECT_FALSE(object["status"].contains("attachmentMetadata"));
}

TEST_F(AttachTest, AVolumeObjectThatVanishedIsFoundByItsName) {
  cluster.api.put(cluster.volume("pvc-uid-data").bound());
  cluster.start();
  cluster.api.put(attachment("node-a", "pvc-uid-data"));
  ASSERT_TRUE(cluster.wait([&] { return attached("node-a", "pvc-uid-data"); }));
  cluster.api.erase(kube::kPersistentVolumes, "pvc-uid-data");
  ASSERT_TRUE(cluster.wait([&] { return cluster.op->world.volumes.get("pvc-uid-data") == nullptr; }));
  cluster.api.remove(kube::kVolumeAttachments, "csi-pvc-uid-data-node-a");
  EXPECT_TRUE(cluster.wait([&] { return !cluster.attachment("pvc-uid-data").has_value(); }));
  EXPECT_EQ(cluster.driver->volumes().at("vol-pvc-uid-data").attached_to, "");
}

TEST_F(AttachTest, AVolumeObjectThatVanishedIsNotGivenUpWhileABackendIsBeingSetUp) {
  cluster.api.put(testing::a_backend("fast").kind("fake", Json::object()));
  cluster.api.put(cluster.volume("pvc-uid-data").bound());
  cluster.start();
  cluster.api.put(attachment("node-a", "pvc-uid-data"));
  ASSERT_TRUE(cluster.wait([&] { return attached("node-a", "pvc-uid-data"); }));
  cluster.api.erase(kube::kPersistentVolumes, "pvc-uid-data");
  ASSERT_TRUE(cluster.wait([&] { return cluster.op->world.volumes.get("pvc-uid-data") == nullptr; }));
  cluster.drop_backend();
  cluster.api.remove(kube::kVolumeAttachments, "csi-pvc-uid-data-node-a");
  ASSERT_TRUE(cluster.wait([&] {
    return base::get_string(*cluster.attachment("pvc-uid-data"), "/status/detachError/message")
               .find("StorageBackend \"fast\"") != std::string::npos;
  }));
  cluster.use_backend();
  EXPECT_TRUE(cluster.wait([&] { return !cluster.attachment("pvc-uid-data").has_value(); }));
  EXPECT_EQ(cluster.driver->volumes().at("vol-pvc-uid-data").attached_to, "");
}

// A storage system of the same name that is not the one the volume was made on may hold a volume of that id
// too.
TEST_F(AttachTest, AnotherStorageSystemUnderTheSameNameIsNotAskedToDetach) {
  cluster.api.put(cluster.volume("pv-1").attribute("collage.storage/system-id", "fake-system").bound());
  cluster.start();
  attach_to("node-a");
  cluster.use_backend([](engine::Backend& backend) { backend.system_id = "another-system"; });
  delete_attachment();
  ASSERT_TRUE(wait_error("node-a", "/status/detachError/message", "another-system"));
  EXPECT_EQ(cluster.driver->calls(Verb::kDetach), 0);
  cluster.use_backend();
  EXPECT_TRUE(cluster.wait([&] { return !cluster.attachment("pv-1").has_value(); }));
  EXPECT_EQ(holder(), "");
}

TEST_F(AttachTest, AVolumeObjectThatVanishedIsNotLookedForOnAnotherStorageSystem) {
  cluster.api.put(cluster.volume("pvc-uid-data").bound());
  cluster.start();
  cluster.api.put(attachment("node-a", "pvc-uid-data"));
  ASSERT_TRUE(cluster.wait([&] { return attached("node-a", "pvc-uid-data"); }));
  cluster.use_backend([](engine::Backend& backend) {
    backend.identity = absl::FailedPreconditionError("it says that it is another-system");
  });
  cluster.api.erase(kube::kPersistentVolumes, "pvc-uid-data");
  ASSERT_TRUE(cluster.wait([&] { return cluster.op->world.volumes.get("pvc-uid-data") == nullptr; }));
  cluster.api.remove(kube::kVolumeAttachments, "csi-pvc-uid-data-node-a");
  EXPECT_TRUE(cluster.wait([&] {
    const auto object = cluster.attachment("pvc-uid-data");
    return object.has_value() &&
           base::get_string(*object, "/status/detachError/message").find("another-system") !=
               std::string::npos;
  }));
  EXPECT_EQ(cluster.driver->calls(Verb::kFind), 0);
  EXPECT_EQ(cluster.driver->volumes().at("vol-pvc-uid-data").attached_to, "id-node-a");
  cluster.use_backend();
  EXPECT_TRUE(cluster.wait([&] { return !cluster.attachment("pvc-uid-data").has_value(); }));
  EXPECT_EQ(cluster.driver->volumes().at("vol-pvc-uid-data").attached_to, "");
}

TEST(DetachNodeIds, BothThatAreKnownOnce) {
  const auto attachment = kube::parse<kube::Attachment>(an_attachment().of_driver(kFake).with_node_id("old"));
  const auto csi_node = kube::parse<kube::CsiNode>(a_csi_node().driver(kFake, "new"));
  const auto same = kube::parse<kube::CsiNode>(a_csi_node().driver(kFake, "old"));
  const auto bare = kube::parse<kube::Attachment>(an_attachment().of_driver(kFake));
  ASSERT_TRUE(attachment.ok() && csi_node.ok() && same.ok() && bare.ok());
  EXPECT_THAT(detach_node_ids(*attachment, &*csi_node), ElementsAre("new", "old"));
  EXPECT_THAT(detach_node_ids(*attachment, &*same), ElementsAre("old"));
  EXPECT_THAT(detach_node_ids(*attachment, nullptr), ElementsAre("old"));
  EXPECT_THAT(detach_node_ids(*bare, nullptr), IsEmpty());
}

TEST_F(AttachTest, WhatTheStorageHasLostIsAttachedOnceMore) {
  cluster.start();
  cluster.api.put(attachment());
  ASSERT_TRUE(cluster.wait([&] { return attached(); }));
  const std::string handle = "vol-pv-1";
  drivers::Volume lost = cluster.driver->volumes().at(handle);
  ASSERT_EQ(lost.attached_to, "id-node-a");
  lost.attached_to.clear();
  cluster.driver->put(lost);
  cluster.op->attacher.attach_again("csi-pv-1-node-a");
  EXPECT_TRUE(cluster.wait([&] { return cluster.driver->volumes().at(handle).attached_to == "id-node-a"; }));
  EXPECT_TRUE(attached());
  EXPECT_EQ(cluster.driver->calls(drivers::Verb::kAttach), 2);
}

}  // namespace
}  // namespace collage::reconcile
