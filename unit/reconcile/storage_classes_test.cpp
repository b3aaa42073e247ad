#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "drivers/registry.h"
#include "operator/engine/names.h"
#include "operator/reconcile/capacity.h"
#include "operator/reconcile/csi_driver.h"
#include "operator/reconcile/storage_classes.h"

namespace collage::reconcile {
namespace {

using base::Json;

engine::BackendSpec backend() {
  engine::BackendSpec spec;
  spec.name = "share";
  spec.kind = "image";
  return spec;
}

engine::ClassSpec fast() {
  engine::ClassSpec spec;
  spec.name = "fast";
  spec.parameters = {{"fsType", "xfs"}};
  return spec;
}

// The class as it comes back from the API server once it was made.
kube::StorageClass made(const engine::ClassSpec& wanted) {
  Json object = class_object(backend(), wanted);
  object["metadata"]["uid"] = "u-1";
  object["metadata"]["resourceVersion"] = "7";
  auto parsed = kube::parse<kube::StorageClass>(object);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return *std::move(parsed);
}

TEST(ClassDecision, AMissingClassIsMadeAndThenLeftAlone) {
  EXPECT_EQ(decide_class(backend(), fast(), nullptr), ClassStep::kCreate);
  const auto present = made(fast());
  EXPECT_EQ(decide_class(backend(), fast(), &present), ClassStep::kNone);
}

TEST(ClassDecision, AFieldThatMayChangeIsChangedInPlace) {
  const auto present = made(fast());
  auto wanted = fast();
  wanted.mount_options = {"noatime"};
  EXPECT_EQ(decide_class(backend(), wanted, &present), ClassStep::kUpdate);
  wanted = fast();
  wanted.is_default = true;
  EXPECT_EQ(decide_class(backend(), wanted, &present), ClassStep::kUpdate);
  wanted = fast();
  wanted.allow_expansion = true;
  EXPECT_EQ(decide_class(backend(), wanted, &present), ClassStep::kUpdate);
}

TEST(ClassDecision, AnImmutableFieldMakesItAgain) {
  const auto present = made(fast());
  auto wanted = fast();
  wanted.parameters["fsType"] = "ext4";
  EXPECT_EQ(decide_class(backend(), wanted, &present), ClassStep::kRecreate);
  wanted = fast();
  wanted.reclaim_policy = "Retain";
  EXPECT_EQ(decide_class(backend(), wanted, &present), ClassStep::kRecreate);
  wanted = fast();
  wanted.binding_mode = "Immediate";
  EXPECT_EQ(decide_class(backend(), wanted, &present), ClassStep::kRecreate);
}

TEST(ClassDecision, AClassThatIsNotOursIsNeverTouched) {
  auto present = made(fast());
  present.managed_by_backend = "";
  EXPECT_EQ(decide_class(backend(), fast(), &present), ClassStep::kConflictForeign);
  present.managed_by_backend = "another";
  EXPECT_EQ(decide_class(backend(), fast(), &present), ClassStep::kConflictForeign);
}

TEST(ClassObject, TheFriendlyFsTypeBecomesTheKeyOfTheField) {
  const Json object = class_object(backend(), fast());
  EXPECT_EQ(object["parameters"], Json({{"backend", "share"}, {"csi.storage.k8s.io/fstype", "xfs"}}));
  EXPECT_EQ(object["provisioner"], "image.collage.storage");
}

TEST(CsiDriverObject, EveryKindHasFixedFieldsFromItsTable) {
  for (const auto& kind : drivers::kinds()) {
    const Json object = csi_driver_object(kind);
    EXPECT_EQ(object["spec"]["attachRequired"], kind.attaches) << kind.info.kind;
    EXPECT_EQ(object["metadata"]["name"], drivers::csi_driver_name(kind.info.kind));
    EXPECT_EQ(object["spec"]["volumeLifecycleModes"], Json::array({"Persistent"}));
  }
}

TEST(Capacity, LimitsOfTheBackendCapWhatTheStorageHas) {
  const drivers::Capacity room{.total_bytes = 1000, .available_bytes = 800, .maximum_volume_bytes = 0};
  EXPECT_EQ(under_limits(room, {}, {}), room);
  EXPECT_EQ(under_limits(room, {.max_provisioned_bytes = 500}, {.volumes = 1, .bytes = 300}).available_bytes,
            200);
  EXPECT_EQ(under_limits(room, {.max_provisioned_bytes = 500}, {.volumes = 1, .bytes = 900}).available_bytes,
            0);
  EXPECT_EQ(under_limits(room, {.max_volumes = 2}, {.volumes = 2, .bytes = 1}).available_bytes, 0);
  EXPECT_EQ(under_limits(room, {.max_volumes = 3}, {.volumes = 2, .bytes = 1}).available_bytes, 800);
  EXPECT_EQ(under_limits(room, {.max_volume_bytes = 64}, {}).maximum_volume_bytes, 64);
}

TEST(Capacity, SmallChangesAreNotWorthAWrite) {
  const drivers::Capacity before{.available_bytes = 10000};
  EXPECT_FALSE(worth_publishing(before, {.available_bytes = 10000}));
  EXPECT_FALSE(worth_publishing(before, {.available_bytes = 9950}));
  EXPECT_TRUE(worth_publishing(before, {.available_bytes = 9800}));
  EXPECT_TRUE(worth_publishing(before, {.available_bytes = 0}));
  EXPECT_TRUE(worth_publishing({.available_bytes = 0}, {.available_bytes = 1}));
  EXPECT_TRUE(worth_publishing(before, {.available_bytes = 10000, .maximum_volume_bytes = 5}));
}

}  // namespace
}  // namespace collage::reconcile
