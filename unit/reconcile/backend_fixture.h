#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/json.h"
#include "operator/kube/events.h"
#include "operator/reconcile/backend_controller.h"
#include "operator/reconcile/config_map_intents.h"
#include "unit/testing/builders.h"
#include "unit/testing/fake_api_server.h"
#include "unit/testing/fake_driver.h"
#include "unit/testing/fake_nodes.h"

namespace collage::testing {

// Backends of the kind "fake", whose control half runs on any node; two nodes tell that they reach it.
class BackendControllerTest : public ::testing::Test {
 protected:
  BackendControllerTest() : client_(server_.client()), events_(*client_, "test", "test") {
    nodes_.add("node-a", driver_);
    nodes_.add("node-b", driver_);
  }
  ~BackendControllerTest() override { stop(); }

  static FakeDriverOptions options() {
    FakeDriverOptions options;
    options.info.control = drivers::ControlPlace::kAnyNode;
    options.system_id = "";
    return options;
  }
  static std::vector<drivers::Kind> kinds() {
    auto kind = fake_kind(options());
    kind.validate = [](const base::Json& block) {
      return block.contains("directory") ? absl::OkStatus()
                                         : absl::InvalidArgumentError("spec.fake.directory: is needed");
    };
    return {kind};
  }
  static BackendBuilder share() { return a_backend("share").kind("fake", {{"directory", "/srv"}}); }

  void start() {
    world_ = std::make_unique<reconcile::World>(*client_, events_, kinds_, "collage-system");
    world_->cluster_id = "cluster-1";
    world_->cluster_uid = "uid-of-cluster-1";
    world_->leads = [this] { return leads_ ? absl::OkStatus() : absl::CancelledError("leads no more"); };
    intents_ = std::make_unique<reconcile::ConfigMapIntents>(*client_, "collage-system");
    controller_ = std::make_unique<reconcile::BackendController>(
        *world_, nodes_, *intents_, reconcile::SurveyOptions{.after = std::chrono::milliseconds(1)});
    controller_->on_usable([this](const std::string& backend) {
      std::lock_guard lock(mutex_);
      usable_.push_back(backend);
    });
    controller_->on_lost_attachment([this](const std::string& attachment) {
      std::lock_guard lock(mutex_);
      lost_.push_back(attachment);
    });
    world_->start(context_);
    ASSERT_TRUE(world_->wait_synced(context_).ok());
    controller_->start(context_);
  }
  void stop() {
    if (controller_) controller_->stop();
    if (world_) world_->stop();
    controller_.reset();
    world_.reset();
  }
  // What the node's agent would write.
  void node_says(const std::string& node, const std::string& backend, bool ready,
                 const std::string& message = "", int64_t available = int64_t{6} << 30) {
    base::Json state = {{"name", backend}, {"ready", ready}, {"message", message}};
    if (ready) state["capacity"] = {{"totalBytes", int64_t{10} << 30}, {"availableBytes", available}};
    server_.put(a_storage_node(node)
                    .set("/status", {{"agentVersion", "0.1.0"}, {"backends", base::Json::array({state})}})
                    .set("/spec", base::Json::object()));
  }
  void both_nodes_ready() {
    node_says("node-a", "share", true);
    node_says("node-b", "share", true);
  }
  std::optional<base::Json> backend(const std::string& name = "share") const {
    return server_.get(kube::kStorageBackends, name);
  }
  std::string condition(const std::string& type, const std::string& field = "status") const {
    const auto object = backend();
    const base::Json* list = object ? base::find(*object, "/status/conditions") : nullptr;
    if (list == nullptr) return "";
    for (const base::Json& condition : *list) {
      if (base::get_string(condition, "/type") == type) return base::get_string(condition, "/" + field);
    }
    return "";
  }
  bool becomes(const std::string& type, const std::string& status, const std::string& reason) const {
    return server_.wait_until(
        [&] { return condition(type) == status && condition(type, "reason") == reason; });
  }
  bool ready() const { return becomes("Ready", "True", "Ready"); }

  // One of ours, on the storage and as an object: Released and retained.
  VolumeBuilder retained(const std::string& name, const std::string& cluster = "cluster-1") {
    driver_->put({.id = "vol-" + name,
                  .name = name,
                  .capacity_bytes = 1 << 20,
                  .tags = {{drivers::kTagCluster, cluster}, {drivers::kTagVolume, name}}});
    return a_volume(name)
        .of_driver("fake.collage.storage")
        .handle("share/vol-" + name)
        .attribute("collage.storage/system-id", base::get_string(*backend(), "/status/systemID"))
        .retain()
        .released();
  }
  std::string policy_of(const std::string& volume) const {
    return base::get_string(server_.get(kube::kPersistentVolumes, volume).value_or(base::Json()),
                            "/spec/persistentVolumeReclaimPolicy");
  }
  void annotate(const std::string& key, const std::string& value) {
    server_.update(kube::kStorageBackends, "share",
                   [&](base::Json& object) { object["metadata"]["annotations"][key] = value; });
  }
  bool says(const std::string& type, const std::string& text) const {
    return server_.wait_until([&] { return condition(type, "message").find(text) != std::string::npos; });
  }

  FakeApiServer server_;
  std::unique_ptr<kube::Client> client_;
  kube::EventRecorder events_;
  std::shared_ptr<FakeDriver> driver_ = std::make_shared<FakeDriver>(options());
  FakeNodes nodes_;
  const std::vector<drivers::Kind> kinds_ = kinds();
  const base::Context context_;
  std::mutex mutex_;
  std::vector<std::string> usable_;
  std::vector<std::string> lost_;
  std::atomic<bool> leads_ = true;
  std::unique_ptr<reconcile::World> world_;
  std::unique_ptr<reconcile::ConfigMapIntents> intents_;
  std::unique_ptr<reconcile::BackendController> controller_;
};

}  // namespace collage::testing
