// What nodes say of their mounts reaches pods and claims, and deletes only pods that are theirs.
#include "operator/reconcile/mount_health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "unit/testing/builders.h"
#include "unit/testing/fake_api_server.h"
#include "unit/testing/fake_driver.h"

namespace collage::reconcile {
namespace {

using base::Json;

Json a_pod(const std::string& node, const std::string& propagation) {
  Json mount = {{"name", "data"}, {"mountPath", "/data"}};
  if (!propagation.empty()) mount["mountPropagation"] = propagation;
  return {
      {"apiVersion", "v1"},
      {"kind", "Pod"},
      {"metadata", {{"name", "web-0"}, {"namespace", "default"}, {"uid", "uid-1"}}},
      {"spec",
       {{"nodeName", node},
        {"containers", Json::array({{{"name", "main"}, {"volumeMounts", Json::array({mount})}}})},
        {"volumes", Json::array({{{"name", "data"}, {"persistentVolumeClaim", {{"claimName", "data"}}}}})}}}};
}

TEST(SeesNewMounts, OnlyWhereEveryContainerOfTheClaimLetsThemIn) {
  EXPECT_FALSE(sees_new_mounts(a_pod("node-a", ""), "data"));
  EXPECT_FALSE(sees_new_mounts(a_pod("node-a", "None"), "data"));
  EXPECT_TRUE(sees_new_mounts(a_pod("node-a", "HostToContainer"), "data"));
  EXPECT_TRUE(sees_new_mounts(a_pod("node-a", "Bidirectional"), "data"));
  Json two = a_pod("node-a", "HostToContainer");
  two["spec"]["initContainers"] =
      Json::array({{{"name", "side"}, {"volumeMounts", Json::array({{{"name", "data"}}})}}});
  EXPECT_FALSE(sees_new_mounts(two, "data")) << "a sidecar of the pod does not";
  two["spec"]["initContainers"][0]["volumeMounts"][0]["name"] = "other";
  EXPECT_TRUE(sees_new_mounts(two, "data"));
  Json block = a_pod("node-a", "HostToContainer");
  block["spec"]["containers"][0]["volumeDevices"] = Json::array({{{"name", "data"}}});
  EXPECT_FALSE(sees_new_mounts(block, "data"));
}

class MountHealthTest : public ::testing::Test {
 protected:
  MountHealthTest()
      : client_(api_.client()),
        events_(*client_, "test", "test"),
        kinds_{testing::fake_kind({})},
        world_(*client_, events_, kinds_, "collage"),
        health_(world_) {
    api_.put(testing::a_volume("pv-1")
                 .of_driver("fake.collage.storage")
                 .handle("fast/v1")
                 .claimed_by("default", "data", "claim-uid"));
    api_.put(storage_node({}));
  }
  ~MountHealthTest() override {
    health_.stop();
    world_.stop();
  }
  void start(const std::string& on_mount_lost) {
    world_.start(context_);
    ASSERT_TRUE(world_.wait_synced(context_).ok());
    auto backend = std::make_shared<engine::Backend>();
    backend->spec.name = "fast";
    backend->spec.on_mount_lost = on_mount_lost;
    world_.backends.set(backend);
    health_.start(context_);
  }

  static Json storage_node(std::vector<Json> abnormal) {
    return {{"apiVersion", kube::kStorageNodes.api_version()},
            {"kind", "StorageNode"},
            {"metadata", {{"name", "node-a"}, {"uid", "sn-uid"}}},
            {"spec", Json::object()},
            {"status", {{"agentVersion", "1"}, {"mounts", {{"abnormal", std::move(abnormal)}}}}}};
  }
  static Json lost(bool healed, const std::string& name_space = "default",
                   const std::string& path = "/pods/1/mount") {
    return {
        {"volume", "fast/v1"},   {"path", path},
        {"reason", "MountLost"}, {"message", "the mount at " + path + " was lost"},
        {"healed", healed},      {"pod", {{"namespace", name_space}, {"name", "web-0"}, {"uid", "uid-1"}}}};
  }
  void tell(std::vector<Json> abnormal) {
    ASSERT_TRUE(api_.update(kube::kStorageNodes, "node-a",
                            [&](Json& json) { json["status"]["mounts"]["abnormal"] = std::move(abnormal); }));
  }
  bool has_event(const std::string& kind, const std::string& reason, const std::string& part) {
    const auto events = api_.list(kube::kEvents);
    return std::any_of(events.begin(), events.end(), [&](const Json& event) {
      return base::get_string(event, "/involvedObject/kind") == kind &&
             base::get_string(event, "/reason") == reason &&
             absl::StrContains(base::get_string(event, "/message"), part);
    });
  }
  bool wait_event(const std::string& kind, const std::string& reason, const std::string& part) {
    return api_.wait_until([&] { return has_event(kind, reason, part); }, std::chrono::seconds(20));
  }
  bool pod_there() { return api_.get(kube::kPods, "default/web-0").has_value(); }

