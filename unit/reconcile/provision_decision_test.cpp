#include "operator/reconcile/provision_decision.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "operator/reconcile/provision_volume_object.h"
#include "unit/testing/builders.h"
#include "unit/testing/fake_driver.h"

namespace collage::reconcile {
namespace {

using base::Json;
using testing::a_claim;
using testing::a_class;
using testing::a_volume;
using testing::ClaimBuilder;
using testing::ClassBuilder;
using ::testing::HasSubstr;

constexpr char kFake[] = "fake.collage.storage";

template <typename T>
T parsed(const Json& object) {
  auto result = kube::parse<T>(object);
  EXPECT_TRUE(result.ok()) << result.status();
  return *std::move(result);
}

ClaimBuilder claim() {
  return a_claim("data").of_driver(kFake);
}
ClassBuilder fast() {
  return a_class("fast").of_driver(kFake).of_backend("fast");
}

TEST(DecideProvision, Table) {
  struct Case {
    std::string_view name;
    std::optional<Json> claim;
    bool ours = true;
    std::optional<Json> storage_class;
    bool volume_exists = false, begun = false;
    ProvisionStep step;
  };
  const Case cases[] = {
      {"a pending claim of a class of ours is provisioned", claim(), true, fast(), false, false,
       ProvisionStep::kProvision},
      {"a bound claim is nobody's business", claim().bound(), true, fast(), false, false,
       ProvisionStep::kIgnore},
      {"a claim of another provisioner is nobody's business", claim(), false, fast(), false, false,
       ProvisionStep::kIgnore},
      {"a claim that is gone is nobody's business", std::nullopt, false, std::nullopt, false, false,
       ProvisionStep::kIgnore},
      {"a claim that is being deleted is not begun", claim().finalizer("f").deleting(), true, fast(), false,
       false, ProvisionStep::kIgnore},
      {"a claim whose volume exists is done", claim(), true, fast(), true, false, ProvisionStep::kDone},
      {"also when its intent is still open", claim(), true, fast(), true, true, ProvisionStep::kDone},
      {"also when the claim is gone", std::nullopt, false, std::nullopt, true, true, ProvisionStep::kDone},
      {"a create whose claim is gone is abandoned", std::nullopt, false, std::nullopt, false, true,
       ProvisionStep::kAbandon},
      {"a create whose claim is being deleted is abandoned", claim().finalizer("f").deleting(), true, fast(),
       false, true, ProvisionStep::kAbandon},
      {"a create whose claim was bound to another volume is abandoned", claim().bound("other"), true, fast(),
       false, true, ProvisionStep::kAbandon},
      {"a missing class is waited for", claim(), true, std::nullopt, false, false, ProvisionStep::kWait},
      {"a class that now names another provisioner stops it", claim(), true,
       a_class("fast").of_driver("other"), false, false, ProvisionStep::kIgnore},
      {"a claim waits for its first consumer", claim(), true, fast().wait_for_first_consumer(), false, false,
       ProvisionStep::kIgnore},
      {"and goes on once a node is selected", claim().on_node("node-a"), true,
       fast().wait_for_first_consumer(), false, false, ProvisionStep::kProvision},
      {"what has begun goes on when the node is taken back", claim(), true, fast().wait_for_first_consumer(),
       false, true, ProvisionStep::kProvision},
      {"a selector is refused", claim().set("/spec/selector", {{"matchLabels", {{"a", "b"}}}}), true, fast(),
       false, false, ProvisionStep::kRefuse},
      {"an external populator is waited for", claim().from("Hydrator", "h", "example.com"), true, fast(),
       false, false, ProvisionStep::kPopulator},
      {"a snapshot as a source is refused", claim().from("VolumeSnapshot", "s", "snapshot.storage.k8s.io"),
       true, fast(), false, false, ProvisionStep::kRefuse},
      {"a claim as a source is refused", claim().from("PersistentVolumeClaim", "other"), true, fast(), false,
       false, ProvisionStep::kRefuse},
      {"the same kind name in another group is a populator's",
       claim().from("VolumeSnapshot", "s", "example.com"), true, fast(), false, false,
       ProvisionStep::kPopulator},
  };
  const drivers::Kind kind = testing::fake_kind();
  for (const Case& c : cases) {
    std::optional<kube::Claim> claim;
    std::optional<kube::StorageClass> storage_class;
    if (c.claim) claim = parsed<kube::Claim>(*c.claim);
    if (c.storage_class) storage_class = parsed<kube::StorageClass>(*c.storage_class);
    const ProvisionFacts facts{claim ? &*claim : nullptr, c.ours ? &kind : nullptr,
                               storage_class ? &*storage_class : nullptr, c.volume_exists, c.begun};
    const ProvisionDecision decision = decide_provision(facts);
    EXPECT_EQ(decision.step, c.step) << c.name;
    const bool says_why = c.step == ProvisionStep::kRefuse || c.step == ProvisionStep::kWait;
    EXPECT_EQ(says_why, !decision.why.message().empty()) << c.name;
  }
}

TEST(JudgeBackend, NamesTheObjectTheFieldAndTheRemedy) {
  const drivers::Kind kind = testing::fake_kind();
  engine::Backend backend;
  backend.spec.name = "fast";
  backend.spec.kind = "fake";
  EXPECT_TRUE(judge_backend("fast", &backend, kind, "gold").ok());

  const absl::Status unknown = judge_backend("slow", nullptr, kind, "gold");
  EXPECT_TRUE(absl::IsFailedPrecondition(unknown));
  EXPECT_THAT(std::string(unknown.message()),
              HasSubstr("StorageClass \"gold\" parameter \"backend\" is \"slow\""));
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("create it"));

