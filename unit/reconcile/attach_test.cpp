// VolumeAttachments become attachments at the provider, and end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "unit/reconcile/cluster.h"

namespace collage::reconcile {
namespace {

using base::Json;
using drivers::Verb;
using testing::a_csi_node;
using testing::a_node;
using testing::an_attachment;
using testing::AttachmentBuilder;
using testing::Cluster;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kFake;

constexpr char kFinalizer[] = "external-attacher/fake-collage-storage";
constexpr char kNodeId[] = "/metadata/annotations/csi.alpha.kubernetes.io~1node-id";

// Two nodes with the driver, and volume "pv-1".
struct AttachTest : ::testing::Test {
  AttachTest() { fill(); }
  void fill() {
    for (const std::string name : {"node-a", "node-b"}) {
      cluster.api.put(a_node(name));
      cluster.api.put(a_csi_node(name).driver(kFake, "id-" + name));
    }
    cluster.api.put(cluster.volume("pv-1").bound());
  }
  static AttachmentBuilder attachment(const std::string& node = "node-a",
                                      const std::string& volume = "pv-1") {
    return an_attachment(volume, node).of_driver(kFake);
  }
  bool attached(const std::string& node = "node-a", const std::string& volume = "pv-1") {
    const auto object = cluster.attachment(volume, node);
    return object.has_value() && base::get_bool(*object, "/status/attached");
  }
  std::string attach_error(const std::string& node = "node-a") {
    return error(node, "/status/attachError/message");
  }
  std::string detach_error(const std::string& node = "node-a") {
    return error(node, "/status/detachError/message");
  }
  std::string error(const std::string& node, const std::string& pointer) {
    const auto object = cluster.attachment("pv-1", node);
    return object.has_value() ? base::get_string(*object, pointer) : "";
  }
  bool wait_error(const std::string& node, const std::string& pointer, const std::string& part) {
    const bool came = cluster.wait([&] { return error(node, pointer).find(part) != std::string::npos; });
    EXPECT_TRUE(came) << error(node, pointer);
    return came;
  }
  std::string holder() { return cluster.driver->volumes().at("vol-pv-1").attached_to; }
  void set_in_use(const std::string& node, bool in_use) {
    cluster.api.update(kube::kNodes, node, [&](Json& json) {
      json["status"]["volumesInUse"] =
          in_use ? Json({"kubernetes.io/csi/fake.collage.storage^fast/vol-pv-1"}) : Json::array();
    });
  }
  void set_ready(const std::string& node, bool ready) {
    cluster.api.update(kube::kNodes, node, [&](Json& json) {
      json["status"]["conditions"] = {{{"type", "Ready"}, {"status", ready ? "True" : "Unknown"}}};
    });
  }
  void delete_attachment(const std::string& node = "node-a") {
    cluster.api.remove(kube::kVolumeAttachments, "csi-pv-1-" + node);
  }
  void attach_to(const std::string& node) {
    cluster.api.put(attachment(node));
    ASSERT_TRUE(cluster.wait([&] { return attached(node); }));
  }

