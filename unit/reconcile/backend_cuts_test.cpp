// The operator is killed at everything that others can see of how it begins a backend, ends one with
// deletionPolicy Delete, and deletes a pod whose mount was lost: before it is sent and after its effect. The
// acts are recorded from a life without a kill.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "unit/reconcile/cluster.h"
#include "unit/reconcile/cutter.h"

namespace collage::reconcile {
namespace {

using base::get_string;
using base::Json;
using testing::Act;
using testing::Cluster;
using testing::Cutter;
using ::testing::IsSubsetOf;
using ::testing::IsSupersetOf;
using testing::Side;

constexpr char kTheBackend[] = "fast";
constexpr char kTheClass[] = "kept";

// What happens, what it looks like when the operator has done its part, and what must never be.
class Scene {
 public:
  enum class Meanwhile { kNothing, kChanged };  // while no operator runs, in the scene's own way

  explicit Scene(Cluster::Options options) : cluster(std::move(options)), cutter(cluster) {}
  virtual ~Scene() { cluster.kill(); }
  virtual void prepare() = 0;  // with an operator
  virtual void begin() = 0;
  virtual void changes() = 0;  // meanwhile
  virtual bool done(Meanwhile meanwhile) = 0;
  virtual std::vector<std::string> wrongs() = 0;  // at any instant without an operator
  virtual std::vector<std::string> wrongs_at_rest(Meanwhile meanwhile) = 0;
  virtual std::set<std::string> kinds() const = 0;  // of what it does, each time

  Cluster cluster;
  Cutter cutter;