  backend.ready = absl::UnavailableError("node-b lacks the share");
  const absl::Status not_ready = judge_backend("fast", &backend, kind, "gold");
  EXPECT_TRUE(absl::IsUnavailable(not_ready));
  EXPECT_THAT(std::string(not_ready.message()), HasSubstr("node-b lacks the share"));

  backend.spec.paused = true;
  EXPECT_THAT(std::string(judge_backend("fast", &backend, kind, "gold").message()), HasSubstr("spec.paused"));

  backend.spec.kind = "nfs";
  const absl::Status other_kind = judge_backend("fast", &backend, kind, "gold");
  EXPECT_TRUE(absl::IsFailedPrecondition(other_kind));
  EXPECT_THAT(std::string(other_kind.message()), HasSubstr("use provisioner nfs.collage.storage"));
}

TEST(JudgeExistingVolume, Table) {
  struct Case {
    std::string_view name;
    Json live;
    ExistingVolume verdict;
  };
  const auto volume = [] {
    return a_volume("pvc-uid-data").of_driver(kFake).handle("fast/vol-1").claimed_by("default", "data");
  };
  const Case cases[] = {
      {"our own write whose answer was lost", volume(), ExistingVolume::kOurs},
      {"ours, but on its way out", volume().finalizer("f").deleting(), ExistingVolume::kSurplus},
      {"for the same claim, another volume", volume().handle("fast/vol-2"), ExistingVolume::kSurplus},
      {"for the same claim, another driver", volume().of_driver("other"), ExistingVolume::kSurplus},
      {"for another claim, another volume", volume().claimed_by("default", "x").handle("fast/vol-2"),
       ExistingVolume::kSurplus},
      {"for another claim, this very volume", volume().claimed_by("default", "x"), ExistingVolume::kConflict},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(judge_existing_volume(parsed<kube::Volume>(c.live), "uid-data", kFake, "fast/vol-1"), c.verdict)
        << c.name;
  }
}

// ---- The PersistentVolume

struct ObjectTest : ::testing::Test {
  Json make() {
    const kube::Claim parsed_claim = parsed<kube::Claim>(claim_json);
    const kube::StorageClass parsed_class = parsed<kube::StorageClass>(class_json);
    return make_volume_object({parsed_claim, parsed_class, kind, request, volume, "fast", system_id, secrets,
                               node_secret, "collage"});
  }
  Json claim_json = claim().json();
  Json class_json = fast().json();
  drivers::Kind kind = testing::fake_kind();
  drivers::CreateRequest request{
      .name = "pvc-uid-data", .required_bytes = 1 << 30, .capabilities = {{.fs_type = "xfs"}}};
  drivers::Volume volume{.id = "vol-1", .capacity_bytes = int64_t{3} << 30, .context = {{"pool", "ssd"}}};
  std::string system_id = "sys-1", node_secret;
  SecretRefs secrets;
};

TEST_F(ObjectTest, SaysWhatTheVolumeIs) {
  const Json object = make();
  const Json expected = Json::parse(R"({
    "apiVersion": "v1", "kind": "PersistentVolume",
    "metadata": {
      "name": "pvc-uid-data",
      "annotations": {
        "pv.kubernetes.io/provisioned-by": "fake.collage.storage",
        "volume.kubernetes.io/provisioner-deletion-secret-name": "",
        "volume.kubernetes.io/provisioner-deletion-secret-namespace": ""},
      "finalizers": ["external-provisioner.volume.kubernetes.io/finalizer", "external-attacher/fake-collage-storage"]},
    "spec": {
      "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem", "capacity": {"storage": "3Gi"},
      "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "fast",
      "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "default", "name": "data",
                   "uid": "uid-data", "resourceVersion": ""},
      "csi": {"driver": "fake.collage.storage", "volumeHandle": "fast/vol-1", "fsType": "xfs",
              "volumeAttributes": {"pool": "ssd", "storage.kubernetes.io/csiProvisionerIdentity": "collage",
                                   "collage.storage/system-id": "sys-1"}}}})");
  EXPECT_EQ(object, expected);
}

