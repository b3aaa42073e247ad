// The oracle of the crash tests speaks when it must: each of its sentences has a wrong that makes it.
#include "unit/testing/oracle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "operator/kube/resource.h"
#include "unit/testing/builders.h"

namespace collage::testing {
namespace {

using base::Json;
using drivers::Volume;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kFinalizer[] = "external-attacher/image-collage-storage";
constexpr char kIntents[] = "collage-intents-fast";

class Storage final : public StorageView {
 public:
  std::vector<Volume> volumes() override { return held; }
  void write(const Volume& volume, const std::string& content) override { contents[volume.id] = content; }
  std::string read(const Volume& volume) override { return contents[volume.id]; }
  Volume& only() { return held.at(0); }

  std::vector<Volume> held;
  std::map<std::string, std::string> contents;
};

// One claim, Bound to its volume, which is attached to a node and written to.
struct OracleTest : ::testing::Test {
  OracleTest() {
    storage.held = {{.id = "vol-1", .name = "pvc-u1", .attached_to = "id-node-a"}};
    api.put(a_claim("data").uid("u1").bound("pvc-u1"));
    api.put(a_volume("pvc-u1").handle("fast/vol-1").claimed_by("default", "data", "u1").bound());
    api.put(an_attachment("pvc-u1", "node-a").with_node_id("id-node-a").finalizer(kFinalizer).attached());
    oracle.applications_write();
  }
  void change(const kube::Resource& resource, const std::string& key, const std::function<void(Json&)>& how) {
    api.update(resource, key, how);
  }

  FakeApiServer api;
  Storage storage;
  Oracle oracle{api, storage};
};

TEST_F(OracleTest, IsSilentWhenAllIsWell) {
  EXPECT_THAT(oracle.wrongs_at_rest(), IsEmpty());
}

// A wrong of every instant, or one only of rest.
struct Wrong {
  std::string name;
  bool at_any_instant;
  std::function<void(OracleTest&)> plant;
  std::string sentence;
};

std::vector<Wrong> all_wrongs() {
  const auto set_phase = [](const std::string& phase) {
    return [phase](Json& json) { json["status"]["phase"] = phase; };
  };
  return {
      {"a volume nobody knows", true,
       [](OracleTest& t) { t.storage.held.push_back({.id = "vol-2", .name = "pvc-u2"}); },
       "leaked: volume vol-2 has no PersistentVolume and no intent"},
      {"an attachment nobody knows", true,
       [](OracleTest& t) { t.api.erase(kube::kVolumeAttachments, "csi-pvc-u1-node-a"); },
       "leaked: volume vol-1 is attached to id-node-a and no VolumeAttachment"},
      {"an attachment without our finalizer", true,
       [](OracleTest& t) {
         t.change(kube::kVolumeAttachments, "csi-pvc-u1-node-a",
                  [](Json& json) { json["metadata"]["finalizers"] = Json::array(); });
       },
       "leaked: volume vol-1 is attached to id-node-a and no VolumeAttachment"},
      {"attached by word only", true, [](OracleTest& t) { t.storage.only().attached_to = ""; },
       "lost: VolumeAttachment csi-pvc-u1-node-a is marked attached, the storage says otherwise"},
      {"a claim without its object", true,
       [](OracleTest& t) { t.api.erase(kube::kPersistentVolumes, "pvc-u1"); },
       "lost: the PersistentVolume of claim data"},
      {"a claim without its volume", true, [](OracleTest& t) { t.storage.held.clear(); },
       "lost: the volume of claim data"},
      {"a claim with an empty volume", true, [](OracleTest& t) { t.storage.contents.clear(); },
       "lost: what the application wrote to the volume of claim data"},
      {"an intent that stays", false,
       [](OracleTest& t) {
         t.api.put({{"apiVersion", "v1"},
                    {"kind", "ConfigMap"},
                    {"metadata", {{"name", kIntents}, {"namespace", "collage"}}},
                    {"data", {{"u1", "{}"}}}});
       },
       "leaked: the intent of claim u1 stays"},
      {"two volumes of a name", false,
       [](OracleTest& t) { t.storage.held.push_back({.id = "vol-2", .name = "pvc-u1"}); },
       "doubled: volume pvc-u1"},
      {"two volumes of a claim", false,
       [](OracleTest& t) {
         t.storage.only().tags[drivers::kTagClaim] = "default/data";
         t.storage.held.push_back(
             {.id = "vol-2", .name = "pvc-u2", .tags = {{drivers::kTagClaim, "default/data"}}});
       },
       "doubled: two volumes of claim default/data"},
      {"an object without its volume", false, [](OracleTest& t) { t.storage.held.clear(); },
       "lost: the volume of PersistentVolume pvc-u1"},
      {"an object that nobody wants", false,
       [=](OracleTest& t) { t.change(kube::kPersistentVolumes, "pvc-u1", set_phase("Released")); },
       "leaked: PersistentVolume pvc-u1 stays, unwanted"},
      {"an attachment that is not finished", false,
       [](OracleTest& t) {
         t.change(kube::kVolumeAttachments, "csi-pvc-u1-node-a",
                  [](Json& json) { json["status"]["attached"] = false; });
       },
       "lost: VolumeAttachment csi-pvc-u1-node-a was never marked attached"},
      {"an attachment that does not go", false,
       [](OracleTest& t) { t.api.remove(kube::kVolumeAttachments, "csi-pvc-u1-node-a"); },
       "leaked: VolumeAttachment csi-pvc-u1-node-a stays"},
      {"a claim that waits", false,
       [=](OracleTest& t) { t.change(kube::kPersistentVolumeClaims, "default/data", set_phase("Pending")); },
       "lost: claim data is not Bound"},
  };
}

class OracleSays : public OracleTest, public ::testing::WithParamInterface<Wrong> {};

TEST_P(OracleSays, WhatIsWrong) {
  const Wrong& wrong = GetParam();
  wrong.plant(*this);
  const auto said = ::testing::Contains(HasSubstr(wrong.sentence));
  if (wrong.at_any_instant) {
    EXPECT_THAT(oracle.wrongs(), said);
  } else {
    EXPECT_THAT(oracle.wrongs(), ::testing::Not(said)) << "amid an operation that is no wrong";
  }
  EXPECT_THAT(oracle.wrongs_at_rest(), said);
}

INSTANTIATE_TEST_SUITE_P(Each, OracleSays, ::testing::ValuesIn(all_wrongs()), [](const auto& info) {
  std::string name;
  for (const char c : info.param.name) name += c == ' ' ? '_' : c;
  return name;
});

}  // namespace
}  // namespace collage::testing
