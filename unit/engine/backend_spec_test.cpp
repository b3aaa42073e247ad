#include "operator/engine/backend_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/yaml.h"
#include "drivers/registry.h"

namespace collage::engine {
namespace {

using base::Json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

absl::StatusOr<BackendSpec> parse(const Json& object) {
  return parse_backend_spec(object, drivers::kinds());
}

Json yaml(std::string_view text) {
  auto documents = base::yaml_to_json(text);
  EXPECT_TRUE(documents.ok()) << documents.status();
  return documents.ok() && !documents->empty() ? documents->front() : Json();
}

// One table for the API server and for this validator: both must refuse. The same file is held against a real
// API server by the end-to-end tests.
TEST(BackendSpec, RefusesEveryRowOfTheTable) {
  const auto text = base::read_file(COLLAGE_SOURCE_DIR "/unit/engine/wrong_backends.json");
  ASSERT_TRUE(text.ok()) << text.status();
  const auto rows = base::parse_json(*text);
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_GE(rows->size(), 30u);
  for (const Json& row : *rows) {
    SCOPED_TRACE(base::get_string(row, "/name"));
    const std::string expected = base::get_string(row, "/engine");
    ASSERT_FALSE(expected.empty());
    const auto spec = parse(row.at("object"));
    absl::Status status = spec.status();
    if (row.contains("old")) {
      const auto old = parse(row.at("old"));
      ASSERT_TRUE(old.ok()) << old.status();
      ASSERT_TRUE(spec.ok()) << spec.status();
      status = check_backend_update(*old, *spec);
    }
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(expected));
  }
}

// Image, as if its storage had everything that a spec can speak of.
std::vector<drivers::Kind> able_kinds() {
  std::vector<drivers::Kind> kinds = drivers::kinds();
  for (drivers::Kind& kind : kinds) {
    kind.info.credentials = {"user", "password"};
    kind.info.node_credentials = {"token"};
    kind.expands = true;
  }
  return kinds;
}

TEST(BackendSpec, ReadsEveryField) {
  const auto spec = parse_backend_spec(yaml(R"(
apiVersion: collage.storage/v1beta1
kind: StorageBackend
metadata: {name: fast, uid: 1234}
spec:
  image: {directory: /srv/share}
  credentialsSecret: fast-admin
  nodeCredentialsSecret: fast-node
  storageClasses:
    - name: fast
      default: true
      reclaimPolicy: Retain
      volumeBindingMode: Immediate
      allowVolumeExpansion: true
      parameters: {fsType: xfs}
      mountOptions: [noatime]
    - name: slow
  limits: {maxVolumes: 500, maxVolumeSize: 1Ti, maxProvisioned: 1099511627777}
  allowedNamespaces:
    matchLabels: {team: data}
    matchExpressions: [{key: env, operator: NotIn, values: [test]}]
  deletionPolicy: Orphan
  orphanPolicy: {action: Report, after: 1h30m}
  onMountLost: DeletePod
  paused: true
status: {anything: goes}
)"),
                                       able_kinds());
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->name, "fast");
  EXPECT_EQ(spec->kind, "image");
  EXPECT_EQ(base::get_string(*spec->block, "/directory"), "/srv/share");
  EXPECT_EQ(spec->credentials_secret, "fast-admin");
  EXPECT_EQ(spec->node_credentials_secret, "fast-node");
  ASSERT_EQ(spec->storage_classes.size(), 2u);
  const ClassSpec& fast = spec->storage_classes[0];
  EXPECT_EQ(fast.name, "fast");
  EXPECT_TRUE(fast.is_default);
  EXPECT_EQ(fast.reclaim_policy, "Retain");
  EXPECT_EQ(fast.binding_mode, "Immediate");
  EXPECT_TRUE(fast.allow_expansion);
  EXPECT_THAT(fast.parameters, UnorderedElementsAre(Pair("fsType", "xfs")));
  EXPECT_THAT(fast.mount_options, ElementsAre("noatime"));
  EXPECT_EQ(spec->limits.max_volumes, 500);
  EXPECT_EQ(spec->limits.max_volume_bytes, int64_t{1} << 40);
  EXPECT_EQ(spec->limits.max_provisioned_bytes, 1099511627777);
  ASSERT_TRUE(spec->allowed_namespaces.has_value());
  EXPECT_EQ(spec->deletion_policy, DeletionPolicy::kOrphan);
  EXPECT_EQ(spec->orphan_action, "Report");
  EXPECT_EQ(spec->orphan_after, std::chrono::minutes(90));
  EXPECT_EQ(spec->on_mount_lost, "DeletePod");
  EXPECT_TRUE(spec->paused);
}

TEST(BackendSpec, AKindThatNeedsCredentialsSaysWhichKeys) {
  const auto spec = parse_backend_spec(
      yaml("{metadata: {name: disk}, spec: {local: {directory: /var/lib/volumes}}}"), able_kinds());
  EXPECT_THAT(
      std::string(spec.status().message()),
      HasSubstr("spec.credentialsSecret: is required by local: a Secret in the operator's namespace with "
                "user, password"));
  EXPECT_THAT(std::string(spec.status().message()), HasSubstr("spec.nodeCredentialsSecret: is required"));
}

