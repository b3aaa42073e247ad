// What a backend says of itself.
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/quantity.h"
#include "base/status.h"
#include "operator/engine/names.h"
#include "operator/reconcile/backend_controller.h"
#include "operator/reconcile/deletion_decision.h"

namespace collage::reconcile {
namespace {

using base::Json;

int attached_volumes(const World& world, const std::string& backend) {
  int count = 0;
  for (const auto& attachment : world.attachments.list()) {
    if (!attachment->attached) continue;
    auto volume = world.volumes.get(attachment->volume_name);
    if (!volume || !world.kind_of_driver(volume->driver)) continue;
    auto handle = drivers::parse_handle(volume->handle);
    if (handle.ok() && handle->backend == backend) ++count;
  }
  return count;
}

}  // namespace

absl::Status BackendController::write_status(const base::Context& context, const kube::BackendObject& object,
                                             const BackendVerdict& verdict, const BackendFacts& facts,
                                             const Memory& memory, const drivers::Kind* kind) {
  const Json* before = base::find(*object.json, "/status");
  Json status = {
      {"observedGeneration", object.meta.generation},
      {"phase", verdict.phase},
      {"conditions",
       conditions_json(verdict.conditions, base::find(*object.json, "/status/conditions"),
                       static_cast<int64_t>(object.meta.generation), base::rfc3339(context.clock().wall()))},
  };
  if (kind != nullptr && memory.driver) {
    const auto used = world_.usage.total(object.meta.name);
    status["kind"] = kind->info.kind;
    status["systemID"] = memory.system_id;
    status["features"] = drivers::features(*memory.driver);
    status["clusterID"] = world_.cluster_id;
    // Only once nobody else uses the storage under our id: until then each process asks again.
    if (memory.registered && facts.cluster.ok() && !world_.cluster_uid.empty())
      status["clusterUID"] = world_.cluster_uid;
    const auto orphans = survey_.orphans(object.meta.name);
    status["volumes"] = {{"count", world_.volumes.by_index(World::kByBackend, object.meta.name).size()},
                         {"provisioned", base::format_quantity(used.bytes)},
                         {"attached", attached_volumes(world_, object.meta.name)},
                         {"orphans", orphans ? static_cast<int64_t>(orphans->count)
                                             : base::get_int(*object.json, "/status/volumes/orphans")}};
    if (facts.capacity) {
      const drivers::Capacity& now = *facts.capacity;
      status["capacity"] = {{"total", base::human_bytes(now.total_bytes)},
                            {"available", base::human_bytes(now.available_bytes)}};
    }
  }
  Json change = Json::object();
  for (const auto& [field, value] : status.items()) {
    const Json* is = before ? base::find(*before, absl::StrCat("/", field)) : nullptr;
    if (is == nullptr || *is != value) change[field] = value;
  }
  if (change.empty()) return absl::OkStatus();
  auto patched =
      world_.client.patch(context, kube::kStorageBackends, object.meta.key(), kube::PatchType::kMerge,
                          {{"status", change}}, {.subresource = "status"});
  if (absl::IsNotFound(patched.status())) return absl::OkStatus();
  if (!patched.ok())
    return base::annotate(patched.status(),
                          absl::StrCat("write the status of StorageBackend ", object.meta.name));
  world_.backend_objects.observe(*patched);
  tell_changes(object, verdict);
  tell_orphans(object);
  return absl::OkStatus();
}

// One event for a change that a person may be waiting for. What makes the backend not ready is told once.
void BackendController::tell_changes(const kube::BackendObject& object, const BackendVerdict& verdict) {
  const Json* before = base::find(*object.json, "/status/conditions");
  std::string told;
  for (const Condition& condition : verdict.conditions) {
    const bool told_of =
        condition.type == "Ready" || condition.type == "CredentialsValid" || condition.type == "Degraded";
    if (!told_of || condition.message == told) continue;
    std::string old_reason;
    if (before != nullptr && before->is_array()) {
      for (const Json& old : *before) {
        if (base::get_string(old, "/type") == condition.type) old_reason = base::get_string(old, "/reason");
      }
    }
    if (old_reason == condition.reason) continue;
    const bool bad = condition.status == (condition.type == "Degraded" ? "True" : "False");
    if (bad) {
      world_.events.event(kube::event_target(object), kube::EventType::kWarning, condition.reason,
                          condition.message);
      told = condition.message;
    } else if (condition.type == "Ready" && !old_reason.empty()) {
      world_.events.event(kube::event_target(object), kube::EventType::kNormal, condition.reason,
                          condition.message);
    }
  }
}

void BackendController::tell_orphans(const kube::BackendObject& object) {
  const auto orphans = survey_.orphans(object.meta.name);
  if (!orphans ||
      static_cast<int64_t>(orphans->count) <= base::get_int(*object.json, "/status/volumes/orphans"))
    return;
  world_.events.event(
      kube::event_target(object), kube::EventType::kWarning, "OrphansFound",
      absl::StrCat(
          orphans->count,
          " volumes on this backend were made for this cluster and no PersistentVolume "
          "refers to them: ",
          some_of(orphans->names),
          ". Nothing removes them: make a PersistentVolume for those that are needed, and remove the "
          "others at the storage."));
}

}  // namespace collage::reconcile