  base::Context context_;
  testing::FakeApiServer api_;
  std::unique_ptr<kube::Client> client_;
  kube::EventRecorder events_;
  std::vector<drivers::Kind> kinds_;
  World world_;
  MountHealth health_;
};

TEST_F(MountHealthTest, PodAndClaimAreToldAndToldWhenAllIsWell) {
  api_.put(a_pod("node-a", ""));
  start("Report");
  tell({lost(false)});
  EXPECT_TRUE(wait_event("Pod", "VolumeConditionAbnormal", "/pods/1/mount was lost"));
  EXPECT_TRUE(wait_event("PersistentVolumeClaim", "VolumeConditionAbnormal", "volume pv-1 on node node-a"));
  tell({});
  EXPECT_TRUE(wait_event("PersistentVolumeClaim", "VolumeConditionNormal", "/pods/1/mount"));
  EXPECT_TRUE(pod_there());
  EXPECT_EQ(api_.count("get", "pods") + api_.count("delete", "pods"), 0) << "Report reads no pod";
}

TEST_F(MountHealthTest, APodIsDeletedWhenTheBackendSaysSo) {
  api_.put(a_pod("node-a", ""));
  start("DeletePod");
  tell({lost(true)});
  EXPECT_TRUE(wait_event("Pod", "MountLost", "spec.onMountLost of StorageBackend fast"));
  EXPECT_FALSE(pod_there());
}

TEST_F(MountHealthTest, APodThatSeesTheNewMountStays) {
  api_.put(a_pod("node-a", "HostToContainer"));
  start("DeletePod");
  tell({lost(true)});
  EXPECT_TRUE(wait_event("Pod", "VolumeConditionNormal", "the pod sees it"));
  EXPECT_TRUE(pod_there());
  tell({lost(false)});  // nothing new to see
  EXPECT_TRUE(wait_event("Pod", "MountLost", "is deleted"));
}

TEST_F(MountHealthTest, ANodeSpeaksForItsOwnPodsOnly) {
  struct Case {
    const char* name;
    std::function<void(Json& pod)> change;
  };
  const Case cases[] = {
      {"on another node", [](Json& pod) { pod["spec"]["nodeName"] = "node-b"; }},
      {"another pod of that name", [](Json& pod) { pod["metadata"]["uid"] = "uid-2"; }},
      {"without the claim", [](Json& pod) { pod["spec"]["volumes"] = Json::array(); }},
  };
  start("DeletePod");
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    Json pod = a_pod("node-a", "");
    c.change(pod);
    api_.put(pod);
    api_.reset_counts();
    const std::string path = std::string("/pods/") + c.name;
    tell({lost(true, "default", path)});
    EXPECT_TRUE(api_.wait_until([&] { return api_.count("get", "pods") > 0; }, std::chrono::seconds(20)));
    tell({});
    EXPECT_TRUE(wait_event("PersistentVolumeClaim", "VolumeConditionNormal", path));
    EXPECT_TRUE(pod_there());
    EXPECT_EQ(api_.count("delete", "pods"), 0);
  }
  // Of another namespace than the claim's: not even asked for.
  api_.reset_counts();
  tell({lost(true, "kube-system", "/pods/9")});
  EXPECT_TRUE(wait_event("PersistentVolumeClaim", "VolumeConditionAbnormal", "/pods/9"));
  tell({});
  EXPECT_TRUE(wait_event("PersistentVolumeClaim", "VolumeConditionNormal", "/pods/9"));
  EXPECT_EQ(api_.count("get", "pods"), 0);
}

TEST_F(MountHealthTest, WithoutTheRightThePersonIsTold) {
  api_.put(a_pod("node-a", ""));
  start("DeletePod");
  api_.fail_next("get", "pods", testing::Fault::answer(403, "Forbidden"), 1);
  tell({lost(true)});
  EXPECT_TRUE(wait_event("Pod", "MountLost", "set rbac.deletePods=true"));
  EXPECT_TRUE(pod_there());
}

}  // namespace
}  // namespace collage::reconcile
