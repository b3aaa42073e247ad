#include "operator/reconcile/storage_node_controller.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/log.h"
#include "base/status.h"

namespace collage::reconcile {
namespace {

using base::Json;

constexpr std::string_view kTaintSuffix = "/agent-not-ready";

bool attached_anywhere(const World& world, const std::string& node) {
  for (const auto& attachment : world.attachments.list()) {
    if (attachment->node_name == std::string_view(node) && world.kind_of_driver(attachment->attacher))
      return true;
  }
  return false;
}

}  // namespace

StorageNodeController::StorageNodeController(World& world)
    : world_(world), controller_("storage-node", 2, [this](const base::Context& c, const std::string& key) {
        return reconcile(c, key);
      }) {
  world_.nodes.add_handler([this](const auto& before, const auto& after) {
    // Heartbeats change nothing here.
    if (before && after && before->agent_taints == after->agent_taints) return;
    controller_.enqueue((after ? after : before)->meta.name);
  });
  world_.storage_nodes.add_handler([this](const auto& before, const auto& after) {
    if (!before || !after) controller_.enqueue((after ? after : before)->meta.name);
  });
  world_.csi_nodes.add_handler([this](const auto& before, const auto& after) {
    controller_.enqueue((after ? after : before)->meta.name);
  });
  world_.attachments.add_handler([this](const auto& before, const auto& after) {
    if (!after) controller_.enqueue(before->node_name.str());
  });
}

kube::Outcome StorageNodeController::reconcile(const base::Context& context, const std::string& name) {
  auto node = world_.nodes.get(name);
  auto object = world_.storage_nodes.get(name);
  if (node && !node->meta.deleting && !object) {
    auto created = world_.client.create(context, kube::kStorageNodes, "",
                                        {{"apiVersion", kube::kStorageNodes.api_version()},
                                         {"kind", "StorageNode"},
                                         {"metadata", {{"name", name}}},
                                         {"spec", Json::object()}});
    if (!created.ok() && !absl::IsAlreadyExists(created.status())) return kube::Retry{created.status()};
    if (created.ok()) world_.storage_nodes.observe(*created);
  }
  if (!node && object && !attached_anywhere(world_, name)) {
    absl::Status removed =
        world_.client.remove(context, kube::kStorageNodes, {"", name}, {.uid = object->meta.uid});
    if (!removed.ok()) return kube::Retry{removed};
  }
  if (node && !node->agent_taints.empty()) {
    absl::Status untainted = remove_taints(context, *node);
    if (!untainted.ok()) return kube::Retry{untainted};
  }
  return kube::Done{};
}

absl::Status StorageNodeController::remove_taints(const base::Context& context, const kube::Node& node) {
  auto csi_node = world_.csi_nodes.get(node.meta.name);
  if (!csi_node) return absl::OkStatus();
  auto ready = [&](std::string_view key) {
    return key.ends_with(kTaintSuffix) &&
           csi_node->driver(key.substr(0, key.size() - kTaintSuffix.size())) != nullptr;
  };
  if (std::none_of(node.agent_taints.begin(), node.agent_taints.end(),
                   [&](auto taint) { return ready(taint); }))
    return absl::OkStatus();
  COLLAGE_ASSIGN_OR_RETURN(Json live, world_.client.get(context, kube::kNodes, {"", node.meta.name}));
  const Json* taints = base::find(live, "/spec/taints");
  if (taints == nullptr || !taints->is_array()) return absl::OkStatus();
  Json kept = Json::array();
  for (const Json& taint : *taints) {
    if (!ready(base::get_string(taint, "/key"))) kept.push_back(taint);
  }
  if (kept.size() == taints->size()) return absl::OkStatus();
  // Taints of others may come and go meanwhile: the patch holds only for the list that was read.
  Json patch = Json::array({{{"op", "test"}, {"path", "/spec/taints"}, {"value", *taints}},
                            {{"op", "replace"}, {"path", "/spec/taints"}, {"value", kept}}});
  auto patched =
      world_.client.patch(context, kube::kNodes, {"", node.meta.name}, kube::PatchType::kJson, patch, {});
  if (!patched.ok())
    return base::annotate(patched.status(),
                          absl::StrCat("remove the startup taint of node ", node.meta.name));
  base::log::info(context, "startup taint removed", {{"node", node.meta.name}});
  return absl::OkStatus();
}

}  // namespace collage::reconcile