 protected:
  static Cluster::Options options_for_backends() {
    Cluster::Options options{.keeps_backends = true};
    options.driver.info.control = drivers::ControlPlace::kAnyNode;
    options.driver.system_id = "";  // until the first probe puts the marker there
    return options;
  }
  void node_is_ready() {
    cluster.node_answers.add("node-a", cluster.driver);
    Json state = {{"name", kTheBackend},
                  {"ready", true},
                  {"message", ""},
                  {"capacity", {{"totalBytes", int64_t{1} << 34}, {"availableBytes", int64_t{1} << 33}}}};
    cluster.api.put(testing::a_node("node-a"));
    cluster.api.put(testing::a_storage_node("node-a")
                        .set("/spec", Json::object())
                        .set("/status", {{"agentVersion", "1"}, {"backends", Json::array({state})}}));
  }
  std::optional<Json> backend() const { return cluster.api.get(kube::kStorageBackends, kTheBackend); }
  bool backend_is_ready() const {
    const auto object = backend();
    const Json* conditions = object ? base::find(*object, "/status/conditions") : nullptr;
    if (conditions == nullptr) return false;
    const bool ready = std::any_of(conditions->begin(), conditions->end(), [](const Json& condition) {
      return get_string(condition, "/type") == "Ready" && get_string(condition, "/status") == "True";
    });
    return ready && get_string(*object, "/status/clusterUID") == "uid-of-cluster-1" &&
           cluster.api.get(kube::kStorageClasses, kTheClass).has_value() &&
           cluster.api.list(kube::kCsiStorageCapacities).size() == 1;
  }
  // What is kept for a backend.
  std::vector<std::string> remains() const {
    std::vector<std::string> left;
    if (cluster.api.get(kube::kStorageClasses, kTheClass)) left.push_back("its StorageClass");
    if (!cluster.api.list(kube::kCsiStorageCapacities).empty()) left.push_back("a CSIStorageCapacity");
    if (cluster.api.get(kube::kConfigMaps, "collage/collage-intents-fast")) left.push_back("its intents");
    return left;
  }
  // The storage's identity, once it is recorded, is the storage's.
  void check_identity(std::vector<std::string>& wrongs) {
    const auto object = backend();
    const std::string recorded = object ? get_string(*object, "/status/systemID") : "";
    if (!recorded.empty() && recorded != cluster.driver->system_id())
      wrongs.push_back(absl::StrCat("lost: the storage is not the one that is recorded, ", recorded));
  }
};

// A StorageBackend is made; or is deleted again while no operator runs.
class Begin : public Scene {
 public:
  Begin() : Scene(options_for_backends()) {}
  void prepare() override { node_is_ready(); }
  void begin() override {
    cluster.api.put(
        testing::a_backend(kTheBackend).kind("fake", {{"directory", "/srv"}}).with_class(kTheClass));
  }
  void changes() override { cluster.api.remove(kube::kStorageBackends, kTheBackend); }
  bool done(Meanwhile meanwhile) override {
    return meanwhile == Meanwhile::kNothing ? backend_is_ready() : !backend().has_value();
  }
  std::vector<std::string> wrongs() override {
    std::vector<std::string> wrongs;
    check_identity(wrongs);
    const auto object = backend();
    const Json* finalizers = object ? base::find(*object, "/metadata/finalizers") : nullptr;
    const bool held = finalizers != nullptr && !finalizers->empty();
    for (const std::string& left : remains()) {
      if (!held) wrongs.push_back(absl::StrCat("leaked when the backend goes now: ", left));
    }
    return wrongs;
  }
  std::vector<std::string> wrongs_at_rest(Meanwhile meanwhile) override {
    std::vector<std::string> wrongs = this->wrongs();
    if (meanwhile == Meanwhile::kNothing && get_string(*backend(), "/status/systemID").empty())
      wrongs.push_back("lost: the storage's identity");
    return wrongs;
  }
  std::set<std::string> kinds() const override {
    return {"patch storagebackends", "patch storagebackends/status", "driver probe",
            "create csidrivers",     "patch csistoragecapacities",   "create storageclasses"};
  }
};

// A StorageBackend with deletionPolicy Delete goes, with one volume of ours and one of another cluster's. A
// person removes the other's object: at once when ours is gone, or while no operator runs.
class End : public Scene {
 public:
  End() : Scene(options_for_backends()) {}
  void prepare() override {
    node_is_ready();
    cluster.api.put(testing::a_backend(kTheBackend)
                        .kind("fake", {{"directory", "/srv"}})
                        .with_class(kTheClass)
                        .deletion_policy("Delete"));
    ASSERT_TRUE(cluster.wait([&] { return backend_is_ready(); }));
    cluster.api.put(retained(kOurs, "cluster-1"));
    cluster.api.put(retained(kTheirs, "another-cluster"));
    cluster.api.on_change("persistentvolumes", [this](const testing::FakeStore::Change& change) {
      if (change.type == "DELETED" && get_string(*change.object, "/metadata/name") == kOurs) changes();
    });
    ASSERT_TRUE(cluster.wait([&] { return cluster.op->world.volumes.size() == 2; }));
  }
  void begin() override { cluster.api.remove(kube::kStorageBackends, kTheBackend); }
  void changes() override {
    const auto theirs = cluster.pv(kTheirs);
    if (theirs.has_value()) policy_of_theirs_ = policy_of(*theirs);
    cluster.api.erase(kube::kPersistentVolumes, kTheirs);
  }
  bool done(Meanwhile) override { return !backend().has_value(); }
  std::vector<std::string> wrongs() override {
    std::vector<std::string> wrongs;
    check_identity(wrongs);
    const auto ours = cluster.pv(kOurs);
    const bool stored = cluster.driver->volumes().contains(absl::StrCat("vol-", kOurs));
    if (!ours && stored) wrongs.push_back("leaked: our volume, which no object tells of");
    if (ours && !stored && policy_of(*ours) != "Delete")
      wrongs.push_back("lost: our volume, and nothing says that it was to go");
    if (!cluster.driver->volumes().contains(absl::StrCat("vol-", kTheirs)))
      wrongs.push_back("lost: the volume of another cluster");
    if (const auto theirs = cluster.pv(kTheirs)) policy_of_theirs_ = policy_of(*theirs);
    if (policy_of_theirs_ != "Retain") wrongs.push_back("the volume of another cluster is to be removed");
    for (const std::string& left : remains()) {
      if (!backend().has_value()) wrongs.push_back(absl::StrCat("leaked: ", left));
    }
    if (!backend().has_value() && ours) wrongs.push_back("the backend went before its volume");
    return wrongs;
  }
  std::vector<std::string> wrongs_at_rest(Meanwhile) override {
    std::vector<std::string> wrongs = this->wrongs();
    if (cluster.driver->volumes().contains(absl::StrCat("vol-", kOurs)))
      wrongs.push_back("leaked: our volume");
    return wrongs;
  }
  std::set<std::string> kinds() const override {
    return {"patch persistentvolumes",  "driver inspect",        "driver remove",
            "delete persistentvolumes", "delete storageclasses", "delete csistoragecapacities",
            "patch storagebackends",    "driver probe"};
  }

