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
  MountHealthTest() : client_(api_.client()), kinds_{testing::fake_kind({})} {
    api_.put(testing::a_volume("pv-1")
                 .of_driver("fake.collage.storage")
                 .handle("fast/v1")
                 .claimed_by("default", "data", "claim-uid"));
    api_.put(storage_node({}));
  }
  // The next leader takes the place of the last.
  void start(const std::string& on_mount_lost) {
    leader_.reset();
    leader_ = std::make_unique<Leader>(*client_, kinds_);
    World& world = leader_->world;
    world.start(context_);
    ASSERT_TRUE(world.wait_synced(context_).ok());
    auto backend = std::make_shared<engine::Backend>();
    backend->spec.name = "fast";
    backend->spec.on_mount_lost = on_mount_lost;
    world.backends.set(backend);
    leader_->health.start(context_);
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
  static Json lost_and_made_again_at(const std::string& time) {
    Json mount = lost(true);
    if (!time.empty()) mount["healedAt"] = time;
    return mount;
  }
  static Json a_pod_of(Json container_status) {
    Json pod = a_pod("node-a", "");
    container_status["name"] = "main";
    pod["status"]["containerStatuses"] = Json::array({std::move(container_status)});
    return pod;
  }
  static Json running_since(const std::string& time, int restarts) {
    return {{"restartCount", restarts}, {"state", {{"running", {{"startedAt", time}}}}}};
  }
  int events_of(const std::string& reason) {
    const auto events = api_.list(kube::kEvents);
    return static_cast<int>(std::count_if(events.begin(), events.end(), [&](const Json& event) {
      return base::get_string(event, "/reason") == reason;
    }));
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

  struct Leader {
    Leader(kube::Client& client, const std::vector<drivers::Kind>& kinds)
        : events(client, "test", "test"), world(client, events, kinds, "collage"), health(world) {}
    ~Leader() {
      health.stop();
      world.stop();
    }
    kube::EventRecorder events;
    World world;
    MountHealth health;
  };
  base::Context context_;
  testing::FakeApiServer api_;
  std::unique_ptr<kube::Client> client_;
  std::vector<drivers::Kind> kinds_;
  std::unique_ptr<Leader> leader_;
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

struct Container {
  std::string_view name;
  std::string healed_at;  // as the node says
  Json status;            // of the pod's one container
  bool blind;
};

constexpr char kEarlier[] = "2026-01-01T10:00:00Z", kLater[] = "2026-01-01T10:00:11Z",
               kHealed[] = "2026-01-01T10:00:05Z";

const Container kContainers[] = {
    {"runs since before", kHealed, {{"state", {{"running", {{"startedAt", kEarlier}}}}}}, true},
    {"was started anew since", kHealed, {{"state", {{"running", {{"startedAt", kLater}}}}}}, false},
    {"was started anew before it",
     kHealed,
     {{"restartCount", 3}, {"state", {{"running", {{"startedAt", kEarlier}}}}}},
     true},
    {"was started soon after, with mounts that may be older",
     kHealed,
     {{"state", {{"running", {{"startedAt", "2026-01-01T10:00:07Z"}}}}}},
     true},
    {"waits to be started anew", "", {{"state", {{"waiting", {{"reason", "CrashLoopBackOff"}}}}}}, false},
    {"has ended", "", {{"state", {{"terminated", {{"exitCode", 0}}}}}}, false},
    {"was never started anew, and nobody knows when it was healed",
     "",
     {{"restartCount", 0}, {"state", {{"running", {{"startedAt", kLater}}}}}},
     true},
    {"was started anew at some time, and nobody knows when it was healed",
     "",
     {{"restartCount", 1}, {"state", {{"running", {{"startedAt", kLater}}}}}},
     false},
    {"of which nothing is known", kHealed, Json::object(), true},
};

TEST_F(MountHealthTest, TheNextLeaderTellsNobodyAgainAndDeletesOnlyWhoIsStillBlind) {
  for (const Container& c : kContainers) {
    SCOPED_TRACE(c.name);
    tell({});
    for (const Json& event : api_.list(kube::kEvents))
      api_.erase(kube::kEvents, "default/" + base::get_string(event, "/metadata/name"));
    api_.put(a_pod_of(running_since(kEarlier, 0)));
    start("Report");
    tell({lost_and_made_again_at(c.healed_at)});
    ASSERT_TRUE(wait_event("Pod", "VolumeConditionAbnormal", "was lost"));
    ASSERT_TRUE(wait_event("PersistentVolumeClaim", "VolumeConditionAbnormal", "was lost"));

    api_.put(a_pod_of(c.status));
    api_.reset_counts();
    start("DeletePod");
    ASSERT_TRUE(api_.wait_until([&] { return api_.count("get", "pods") > 0; }, std::chrono::seconds(20)));
    tell({});
    ASSERT_TRUE(wait_event("PersistentVolumeClaim", "VolumeConditionNormal", "nothing is wrong any more"));
    EXPECT_EQ(pod_there(), !c.blind);
    EXPECT_EQ(events_of("VolumeConditionAbnormal"), 2) << "of the first leader";
  }
}

TEST_F(MountHealthTest, WhatOneLeaderLeftUndoneTheNextDoes) {
  api_.put(a_pod_of(running_since(kEarlier, 0)));
  tell({lost_and_made_again_at(kHealed)});
  start("DeletePod");
  EXPECT_TRUE(wait_event("Pod", "MountLost", "is deleted"));
  EXPECT_FALSE(pod_there());
}

TEST_F(MountHealthTest, WhatHappensUnderALeaderIsToldWhateverWasThereBefore) {
  api_.put(a_pod_of(running_since(kLater, 1)));
  tell({lost_and_made_again_at("")});
  start("DeletePod");
  ASSERT_TRUE(api_.wait_until([&] { return api_.count("get", "pods") > 0; }, std::chrono::seconds(20)));
  tell({lost(false)});
  EXPECT_TRUE(wait_event("Pod", "VolumeConditionAbnormal", "was lost"));
  EXPECT_TRUE(wait_event("Pod", "MountLost", "is deleted"));
}

TEST(StillBlind, EveryContainerOfTheClaimCounts) {
  const auto healed_at = base::parse_rfc3339(kHealed);
  const Json restarted = {
      {"name", "main"}, {"restartCount", 1}, {"state", {{"running", {{"startedAt", kLater}}}}}};
  Json pod = a_pod("node-a", "");
  EXPECT_TRUE(still_blind(pod, "data", healed_at, Known::kSeen));
  pod["status"]["containerStatuses"] = Json::array({restarted});
  EXPECT_FALSE(still_blind(pod, "data", healed_at, Known::kSeen));
  EXPECT_TRUE(still_blind(pod, "data", {}, Known::kSeen)) << "it was just lost, and it runs";
  pod["spec"]["initContainers"] =
      Json::array({{{"name", "side"}, {"volumeMounts", Json::array({{{"name", "data"}}})}}});
  EXPECT_TRUE(still_blind(pod, "data", healed_at, Known::kSeen)) << "the sidecar was not started anew";
  pod["status"]["initContainerStatuses"] =
      Json::array({{{"name", "side"}, {"state", {{"running", {{"startedAt", kLater}}}}}}});
  EXPECT_FALSE(still_blind(pod, "data", healed_at, Known::kSeen));
  EXPECT_FALSE(still_blind(a_pod("node-a", "HostToContainer"), "data", healed_at, Known::kSeen));
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