TEST(BackendSpec, HasDefaults) {
  const auto spec =
      parse(yaml("{metadata: {name: disk}, spec: {local: {directory: /var/lib/volumes}, storageClasses: "
                 "[{name: disk}]}}"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->deletion_policy, DeletionPolicy::kBlock);
  EXPECT_EQ(spec->orphan_action, "Report");
  EXPECT_EQ(spec->orphan_after, std::chrono::hours(168));
  EXPECT_EQ(spec->on_mount_lost, "Report");
  EXPECT_FALSE(spec->paused);
  EXPECT_FALSE(spec->allowed_namespaces.has_value());
  EXPECT_EQ(spec->limits.max_volumes, 0);
  EXPECT_EQ(spec->storage_classes[0].reclaim_policy, "Delete");
  EXPECT_EQ(spec->storage_classes[0].binding_mode, "WaitForFirstConsumer");
  EXPECT_FALSE(spec->storage_classes[0].is_default);
}

// The schema's defaults, which the API server writes into what it stores, are the ones above.
TEST(BackendSpec, HasTheDefaultsOfTheCrd) {
  const auto text = base::read_file(COLLAGE_SOURCE_DIR "/crds/storagebackends.yaml");
  ASSERT_TRUE(text.ok()) << text.status();
  const Json crd = yaml(*text);
  const Json* spec = base::find(crd, "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties");
  ASSERT_NE(spec, nullptr);
  const BackendSpec defaults;
  const ClassSpec class_defaults;
  EXPECT_EQ(base::get_string(*spec, "/deletionPolicy/default"), "Block");
  EXPECT_EQ(base::get_string(*spec, "/onMountLost/default"), defaults.on_mount_lost);
  EXPECT_EQ(base::get_bool(*spec, "/paused/default", true), defaults.paused);
  EXPECT_EQ(base::get_string(*spec, "/orphanPolicy/properties/action/default"), defaults.orphan_action);
  EXPECT_EQ(base::get_string(*spec, "/orphanPolicy/properties/after/default"), "168h");
  EXPECT_EQ(defaults.orphan_after, std::chrono::hours(168));
  const Json* item = base::find(*spec, "/storageClasses/items/properties");
  ASSERT_NE(item, nullptr);
  EXPECT_EQ(base::get_bool(*item, "/default/default", true), class_defaults.is_default);
  EXPECT_EQ(base::get_string(*item, "/reclaimPolicy/default"), class_defaults.reclaim_policy);
  EXPECT_EQ(base::get_string(*item, "/volumeBindingMode/default"), class_defaults.binding_mode);
  EXPECT_EQ(base::get_bool(*item, "/allowVolumeExpansion/default", true), class_defaults.allow_expansion);
}

// Every kind that is compiled in has its block in the CRD, and the CRD has no other.
TEST(BackendSpec, KnowsTheFieldsOfTheCrd) {
  const auto text = base::read_file(COLLAGE_SOURCE_DIR "/crds/storagebackends.yaml");
  ASSERT_TRUE(text.ok()) << text.status();
  const Json crd = yaml(*text);
  const Json* fields = base::find(crd, "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties");
  ASSERT_NE(fields, nullptr);
  // A problem with the value is fine here, "is not known" is not.
  for (const auto& [field, schema] : fields->items()) {
    const Json object = {{"metadata", {{"name", "a"}}}, {"spec", {{field, nullptr}}}};
    EXPECT_THAT(std::string(parse(object).status().message()), Not(HasSubstr("is not known"))) << field;
  }
  for (const drivers::Kind& kind : drivers::kinds())
    EXPECT_TRUE(fields->contains(kind.info.kind)) << kind.info.kind;
}

TEST(BackendSpec, RefusesWhatIsNoObject) {
  EXPECT_THAT(std::string(parse(Json(7)).status().message()), HasSubstr("StorageBackend: must be an object"));
  EXPECT_THAT(std::string(parse(Json{{"metadata", {{"name", "a"}}}, {"spec", "image"}}).status().message()),
              HasSubstr("spec: must be an object"));
}

TEST(BackendSpec, MayChangeAllButItsIdentity) {
  const auto before = parse(yaml("{metadata: {name: a}, spec: {image: {directory: /srv/share}}}"));
  const auto after =
      parse(yaml("{metadata: {name: a}, spec: {image: {directory: /srv/share}, paused: true, limits: "
                 "{maxVolumes: 3}}}"));
  ASSERT_TRUE(before.ok() && after.ok());
  EXPECT_TRUE(check_backend_update(*before, *after).ok());
}

TEST(LabelSelector, MatchesAsKubernetesDoes) {
  using Labels = std::map<std::string, std::string>;
  const Labels labels = {{"team", "data"}, {"env", "prod"}};
  EXPECT_TRUE(LabelSelector{}.matches(labels));
  EXPECT_TRUE(LabelSelector{}.matches({}));
  EXPECT_TRUE((LabelSelector{.match_labels = {{"team", "data"}}}.matches(labels)));
  EXPECT_FALSE((LabelSelector{.match_labels = {{"team", "data"}, {"env", "test"}}}.matches(labels)));
  struct Case {
    std::string_view name;
    LabelSelector::Expression expression;
    bool with, without;  // the label "env: prod" there, or no label at all
  };
  const Case cases[] = {
      {"In, among", {"env", "In", {"test", "prod"}}, true, false},
      {"In, not among", {"env", "In", {"test"}}, false, false},
      {"NotIn, among", {"env", "NotIn", {"prod"}}, false, true},
      {"NotIn, not among", {"env", "NotIn", {"test"}}, true, true},
      {"Exists", {"env", "Exists", {}}, true, false},
      {"DoesNotExist", {"env", "DoesNotExist", {}}, false, true},
  };
  for (const Case& one : cases) {
    LabelSelector selector;
    selector.match_expressions = {one.expression};
    EXPECT_EQ(selector.matches(labels), one.with) << one.name;
    EXPECT_EQ(selector.matches({}), one.without) << one.name;
  }
}

}  // namespace
}  // namespace collage::engine
