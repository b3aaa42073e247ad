// What a backend says of itself, and how it ends.
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/log.h"
#include "base/quantity.h"
#include "base/status.h"
#include "operator/engine/names.h"
#include "operator/reconcile/backend_controller.h"
#include "operator/reconcile/storage_classes.h"

namespace collage::reconcile {
namespace {

using base::Json;

constexpr auto kLookAgain = std::chrono::seconds(60);

int attached_volumes(const World& world, const std::string& backend) {
  int count = 0;
  for (const auto& attachment : world.attachments.list()) {
    if (!attachment->attached) continue;
    auto volume = world.volumes.get(attachment->volume_name);
    if (!volume || !world.kind_of_driver(volume->driver)) continue;
    auto handle = engine::parse_handle(volume->handle);
    if (handle.ok() && handle->backend == backend) ++count;
  }
  return count;
}

}  // namespace

absl::Status BackendController::keep_finalizer(const base::Context& context,
                                               const kube::BackendObject& object, bool wanted) {
  if (object.meta.has_finalizer(engine::kBackendFinalizer) == wanted) return absl::OkStatus();
  Json finalizers = Json::array();
  for (const auto& finalizer : object.meta.finalizers) {
    if (finalizer != std::string_view(engine::kBackendFinalizer)) finalizers.push_back(finalizer.str());
  }
  if (wanted) finalizers.push_back(engine::kBackendFinalizer);
  // The resourceVersion keeps a finalizer that somebody else adds at this moment.
  auto patched = world_.client.patch(
      context, kube::kStorageBackends, object.meta.key(), kube::PatchType::kMerge,
      {{"metadata", {{"finalizers", finalizers}, {"resourceVersion", object.meta.resource_version}}}}, {});
  if (absl::IsNotFound(patched.status())) return absl::OkStatus();
  return patched.ok()
             ? absl::OkStatus()
             : base::annotate(patched.status(), absl::StrCat("patch StorageBackend ", object.meta.name));
}

kube::Outcome BackendController::reconcile_deleted(const base::Context& context, const std::string& name,
                                                   const kube::BackendObject& object, BackendFacts facts) {
  Memory& mine = memory(name);
  if (!mine.intents) {
    // The spec is not valid, and an earlier process may have begun creates: they count all the same.
    mine.intents = std::make_shared<engine::Intents>(intent_store_, name, context.clock());
  }
  if (!mine.intents->loaded()) {
    if (absl::Status loaded = mine.intents->load(context); !loaded.ok()) return kube::Retry{loaded};
  }
  // Nothing new begins from here on.
  if (mine.spec && mine.driver)
    publish_backend(object, mine, absl::FailedPreconditionError("the StorageBackend is being deleted"));
  const auto policy = mine.spec ? mine.spec->deletion_policy : engine::DeletionPolicy::kBlock;
  const auto volumes = world_.volumes.by_index(World::kByBackend, name);
  const size_t intents = mine.intents ? mine.intents->open().size() : 0;
  if (policy != engine::DeletionPolicy::kOrphan && (!volumes.empty() || intents > 0)) {
    size_t bound = 0;
    for (const auto& volume : volumes) {
      if (volume->phase == "Bound") {
        ++bound;
      } else if (policy == engine::DeletionPolicy::kDelete && volume->phase == "Released" &&
                 volume->reclaim_policy != "Delete") {
        // The reclaim controller then deletes it as any other.
        auto patched = world_.client.patch(context, kube::kPersistentVolumes, volume->meta.key(),
                                           kube::PatchType::kMerge,
                                           {{"spec", {{"persistentVolumeReclaimPolicy", "Delete"}}}}, {});
        if (!patched.ok() && !absl::IsNotFound(patched.status())) return kube::Retry{patched.status()};
      }
    }
    facts.deletion_message =
        absl::StrCat("Deletion waits: ", volumes.size(), " PersistentVolumes are on this backend, ", bound,
                     " of them bound (kubectl get pv), and ", intents,
                     " creates are under way. Delete their claims, or set spec.deletionPolicy to Orphan to "
                     "leave the volumes where they are.");
    if (mine.spec && mine.driver)
      publish_backend(object, mine, absl::FailedPreconditionError("the StorageBackend is being deleted"));
    const drivers::Kind* kind = mine.spec ? kind_named(mine.spec->kind) : nullptr;
    absl::Status written = write_status(context, object, decide(facts), facts, mine, kind);
    std::lock_guard lock(mutex_);
    seen_[name] = true;
    if (!written.ok()) return kube::Retry{written};
    return kube::RequeueAfter{kLookAgain};
  }
  // Nothing refers to it: what we keep for it goes first, the finalizer last.
  absl::Status status = remove_classes(context, world_, name);
  if (status.ok()) status = capacity_.remove(context, name);
  if (status.ok())
    status = world_.client.remove(context, kube::kConfigMaps,
                                  {world_.name_space, absl::StrCat("collage-intents-", name)}, {});
  if (status.ok()) status = keep_finalizer(context, object, false);
  if (!status.ok()) return kube::Retry{status};
  world_.backends.remove(name);
  base::log::info(context, "storage backend removed", {{"backend", name}, {"volumes_left", volumes.size()}});
  return kube::Done{};
}

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
    status["volumes"] = {{"count", world_.volumes.by_index(World::kByBackend, object.meta.name).size()},
                         {"provisioned", base::format_quantity(used.bytes)},
                         {"attached", attached_volumes(world_, object.meta.name)},
                         {"orphans", 0}};
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
  // One event for a change that a person may be waiting for.
  const std::string old_reason = before ? base::get_string(*before, "/conditions/0/reason") : "";
  const Condition& ready = verdict.conditions.front();
  if (old_reason != ready.reason && ready.status != "True") {
    world_.events.event(kube::event_target(object), kube::EventType::kWarning, ready.reason, ready.message);
  } else if (old_reason != ready.reason && !old_reason.empty()) {
    world_.events.event(kube::event_target(object), kube::EventType::kNormal, ready.reason, ready.message);
  }
  return absl::OkStatus();
}

}  // namespace collage::reconcile
