// Who holds a volume whose attachment ends, and what proves that it is held no more (contract F 58).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "unit/reconcile/attach_fixture.h"
#include "unit/testing/fake_clock.h"

namespace collage::reconcile {
namespace {

using base::Json;
using drivers::Verb;
using testing::a_node;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr char kDetachError[] = "/status/detachError/message";

struct ForcedDetach : testing::AttachTest {
  // Attached on node-a long ago, which kubelet still uses it; node-a answers no more, and Kubernetes ends the
  // attachment.
  void lose_node() {
    cluster.api.put(cluster.volume("pv-1").claimed_by("default", "data", "uid-data").bound());
    cluster.start();
    cluster.api.put(attachment().created("2026-01-01T00:00:00Z"));
    ASSERT_TRUE(cluster.wait([&] { return attached(); }));
    set_in_use("node-a", true);
    set_ready("node-a", false);
    ASSERT_TRUE(cluster.wait([&] {
      const auto node = cluster.op->world.nodes.get("node-a");
      return !node->ready && !node->volumes_in_use.empty();
    }));
    delete_attachment();
    ASSERT_TRUE(wait_error("node-a", kDetachError, "which does not answer and may still write to it"));
  }
  void taint() {
    cluster.api.update(kube::kNodes, "node-a", [](Json& json) {
      json["spec"]["taints"] = {
          {{"key", "node.kubernetes.io/out-of-service"}, {"value", "nodeshutdown"}, {"effect", "NoExecute"}}};
    });
  }
  // Node-a's object made anew by the machine, after an attachment made on machine "m-1".
  void replace_node(const std::string& machine) {
    cluster.api.put(a_node("node-a").machine("m-1").created("2025-01-01T00:00:00Z"));
    cluster.start();
    cluster.api.put(attachment().created("2026-01-01T00:00:00Z"));
    ASSERT_TRUE(cluster.wait([&] { return attached(); }));
    cluster.api.erase(kube::kNodes, "node-a");
    ASSERT_TRUE(cluster.wait([&] { return cluster.op->world.nodes.get("node-a") == nullptr; }));
    cluster.api.put(a_node("node-a").uid("anew").machine(machine).created("2026-02-01T00:00:00Z"));
    ASSERT_TRUE(cluster.wait([&] { return cluster.op->world.nodes.get("node-a") != nullptr; }));
    delete_attachment();
  }
  bool gone() {
    return cluster.wait([&] { return !cluster.attachment("pv-1").has_value(); });
  }
};

TEST_F(ForcedDetach, WhatKubeletStillUsesIsNotDetachedUntilItIsUnstaged) {
  cluster.start();
  attach_to("node-a");
  set_in_use("node-a", true);
  delete_attachment();
  ASSERT_TRUE(wait_error("node-a", "/status/detachError/message", "node node-a, which still uses it"));
  EXPECT_EQ(holder(), "id-node-a");
  set_in_use("node-a", false);
  EXPECT_TRUE(cluster.wait([&] { return !cluster.attachment("pv-1").has_value(); }));
}

TEST_F(ForcedDetach, ASilentNodeKeepsItsVolumeUntilSomebodySaysThatItIsOff) {
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

TEST_F(ForcedDetach, ADeletedNodeIsNoProof) {
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

TEST_F(ForcedDetach, WhatAnotherNodeHoldsIsLetGoOfFreely) {
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

TEST_F(ForcedDetach, WithoutProofThePersonIsToldWhoHoldsItAndWhatIsNeeded) {
  lose_node();
  EXPECT_THAT(detach_error(), HasSubstr("volume fast/vol-pv-1 is held by node node-a"));
  for (const std::string& message :
       {std::string("(VolumeAttachment csi-pv-1-node-a)"),
        std::string("kubectl taint node node-a node.kubernetes.io/out-of-service")}) {
    EXPECT_TRUE(cluster.wait_event("WaitingForProof", message));
  }
  // One on the attachment, one on the claim, and the same again says nothing new.
  EXPECT_EQ(cluster.events("WaitingForProof").size(), 2u);
  EXPECT_EQ(holder(), "id-node-a");
  EXPECT_EQ(cluster.driver->calls(Verb::kDetach) + cluster.driver->calls(Verb::kFence), 0);
}

TEST_F(ForcedDetach, TimeIsNoProof) {
  lose_node();  // the attachment is older than any patience
  const int judged = cluster.api.count("get", "nodes");
  ASSERT_TRUE(cluster.wait([&] { return cluster.api.count("get", "nodes") >= judged + 2; }))
      << "it was judged again and again";
  EXPECT_EQ(holder(), "id-node-a");
  EXPECT_EQ(cluster.driver->calls(Verb::kDetach), 0);
}

TEST_F(ForcedDetach, AStorageThatCannotBeAskedIsNoProof) {
  cluster.driver->fail_before(Verb::kInspect, absl::UnavailableError("node-c knows no backend fast"), 100);
  lose_node();
  EXPECT_THAT(detach_error(), HasSubstr("volume fast/vol-pv-1 is held by node node-a"));
  EXPECT_GE(cluster.driver->calls(Verb::kInspect), 1);
  EXPECT_EQ(cluster.driver->calls(Verb::kDetach) + cluster.driver->calls(Verb::kFence), 0);
  EXPECT_EQ(holder(), "id-node-a");
}

// While a detach waits for proof. Back-offs pass in real time, what is remembered in the test's.
struct WaitingDetach : ForcedDetach {
  WaitingDetach() { cluster.options.clock = &clock; }
  ~WaitingDetach() override { cluster.kill(); }  // while there is a clock
  bool wait(const std::function<bool()>& predicate) {
    return cluster.wait([&] {
      clock.advance(std::chrono::milliseconds(20));  // reads of one node are spaced
      return predicate();
    });
  }
  int questions() const { return cluster.driver->calls(Verb::kInspect); }

  testing::FakeClock clock;
};

TEST_F(WaitingDetach, AsksTheStorageOnceAnHour) {
  lose_node();
  const int judged = cluster.api.count("get", "nodes");
  ASSERT_TRUE(wait([&] { return cluster.api.count("get", "nodes") >= judged + 2; }));
  EXPECT_EQ(questions(), 1) << "nothing happened, only a back-off passed";
  EXPECT_EQ(holder(), "id-node-a");
  // What the storage alone knows.
  drivers::Volume volume = cluster.driver->volumes().at("vol-pv-1");
  volume.attached_to = "id-node-b";
  cluster.driver->put(volume);
  clock.advance(std::chrono::hours(1));
  EXPECT_TRUE(wait([&] { return !cluster.attachment("pv-1").has_value(); }));
  EXPECT_EQ(questions(), 2);
  EXPECT_EQ(holder(), "id-node-b");
}

TEST_F(WaitingDetach, AsksTheStorageAtOnceWhenSomethingHappened) {
  lose_node();
  EXPECT_EQ(questions(), 1);
  cluster.use_backend();
  EXPECT_TRUE(wait([&] { return questions() == 2; }));
}

TEST_F(WaitingDetach, AsksAStorageThatDidNotAnswerSooner) {
  cluster.driver->fail_before(Verb::kInspect, absl::UnavailableError("no answer"));
  lose_node();
  EXPECT_EQ(questions(), 1);
  clock.advance(std::chrono::minutes(10));
  EXPECT_TRUE(wait([&] { return questions() == 2; }));
}

TEST_F(ForcedDetach, APersonsWordComesWithAFenceWhereTheStorageCan) {
  cluster.driver->can_fence(true);
  lose_node();
  taint();
  ASSERT_TRUE(gone());
  EXPECT_EQ(cluster.driver->calls(Verb::kFence), 1);
  EXPECT_EQ(cluster.driver->calls(Verb::kDetach), 0);
  EXPECT_EQ(holder(), "");
  EXPECT_TRUE(cluster.wait_event(
      "ForcedDetach", "the taint node.kubernetes.io/out-of-service on the node; access was taken"));
}

TEST_F(ForcedDetach, WhereTheStorageCannotFenceTheEventSaysThatOnlyTheWordProtects) {
  lose_node();
  taint();
  ASSERT_TRUE(gone());
  EXPECT_EQ(cluster.driver->calls(Verb::kFence), 1);
  EXPECT_EQ(cluster.driver->calls(Verb::kDetach), 1);
  EXPECT_TRUE(cluster.wait_event("ForcedDetach", "this storage cannot take access from it"));
}

TEST_F(ForcedDetach, AFenceThatFailsKeepsTheHolder) {
  cluster.driver->can_fence(true);
  cluster.driver->fail_before(Verb::kFence, absl::ResourceExhaustedError("the share is full"), 2);
  lose_node();
  taint();
  ASSERT_TRUE(wait_error("node-a", kDetachError, "the share is full"));
  EXPECT_TRUE(gone()) << "tried again";
  EXPECT_EQ(cluster.driver->calls(Verb::kDetach), 0) << "never without the fence that was possible";
}

TEST_F(ForcedDetach, AKubeletAtWorkContradictsTheTaint) {
  cluster.driver->can_fence(true);
  cluster.start();
  attach_to("node-a");
  set_in_use("node-a", true);
  taint();
  delete_attachment();
  ASSERT_TRUE(wait_error("node-a", kDetachError, "is said to be off, but whose kubelet is Ready"));
  EXPECT_EQ(cluster.driver->calls(Verb::kFence) + cluster.driver->calls(Verb::kDetach), 0);
  set_ready("node-a", false);
  EXPECT_TRUE(gone());
  EXPECT_EQ(cluster.driver->calls(Verb::kFence), 1);
}

TEST_F(ForcedDetach, TheProvidersWordOfTheMachineIsEnough) {
  cluster.driver->can_fence(true);
  cluster.driver->set_absence("id-node-a", "instance i-1 is terminated");
  cluster.start();
  attach_to("node-a");
  set_in_use("node-a", true);
  set_ready("node-a", false);
  delete_attachment();
  ASSERT_TRUE(gone());
  EXPECT_TRUE(cluster.wait_event("ForcedDetach", "instance i-1 is terminated"));
  EXPECT_EQ(cluster.driver->calls(Verb::kFence), 0) << "nothing is left that could write";
  EXPECT_EQ(holder(), "");
}

TEST_F(ForcedDetach, TheProvidersWordOfAnotherMachineIsNot) {
  cluster.driver->set_absence("id-node-b", "instance i-2 is terminated");
  lose_node();
  EXPECT_EQ(holder(), "id-node-a");
}

TEST_F(ForcedDetach, AMachineThatIsBackUnderANewNodeSaysThatItHoldsNothing) {
  cluster.node_answers.say_holds("node-a", false);
  replace_node("m-1");
  ASSERT_TRUE(gone());
  EXPECT_TRUE(cluster.wait_event("ForcedDetach", "the node itself says that it has let it go"));
  EXPECT_THAT(cluster.node_answers.asked(Verb::kHolds), ElementsAre("node-a"));
}

TEST_F(ForcedDetach, AMachineThatStillHoldsItKeepsIt) {
  cluster.node_answers.say_holds("node-a", true);
  replace_node("m-1");
  ASSERT_TRUE(wait_error("node-a", kDetachError, "it still has it at /stage"));
  EXPECT_EQ(holder(), "id-node-a");
  EXPECT_EQ(cluster.driver->calls(Verb::kDetach), 0);
}

TEST_F(ForcedDetach, AnotherMachineUnderTheNameIsNotAsked) {
  cluster.node_answers.say_holds("node-a", false);
  replace_node("m-2");
  ASSERT_TRUE(wait_error("node-a", kDetachError, "by another machine: m-2, not m-1"));
  EXPECT_THAT(detach_error(), HasSubstr("collage.storage/holder-is-gone=true"));
  EXPECT_THAT(cluster.node_answers.asked(Verb::kHolds), IsEmpty());
  EXPECT_EQ(holder(), "id-node-a");
}

TEST_F(ForcedDetach, AnAgentThatStartsIsAskedAtOnce) {
  replace_node("m-1");
  ASSERT_TRUE(wait_error("node-a", kDetachError, "runs no agent"));
  EXPECT_EQ(holder(), "id-node-a");
  cluster.node_answers.say_holds("node-a", false);
  cluster.api.put(testing::a_storage_node("node-a").set("/status/bootID", "boot-2"));
  EXPECT_TRUE(gone());
}

TEST_F(ForcedDetach, WhatKubeletBeganSinceTheQuestionCounts) {
  cluster.node_answers.say_holds("node-a", false);
  cluster.node_answers.on_holds([&] { set_in_use("node-a", true); });
  replace_node("m-1");
  ASSERT_TRUE(wait_error("node-a", kDetachError, "which still uses it"));
  EXPECT_EQ(holder(), "id-node-a");
}

TEST_F(ForcedDetach, TheNextHolderIsToldWhatTheFirstOneWaitsFor) {
  lose_node();
  cluster.api.put(attachment("node-b"));
  ASSERT_TRUE(wait_error("node-b", "/status/attachError/message", "is attached to id-node-a"));
  EXPECT_THAT(attach_error("node-b"),
              HasSubstr("VolumeAttachment csi-pv-1-node-a: volume fast/vol-pv-1 is held "
                        "by node node-a"));
  EXPECT_THAT(attach_error("node-b"), HasSubstr("kubectl taint node node-a"));
  taint();
  EXPECT_TRUE(cluster.wait([&] { return attached("node-b"); }));
  EXPECT_EQ(holder(), "id-node-b");
}

TEST_F(ForcedDetach, WithinTheBudgetNobodyIsAskedWhenKubeletHasUnstaged) {
  cluster.start();
  attach_to("node-a");
  delete_attachment();
  ASSERT_TRUE(gone());
  EXPECT_THAT(cluster.node_answers.asked(Verb::kHolds), IsEmpty());
  EXPECT_EQ(cluster.driver->calls(Verb::kInspect) + cluster.driver->calls(Verb::kFence), 0);
  EXPECT_THAT(cluster.events("ForcedDetach"), IsEmpty());
}

TEST(DetachAllowed, Table) {
  struct Case {
    std::string_view name;
    DetachFacts facts;
    bool allowed;
    bool fence;
    std::string says;  // part of the proof, or of the message
  };
  const Case cases[] = {
      {"drained: a clean unstage needs no proof", {.node_exists = true, .node_ready = true}, true, false, ""},
      {"also on a node that fell silent after it", {.node_exists = true}, true, false, ""},
      {"drained: in use until kubelet is done",
       {.node_exists = true, .node_ready = true, .in_use = true},
       false,
       false,
       "detached once kubelet has unstaged it"},
      {"kubelet crashed, its containers run on",
       {.node_exists = true, .in_use = true},
       false,
       false,
       "kubectl taint node node-a node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"},
      {"shut down without grace, a person's word",
       {.node_exists = true, .in_use = true, .out_of_service = true},
       true,
       true,
       "the taint node.kubernetes.io/out-of-service"},
      {"a person's word against a kubelet that is Ready",
       {.node_exists = true, .node_ready = true, .in_use = true, .out_of_service = true},
       false,
       false,
       "kubelet is Ready and still uses it"},
      {"the annotation against a kubelet that is Ready",
       {.node_exists = true, .node_ready = true, .in_use = true, .confirmed = true},
       false,
       false,
       "kubelet is Ready and still uses it"},
      {"Ready, tainted, and unstaged",
       {.node_exists = true, .node_ready = true, .out_of_service = true},
       true,
       false,
       ""},
      {"shut down, and its provider knows",
       {.node_exists = true, .in_use = true, .absence = "instance i-1 is stopped"},
       true,
       false,
       "instance i-1 is stopped"},
      {"a Node object made anew since says nothing of what the machine still holds",
       {.node_exists = true, .node_ready = true, .node_newer = true},
       false,
       false,
       "made anew since"},
      {"nor with the reason why it was not asked",
       {.node_exists = true, .node_ready = true, .node_newer = true, .node_says = "by another machine"},
       false,
       false,
       "(by another machine)"},
      {"the machine itself does",
       {.node_exists = true, .node_ready = true, .node_newer = true, .let_go = true},
       true,
       false,
       "the node itself says"},
      {"a person's word counts for such a node too",
       {.node_exists = true, .node_ready = true, .node_newer = true, .confirmed = true},
       true,
       true,
       "holder-is-gone"},
      {"made anew and in use again",
       {.node_exists = true, .node_ready = true, .node_newer = true, .in_use = true},
       false,
       false,
       "still uses it"},
      {"a storage that fences by itself",
       {.node_exists = true, .in_use = true, .driver_fences = true},
       true,
       false,
       "takes access away"},
      {"a node that is gone", {}, false, false, "kubectl annotate volumeattachment csi-1 "},
      {"a node that is gone, a storage that fences",
       {.driver_fences = true},
       true,
       false,
       "takes access away"},
      {"a node that is gone, a person's word", {.confirmed = true}, true, true, kHolderGone},
      {"a taint of a node that is gone is of no node", {.out_of_service = true}, false, false, "is gone"},
      {"a node that does not hold it", {.holder_elsewhere = true}, true, false, "does not hold it"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    DetachFacts facts = c.facts;
    facts.volume = "fast/vol-1";
    facts.node = "node-a";
    facts.attachment = "csi-1";
    const DetachVerdict verdict = detach_allowed(facts);
    EXPECT_EQ(verdict.allowed, c.allowed);
    EXPECT_EQ(verdict.fence, c.fence);
    EXPECT_THAT(c.allowed ? verdict.proof : verdict.message, HasSubstr(c.says));
    if (!c.allowed) {
      EXPECT_THAT(verdict.message, HasSubstr("volume fast/vol-1 is held by node node-a"));
    }
    EXPECT_EQ(verdict.proof.empty(), c.says.empty() || !c.allowed);
  }
}

}  // namespace
}  // namespace collage::reconcile