 private:
  static constexpr char kOurs[] = "pvc-ours", kTheirs[] = "pvc-theirs";
  static std::string policy_of(const Json& volume) {
    return get_string(volume, "/spec/persistentVolumeReclaimPolicy");
  }
  testing::VolumeBuilder retained(const std::string& name, const std::string& owner) {
    testing::VolumeBuilder volume = cluster.volume(name);
    cluster.driver->put({.id = absl::StrCat("vol-", name),
                         .name = name,
                         .capacity_bytes = int64_t{1} << 30,
                         .tags = {{drivers::kTagCluster, owner}, {drivers::kTagVolume, name}}});
    return volume.attribute("collage.storage/system-id", get_string(*backend(), "/status/systemID"))
        .retain()
        .released();
  }
  std::string policy_of_theirs_ = "Retain";
};

// A node says that a pod's mount is lost, and the backend's onMountLost is DeletePod. Meanwhile: the pod was
// made anew under its name, as a StatefulSet does.
class MountLost : public Scene {
 public:
  MountLost() : Scene({.tells_mounts = true}) {}
  void prepare() override {
    cluster.api.put(cluster.volume("pv-1").claimed_by("default", "data", "claim-uid").bound());
    cluster.api.put(pod("web-0", "uid-1"));
    cluster.api.put(pod("web-1", "uid-of-web-1"));
    cluster.api.put(testing::a_storage_node("node-a").set("/spec", Json::object()));
    ASSERT_TRUE(cluster.wait([&] {
      return cluster.op->world.storage_nodes.size() == 1 && cluster.op->world.volumes.size() == 1;
    }));
  }
  void begin() override {
    Json mount = {{"volume", "fast/vol-pv-1"},
                  {"path", "/pods/1/mount"},
                  {"reason", "MountLost"},
                  {"message", "the mount at /pods/1/mount was lost"},
                  {"healed", true},
                  {"pod", {{"namespace", "default"}, {"name", "web-0"}, {"uid", "uid-1"}}}};
    cluster.api.update(kube::kStorageNodes, "node-a", [&](Json& json) {
      json["status"] = {{"agentVersion", "1"}, {"mounts", {{"abnormal", Json::array({mount})}}}};
    });
  }
  void changes() override {
    cluster.api.erase(kube::kPods, "default/web-0");
    cluster.api.put(pod("web-0", kNewUid));
  }
  bool done(Meanwhile meanwhile) override {
    if (meanwhile == Meanwhile::kNothing) return uid_of("web-0").empty();
    // It was looked at, and left.
    return cluster.api.count("get", "pods") > looks_before_;
  }
  std::vector<std::string> wrongs() override {
    std::vector<std::string> wrongs;
    if (uid_of("web-1") != "uid-of-web-1") wrongs.push_back("lost: a pod that nobody spoke of");
    looks_before_ = cluster.api.count("get", "pods");
    return wrongs;
  }
  std::vector<std::string> wrongs_at_rest(Meanwhile meanwhile) override {
    std::vector<std::string> wrongs = this->wrongs();
    if (meanwhile == Meanwhile::kChanged && uid_of("web-0") != kNewUid)
      wrongs.push_back("lost: the pod that came in place of the one whose mount was lost");
    return wrongs;
  }
  std::set<std::string> kinds() const override { return {"delete pods"}; }