  Cluster cluster;
};

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

// ---- Who holds it?

TEST_F(AttachTest, WhatKubeletStillUsesIsNotDetachedUntilItIsUnstaged) {
  cluster.start();
  attach_to("node-a");
  set_in_use("node-a", true);
  delete_attachment();
  ASSERT_TRUE(wait_error("node-a", "/status/detachError/message", "node node-a, which still uses it"));
  EXPECT_EQ(holder(), "id-node-a");
  set_in_use("node-a", false);
  EXPECT_TRUE(cluster.wait([&] { return !cluster.attachment("pv-1").has_value(); }));
}

TEST_F(AttachTest, ASilentNodeKeepsItsVolumeUntilSomebodySaysThatItIsOff) {
  cluster.start();
  attach_to("node-a");
  set_in_use("node-a", true);
  set_ready("node-a", false);
  delete_attachment();
  ASSERT_TRUE(
      wait_error("node-a", "/status/detachError/message",
                 "kubectl taint node node-a node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"));
  EXPECT_EQ(cluster.driver->calls(Verb::kDetach), 0);
  cluster.api.update(kube::kNodes, "node-a", [](Json& json) {
    json["spec"]["taints"] = {
        {{"key", "node.kubernetes.io/out-of-service"}, {"value", "nodeshutdown"}, {"effect", "NoExecute"}}};
  });
  EXPECT_TRUE(cluster.wait([&] { return !cluster.attachment("pv-1").has_value(); }));
  EXPECT_TRUE(cluster.wait_event("ForcedDetach", "out-of-service"));
}

TEST_F(AttachTest, ADeletedNodeIsNoProof) {
  cluster.start();
  attach_to("node-a");
  cluster.api.erase(kube::kNodes, "node-a");
  ASSERT_TRUE(cluster.wait([&] { return cluster.op->world.nodes.get("node-a") == nullptr; }));
  delete_attachment();
  ASSERT_TRUE(wait_error("node-a", "/status/detachError/message", "whose Node object is gone"));
  EXPECT_EQ(cluster.driver->calls(Verb::kDetach), 0);
  cluster.api.update(kube::kVolumeAttachments, "csi-pv-1-node-a",
                     [](Json& json) { json["metadata"]["annotations"][kHolderGone] = "true"; });
  EXPECT_TRUE(cluster.wait([&] { return !cluster.attachment("pv-1").has_value(); }));
}

TEST_F(AttachTest, WhatAnotherNodeHoldsIsLetGoOfFreely) {
  cluster.start();
  attach_to("node-a");
  cluster.api.put(attachment("node-b"));
  ASSERT_TRUE(wait_error("node-b", "/status/attachError/message", "is attached to id-node-a"));
  cluster.api.erase(kube::kNodes, "node-b");
  ASSERT_TRUE(cluster.wait([&] { return cluster.op->world.nodes.get("node-b") == nullptr; }));
  delete_attachment("node-b");
  EXPECT_TRUE(cluster.wait([&] { return !cluster.attachment("pv-1", "node-b").has_value(); }));
  EXPECT_EQ(holder(), "id-node-a");
}

TEST(DetachAllowed, Table) {
  struct Case {
    std::string_view name;
    DetachFacts facts;
    bool allowed;
    std::string says;  // part of the proof, or of the message
  };
  const Case cases[] = {
      {"a clean unstage needs no proof", {.node_exists = true, .node_ready = true}, true, ""},
      {"also on a node that fell silent after it", {.node_exists = true}, true, ""},
      {"a Node object made anew since says nothing of what the machine still holds",
       {.node_exists = true, .node_ready = true, .node_newer = true},
       false,
       "holder-is-gone"},
      {"a person's word counts for such a node too",
       {.node_exists = true, .node_ready = true, .node_newer = true, .confirmed = true},
       true,
       "holder-is-gone"},
      {"in use on a node that is well",
       {.node_exists = true, .node_ready = true, .in_use = true},
       false,
       "still uses it"},
      {"in use on a silent node", {.node_exists = true, .in_use = true}, false, "kubectl taint node node-a"},
      {"a person's word on the node",
       {.node_exists = true, .in_use = true, .out_of_service = true},
       true,
       "out-of-service"},
      {"a storage that fences",
       {.node_exists = true, .in_use = true, .driver_fences = true},
       true,
       "takes access away"},
      {"a node that is gone", {}, false, "kubectl annotate volumeattachment"},
      {"a node that is gone, a storage that fences", {.driver_fences = true}, true, "takes access away"},
      {"a node that is gone, a person's word", {.confirmed = true}, true, kHolderGone},
      {"a node that does not hold it", {.holder_elsewhere = true}, true, "does not hold it"},
  };
  for (const Case& c : cases) {
    DetachFacts facts = c.facts;
    facts.volume = "fast/vol-1";
    facts.node = "node-a";
    const DetachVerdict verdict = detach_allowed(facts);
    EXPECT_EQ(verdict.allowed, c.allowed) << c.name;
    EXPECT_THAT(c.allowed ? verdict.proof : verdict.message, HasSubstr(c.says)) << c.name;
    if (!c.allowed) {
      EXPECT_THAT(verdict.message, HasSubstr("volume fast/vol-1 is held by node node-a")) << c.name;
    }
    EXPECT_EQ(verdict.proof.empty(), c.says.empty() || !c.allowed) << c.name;
  }
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

}  // namespace
}  // namespace collage::reconcile
