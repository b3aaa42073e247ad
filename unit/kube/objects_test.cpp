#include "operator/kube/objects.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/random.h"
#include "unit/testing/builders.h"

namespace collage::kube {
namespace {

using base::Json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace collage::testing;  // NOLINT: builders read as words

TEST(Interned, EqualTextsAreOne) {
  const std::string text = "image.collage.storage";
  EXPECT_EQ(&Interned(text).str(), &Interned(std::string(text)).str());
  EXPECT_EQ(Interned(text), Interned(std::string_view(text)));
  EXPECT_TRUE(Interned(text) == "image.collage.storage");
  EXPECT_TRUE(Interned().empty());
  EXPECT_EQ(Interned(), Interned(""));
  EXPECT_EQ(sizeof(Interned), 8u);
}

TEST(Key, GoesThereAndBack) {
  EXPECT_EQ((Key{"ns", "a"}.to_string()), "ns/a");
  EXPECT_EQ((Key{"", "a"}.to_string()), "a");
  EXPECT_EQ(Key::parse("ns/a"), (Key{"ns", "a"}));
  EXPECT_EQ(Key::parse("a"), (Key{"", "a"}));
}

TEST(Objects, AClaim) {
  const auto claim = parse<Claim>(a_claim("data")
                                      .in("team")
                                      .size("1500M")
                                      .modes({"ReadWriteMany", "ReadOnlyMany"})
                                      .on_node("node-a")
                                      .from("VolumeSnapshot", "s", "snapshot.storage.k8s.io")
                                      .finalizer("kubernetes.io/pvc-protection")
                                      .version(7)
                                      .generation(3)
                                      .set("/spec/volumeAttributesClassName", "gold")
                                      .json());
  ASSERT_TRUE(claim.ok()) << claim.status();
  EXPECT_EQ(claim->meta.key().to_string(), "team/data");
  EXPECT_EQ(claim->meta.uid, "uid-data");
  EXPECT_EQ(claim->meta.resource_version, "7");
  EXPECT_EQ(claim->meta.generation, 3u);
  EXPECT_TRUE(claim->meta.has_finalizer("kubernetes.io/pvc-protection"));
  EXPECT_FALSE(claim->meta.has_finalizer("other"));
  EXPECT_FALSE(claim->meta.deleting);
  EXPECT_EQ(claim->provisioner, "image.collage.storage");
  EXPECT_EQ(claim->storage_class, "fast");
  EXPECT_EQ(claim->selected_node, "node-a");
  EXPECT_EQ(claim->requested_bytes, 1500000000);
  EXPECT_THAT(claim->access_modes, ElementsAre(Interned("ReadWriteMany"), Interned("ReadOnlyMany")));
  ASSERT_NE(claim->data_source, nullptr);
  EXPECT_EQ(claim->data_source->kind, "VolumeSnapshot");
  EXPECT_EQ(claim->data_source->group, "snapshot.storage.k8s.io");
  EXPECT_EQ(claim->attributes_class, "gold");
  EXPECT_EQ(claim->phase, "Pending");
  EXPECT_FALSE(claim->block);
  EXPECT_FALSE(claim->has_selector);
}

TEST(Objects, TheProvisionerOfAClaim) {
  struct Case {
    std::string_view name;
    std::map<std::string, std::string> annotations;
    std::string_view expected;
  };
  const Case cases[] = {
      {"none", {}, ""},
      {"beta only", {{"volume.beta.kubernetes.io/storage-provisioner", "old"}}, "old"},
      {"the new form wins",
       {{"volume.beta.kubernetes.io/storage-provisioner", "old"},
        {"volume.kubernetes.io/storage-provisioner", "new"}},
       "new"},
      {"migrated wins",
       {{"volume.kubernetes.io/storage-provisioner", "kubernetes.io/aws-ebs"},
        {"pv.kubernetes.io/migrated-to", "ebs"}},
       "ebs"},
  };
  for (const Case& each : cases) {
    SCOPED_TRACE(each.name);
    ClaimBuilder claim = a_claim().without_driver();
    for (const auto& [key, value] : each.annotations) claim.annotation(key, value);
    EXPECT_EQ(parse<Claim>(claim.json())->provisioner.str(), each.expected);
  }
}

TEST(Objects, AVolume) {
  const auto volume = parse<Volume>(a_volume("pv")
                                        .size("2Gi")
                                        .claimed_by("team", "data")
                                        .released()
                                        .raw_block()
                                        .set("/spec/csi/readOnly", true)
                                        .set("/spec/csi/fsType", "xfs")
                                        .finalizer("f")
                                        .deleting()
                                        .json());
  ASSERT_TRUE(volume.ok());
  EXPECT_EQ(volume->driver, "image.collage.storage");
  EXPECT_EQ(volume->provisioned_by, "image.collage.storage");
  EXPECT_EQ(volume->handle, "fast/pv");
  EXPECT_EQ(volume->capacity_bytes, int64_t{2} << 30);
  EXPECT_EQ(volume->claim_namespace, "team");
  EXPECT_EQ(volume->claim_name, "data");
  EXPECT_EQ(volume->claim_uid, "uid-data");
  EXPECT_EQ(volume->phase, "Released");
  EXPECT_EQ(volume->reclaim_policy, "Delete");
  EXPECT_EQ(volume->fs_type, "xfs");
  EXPECT_TRUE(volume->block);
  EXPECT_TRUE(volume->read_only);
  EXPECT_TRUE(volume->meta.deleting);
}

TEST(Objects, AVolumeWithoutPolicyIsRetained) {
  Json volume = a_volume().json();
  volume["spec"].erase("persistentVolumeReclaimPolicy");
  EXPECT_EQ(parse<Volume>(volume)->reclaim_policy, "Retain");
}

TEST(Objects, AnAttachment) {
  const auto attachment = parse<Attachment>(an_attachment("pv", "node-b")
                                                .attached()
                                                .with_node_id("i-1")
                                                .failed("no slot")
                                                .set("/status/attachmentMetadata/device", "sdf")
                                                .json());
  ASSERT_TRUE(attachment.ok());
  EXPECT_EQ(attachment->attacher, "image.collage.storage");
  EXPECT_EQ(attachment->volume_name, "pv");
  EXPECT_EQ(attachment->node_name, "node-b");
  EXPECT_EQ(attachment->node_id, "i-1");
  EXPECT_TRUE(attachment->attached);
  EXPECT_TRUE(attachment->has_metadata);
  EXPECT_EQ(attachment->attach_error, "no slot");
  EXPECT_EQ(attachment->detach_error, "");
}

TEST(Objects, AClassAndItsDefaults) {
  const auto plain =
      parse<StorageClass>(Json{{"metadata", {{"name", "x"}, {"uid", "u"}}}, {"provisioner", "p"}});
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->reclaim_policy, "Delete");
  EXPECT_EQ(plain->binding_mode, "Immediate");
  EXPECT_FALSE(plain->is_default);
  const auto full = parse<StorageClass>(a_class()
                                            .of_backend("fast")
                                            .kept_by("fast")
                                            .wait_for_first_consumer()
                                            .retain()
                                            .is_default()
                                            .topology("zone", {"a", "b"})
                                            .topology("zone", {"c"})
                                            .set("/mountOptions", {"noatime"})
                                            .set("/allowVolumeExpansion", true)
                                            .annotation("collage.storage/spec-hash", "h")
                                            .json());
  ASSERT_TRUE(full.ok());
  EXPECT_EQ(full->parameters.at("backend"), "fast");
  EXPECT_EQ(full->managed_by_backend, "fast");
  EXPECT_EQ(full->spec_hash, "h");
  EXPECT_EQ(full->binding_mode, "WaitForFirstConsumer");
  EXPECT_EQ(full->reclaim_policy, "Retain");
  EXPECT_TRUE(full->is_default);
  EXPECT_TRUE(full->allow_expansion);
  EXPECT_THAT(full->mount_options, ElementsAre("noatime"));
  ASSERT_EQ(full->allowed_topologies.size(), 2u);
  EXPECT_THAT(full->allowed_topologies[0].at("zone"), ElementsAre("a", "b"));
}

TEST(Objects, ANodeKeepsOnlyTopologyLabels) {
  const auto node = parse<Node>(a_node("n")
                                    .label("topology.kubernetes.io/zone", "z")
                                    .label("topology.image.collage.storage/fast", "yes")
                                    .label("collage.storage/x", "1")
                                    .label("evilcollage.storage/x", "1")
                                    .label("plain", "1")
                                    .taint("image.collage.storage/agent-not-ready")
                                    .taint("node.kubernetes.io/out-of-service")
                                    .json());
  ASSERT_TRUE(node.ok());
  EXPECT_TRUE(node->ready);
  EXPECT_TRUE(node->out_of_service);
  EXPECT_THAT(node->agent_taints, ElementsAre(Interned("image.collage.storage/agent-not-ready")));
  EXPECT_EQ(node->topology,
            (std::map<std::string, std::string>{{"topology.kubernetes.io/zone", "z"},
                                                {"topology.image.collage.storage/fast", "yes"},
                                                {"collage.storage/x", "1"}}));
  EXPECT_FALSE(parse<Node>(a_node().not_ready().json())->ready);
}

TEST(Objects, ACsiNode) {
  const auto node = parse<CsiNode>(
      a_csi_node("n").driver("image.collage.storage", "id-1", {"k"}, 16).driver("other", "id-2").json());
  ASSERT_TRUE(node.ok());
  ASSERT_NE(node->driver("image.collage.storage"), nullptr);
  EXPECT_EQ(node->driver("image.collage.storage")->node_id, "id-1");
  EXPECT_EQ(node->driver("image.collage.storage")->allocatable, 16);
  EXPECT_EQ(node->driver("other")->allocatable, -1);
  EXPECT_EQ(node->driver("missing"), nullptr);
}

TEST(Objects, ABackendKeepsItsJson) {
  const auto backend = parse<BackendObject>(a_backend("b").json());
  ASSERT_TRUE(backend.ok());
  EXPECT_EQ(base::get_string(*backend->json, "/spec/image/directory"), "/srv/share");
}

TEST(Objects, WithoutNameOrUidAnObjectIsRefused) {
  for (const char* text :
       {"{}", "[]", "null", "3", R"({"metadata":null})", R"({"metadata":[]})", R"({"metadata":{"name":"a"}})",
        R"({"metadata":{"uid":"u"}})", R"({"metadata":{"name":7,"uid":"u"}})"}) {
    EXPECT_EQ(parse<Claim>(*base::parse_json(text)).status().code(), absl::StatusCode::kInvalidArgument)
        << text;
    EXPECT_EQ(parse<Node>(*base::parse_json(text)).status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
}

TEST(Objects, ARequestThatIsNoQuantityIsMinusOne) {
  EXPECT_EQ(parse<Claim>(a_claim().set("/spec/resources/requests/storage", "lots").json())->requested_bytes,
            -1);
  EXPECT_EQ(
      parse<Claim>(a_claim().set("/spec/resources/requests/storage", Json::array()).json())->requested_bytes,
      -1);
  EXPECT_EQ(parse<Claim>(a_claim().set("/spec/resources/requests/storage", 1024).json())->requested_bytes,
            1024);
  EXPECT_EQ(parse<Claim>(a_claim().set("/spec/resources/requests", Json::object()).json())->requested_bytes,
            0);
}

template <typename T>
void parse_never_throws(const Json& object) {
  EXPECT_NO_THROW((void)parse<T>(object)) << object;
}

void parse_all(const Json& object) {
  parse_never_throws<Claim>(object);
  parse_never_throws<Volume>(object);
  parse_never_throws<Attachment>(object);
  parse_never_throws<StorageClass>(object);
  parse_never_throws<CsiNode>(object);
  parse_never_throws<Node>(object);
  parse_never_throws<BackendObject>(object);
  parse_never_throws<StorageNodeObject>(object);
}

// Every field of every object, replaced by values of every other type.
void with_wrong_types(const Json& original, const Json& at, const std::string& pointer) {
  const Json wrong[] = {nullptr,
                        true,
                        -7,
                        1e300,
                        "text",
                        "",
                        Json::array(),
                        Json::object(),
                        Json::array({1, nullptr, "x", Json::object()}),
                        {{"key", {{"key", 1}}}}};
  if (!pointer.empty()) {
    for (const Json& value : wrong) {
      Json changed = original;
      changed[Json::json_pointer(pointer)] = value;
      parse_all(changed);
    }
  }
  if (!at.is_structured()) return;
  for (const auto& [key, child] : at.items()) {
    std::string escaped;
    for (const char c : key) escaped += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
    with_wrong_types(original, child, pointer + "/" + escaped);
  }
}

TEST(Objects, WrongTypesNeverThrow) {
  const Json objects[] = {
      a_claim()
          .from("PersistentVolumeClaim", "x")
          .on_node("n")
          .finalizer("f")
          .set("/spec/selector", Json::object())
          .json(),
      a_volume().claimed_by("ns", "c").finalizer("f").json(),
      an_attachment().failed("x").set("/status/attachmentMetadata", {{"a", "b"}}).json(),
      a_class().topology("k", {"v"}).set("/mountOptions", {"x"}).parameter("a", "b").json(),
      a_csi_node().driver("d", "n", {"k"}, 3).json(),
      a_node().taint("x/agent-not-ready").json(),
      a_backend().ready().json(),
  };
  for (const Json& object : objects) with_wrong_types(object, object, "");
}

}  // namespace
}  // namespace collage::kube