 private:
  static constexpr char kNewUid[] = "uid-2";
  std::string uid_of(const std::string& name) const {
    return get_string(cluster.api.get(kube::kPods, "default/" + name).value_or(Json()), "/metadata/uid");
  }
  static Json pod(const std::string& name, const std::string& uid) {
    const Json container = {{"name", "main"},
                            {"volumeMounts", Json::array({{{"name", "data"}, {"mountPath", "/data"}}})}};
    const Json volume = {{"name", "data"}, {"persistentVolumeClaim", {{"claimName", "data"}}}};
    return {{"apiVersion", "v1"},
            {"kind", "Pod"},
            {"metadata", {{"name", name}, {"namespace", "default"}, {"uid", uid}}},
            {"spec",
             {{"nodeName", "node-a"},
              {"containers", Json::array({container})},
              {"volumes", Json::array({volume})}}}};
  }
  int looks_before_ = 0;
};

struct Case {
  std::string_view name;
  std::unique_ptr<Scene> (*make)();
  Scene::Meanwhile meanwhile;
};

template <typename Kind>
std::unique_ptr<Scene> make() {
  auto scene = std::make_unique<Kind>();
  testing::set_fake_driver(scene->cluster.driver);
  return scene;
}

class BackendCuts : public ::testing::TestWithParam<Case> {
 protected:
  static bool is_told(const Act& act) { return act.kind.ends_with(" events"); }  // it holds nothing

  static std::unique_ptr<Scene> set_up() {
    std::unique_ptr<Scene> scene = GetParam().make();
    scene->cluster.start();
    scene->prepare();
    return scene;
  }
  static bool expect_no_wrongs(const std::vector<std::string>& wrongs) {
    for (const std::string& wrong : wrongs) ADD_FAILURE() << wrong;
    return wrongs.empty();
  }

  static std::vector<Act> record() {
    const std::unique_ptr<Scene> scene = set_up();
    scene->cutter.record();
    scene->begin();
    EXPECT_TRUE(scene->cluster.wait([&] { return scene->done(Scene::Meanwhile::kNothing); }));
    std::vector<Act> acts = scene->cutter.acts();
    std::erase_if(acts, is_told);
    std::set<std::string> kinds;
    for (const Act& act : acts) kinds.insert(act.kind);
    EXPECT_THAT(kinds, IsSupersetOf(scene->kinds()));
    return acts;
  }

  // Killed at the act, and once more at the first act of the recovery when `twice`. False when the life came
  // to its end without that act: how many status writes there are is a matter of time.
  static bool die(const Act& act, Side side, bool twice) {
    const std::unique_ptr<Scene> scene = set_up();
    const auto await_death = [&](Scene::Meanwhile meanwhile) {
      EXPECT_TRUE(scene->cluster.wait([&] { return scene->cluster.dead() || scene->done(meanwhile); }));
      const bool dead = scene->cluster.dead();
      scene->cluster.kill();
      expect_no_wrongs(scene->wrongs());
      return dead;
    };
    scene->cutter.cut(act, side);
    scene->begin();
    const bool dead = await_death(Scene::Meanwhile::kNothing);
    if (GetParam().meanwhile == Scene::Meanwhile::kChanged) scene->changes();
    if (twice) {
      scene->cutter.cut({"", 1}, side);
      scene->cluster.start();
      await_death(GetParam().meanwhile);
    }
    scene->cutter.record();
    scene->cluster.start();
    EXPECT_TRUE(scene->cluster.wait([&] { return scene->done(GetParam().meanwhile); }))
        << "it does not come to its end";
    scene->cluster.kill();
    expect_no_wrongs(scene->wrongs_at_rest(GetParam().meanwhile));
    return dead;
  }
};

TEST_P(BackendCuts, NothingIsLeakedOrLost) {
  std::set<std::string> cut;
  for (const Act& act : record()) {
    for (const Side side : {Side::kBefore, Side::kAfter}) {
      for (const bool twice : {false, true}) {
        SCOPED_TRACE(to_string(act, side) + (twice ? ", killed again" : ""));
        if (die(act, side, twice)) cut.insert(act.kind);
        if (HasFailure()) return;
      }
    }
  }
  EXPECT_THAT(cut, IsSupersetOf(GetParam().make()->kinds()));
}

INSTANTIATE_TEST_SUITE_P(AtEveryAct, BackendCuts,
                         ::testing::Values(Case{"Begin", make<Begin>, Scene::Meanwhile::kNothing},
                                           Case{"BeginDeleted", make<Begin>, Scene::Meanwhile::kChanged},
                                           Case{"End", make<End>, Scene::Meanwhile::kNothing},
                                           Case{"EndOthersGone", make<End>, Scene::Meanwhile::kChanged},
                                           Case{"MountLost", make<MountLost>, Scene::Meanwhile::kNothing},
                                           Case{"MountLostRenewed", make<MountLost>,
                                                Scene::Meanwhile::kChanged}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace collage::reconcile