TEST_F(ObjectTest, ARawBlockVolumeHasNoFileSystemAndNoMountOptions) {
  claim_json = claim().raw_block().json();
  class_json = fast().set("/mountOptions", {"noatime"}).json();
  const Json object = make();
  EXPECT_EQ(object["spec"]["volumeMode"], "Block");
  EXPECT_FALSE(object["spec"]["csi"].contains("fsType"));
  EXPECT_FALSE(object["spec"].contains("mountOptions"));
}

TEST_F(ObjectTest, MountOptionsAndPolicyComeFromTheClass) {
  class_json = fast().retain().set("/mountOptions", {"noatime"}).json();
  const Json object = make();
  EXPECT_EQ(object["spec"]["mountOptions"], Json({"noatime"}));
  EXPECT_EQ(object["spec"]["persistentVolumeReclaimPolicy"], "Retain");
  // Nothing of ours is to be waited for when a retained volume's object is deleted.
  EXPECT_EQ(object["metadata"]["finalizers"], Json({"external-attacher/fake-collage-storage"}));
}

TEST_F(ObjectTest, AKindThatDoesNotAttachHasNoAttachersFinalizer) {
  kind.attaches = false;
  EXPECT_EQ(make()["metadata"]["finalizers"], Json({"external-provisioner.volume.kubernetes.io/finalizer"}));
}

TEST_F(ObjectTest, ReachIsNodeAffinityByAnyOfItsTerms) {
  volume.accessible = {{{"zone", "a"}}, {{"zone", "b"}, {"rack", "1"}}};
  const Json terms = make()["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"];
  ASSERT_EQ(terms.size(), 2u);
  EXPECT_EQ(terms[0],
            Json::parse(R"({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]})"));
  EXPECT_EQ(terms[1]["matchExpressions"].size(), 2u);
}

TEST_F(ObjectTest, SecretsAreReferredToWhereTheyAreUsed) {
  secrets = {{"provisioner", {"del", "ns-d"}},    {"controller-publish", {"cp", "ns"}},
             {"node-stage", {"st", "ns"}},        {"node-publish", {"pu", "ns"}},
             {"controller-expand", {"ce", "ns"}}, {"node-expand", {"ne", "ns"}},
             {"controller-modify", {"cm", "ns"}}};
  const Json object = make();
  EXPECT_EQ(base::get_string(object,
                             "/metadata/annotations/volume.kubernetes.io~1provisioner-deletion-secret-name"),
            "del");
  EXPECT_EQ(base::get_string(
                object, "/metadata/annotations/volume.kubernetes.io~1provisioner-deletion-secret-namespace"),
            "ns-d");
  const Json& csi = object["spec"]["csi"];
  EXPECT_EQ(csi["controllerPublishSecretRef"], Json({{"name", "cp"}, {"namespace", "ns"}}));
  EXPECT_EQ(csi["nodeStageSecretRef"], Json({{"name", "st"}, {"namespace", "ns"}}));
  EXPECT_EQ(csi["nodePublishSecretRef"], Json({{"name", "pu"}, {"namespace", "ns"}}));
  EXPECT_EQ(csi["controllerExpandSecretRef"], Json({{"name", "ce"}, {"namespace", "ns"}}));
  EXPECT_EQ(csi["nodeExpandSecretRef"], Json({{"name", "ne"}, {"namespace", "ns"}}));
}

TEST_F(ObjectTest, TheBackendsNodeSecretIsUsedUnlessTheClassHasOne) {
  node_secret = "fast-node";
  EXPECT_EQ(make()["spec"]["csi"]["nodeStageSecretRef"],
            Json({{"name", "fast-node"}, {"namespace", "collage"}}));
  secrets = {{"node-stage", {"st", "ns"}}};
  EXPECT_EQ(make()["spec"]["csi"]["nodeStageSecretRef"], Json({{"name", "st"}, {"namespace", "ns"}}));
}

TEST(ResolveSecrets, AnUnknownTokenNamesTheReference) {
  engine::ClassParameters parameters;
  parameters.secrets["node-stage"] = {"${pvc.annotations['team']}", "${pvc.namespace}"};
  const engine::TemplateValues values{"pvc-1", "default", "data", {{"team", "blue"}}};
  const auto refs = resolve_secrets(parameters, values);
  ASSERT_TRUE(refs.ok()) << refs.status();
  EXPECT_EQ(refs->at("node-stage").name, "blue");
  EXPECT_EQ(refs->at("node-stage").name_space, "default");
  parameters.secrets["node-stage"].name_space = "${pvc.name}";
  const auto refused = resolve_secrets(parameters, values);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("node-stage-secret"));
}

}  // namespace
}  // namespace collage::reconcile
