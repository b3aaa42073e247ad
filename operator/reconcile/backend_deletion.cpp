// How a backend ends: what holds it is waited for and told, what we keep for it goes, the finalizer last.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/log.h"
#include "base/status.h"
#include "operator/engine/intent_record.h"
#include "operator/engine/names.h"
#include "operator/reconcile/backend_controller.h"
#include "operator/reconcile/config_map_intents.h"
#include "operator/reconcile/deletion_decision.h"
#include "operator/reconcile/storage_classes.h"

namespace collage::reconcile {
namespace {

using base::Json;

constexpr auto kLookAgain = std::chrono::seconds(60);
constexpr auto kAskAgain = std::chrono::minutes(10);   // the storage, about what is not provably ours
constexpr auto kCreatesEnd = std::chrono::seconds(2);  // nothing tells when an intent ends
constexpr auto kInspectTimeout = std::chrono::seconds(30);

std::vector<VolumeLeft> volumes_left(const World& world, const std::string& backend) {
  std::vector<VolumeLeft> left;
  for (const auto& volume : world.volumes.by_index(World::kByBackend, backend)) {
    VolumeLeft one{.name = volume->meta.name,
                   .bound = volume->phase == "Bound",
                   .retained = volume->phase == "Released" && volume->reclaim_policy != "Delete"};
    for (const auto& attachment : world.attachments.by_index(World::kByVolume, volume->meta.name))
      one.attached_to.push_back(attachment->node_name.str());
    left.push_back(std::move(one));
  }
  return left;
}

// The claims of the creates under way; those whose intent cannot be read go to `unreadable`, as uids.
std::vector<std::string> creates_under_way(const engine::Intents& intents,
                                           std::vector<std::string>& unreadable) {
  std::vector<std::string> creates;
  unreadable.clear();
  for (const auto& [uid, text] : intents.open()) {
    if (const auto record = engine::decode_intent(uid, text); !record.ok()) {
      unreadable.push_back(uid);
    } else {
      creates.push_back(absl::StrCat(record->claim.name_space, "/", record->claim.name));
    }
  }
  return creates;
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

kube::Outcome BackendController::reconcile_deleted(const base::Context& context,
                                                   const kube::BackendObject& object, BackendFacts facts) {
  const std::string& name = object.meta.name;
  Memory& mine = memory(object);
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
  const drivers::Kind* const kind = mine.spec ? kind_named(mine.spec->kind) : nullptr;
  DeletionFacts left{.policy = mine.spec ? mine.spec->deletion_policy : engine::DeletionPolicy::kBlock,
                     .volumes = volumes_left(world_, name)};
  left.creates = creates_under_way(*mine.intents, left.unreadable);
  if (!left.unreadable.empty()) {  // a person may have taken them out since
    if (absl::Status loaded = mine.intents->load(context); !loaded.ok()) return kube::Retry{loaded};
    left.creates = creates_under_way(*mine.intents, left.unreadable);
    left.intents = absl::StrCat(world_.name_space, "/", intents_config_map(name));
  }
  // Not before the last create has ended: each look asks the storage.
  const bool removes = left.policy == engine::DeletionPolicy::kDelete && kind != nullptr &&
                       left.creates.empty() &&
                       std::any_of(left.volumes.begin(), left.volumes.end(),
                                   [](const VolumeLeft& volume) { return volume.retained; });
  if (removes) {
    // Asked anew: another cluster may have come since.
    mine.registered = false;
    left.identity = mine.identity;
    left.identity.Update(register_cluster(context, *kind, mine));
    left.identity.Update(judge_cluster_of(object, mine));
    facts.cluster = judge_cluster_of(object, mine);
  }
  DeletionVerdict verdict = decide_deletion(left);
  if (!removes) verdict.to_remove.clear();
  // A claim that was let in a moment ago may begin just now.
  if (verdict.done && !mine.intents->close()) return kube::RequeueAfter{kCreatesEnd};
  if (!verdict.done) {
    facts.deletion_message = verdict.message;
    absl::Status trouble = remove_retained(context, object, verdict.to_remove, mine, facts.deletion_message);
    trouble.Update(write_status(context, object, decide(facts), facts, mine, kind));
    seen(name);
    if (!trouble.ok()) return kube::Retry{trouble};
    if (!left.creates.empty()) return kube::RequeueAfter{kCreatesEnd};
    if (removes) return kube::RequeueAfter{kAskAgain};
    return kube::RequeueAfter{kLookAgain};
  }
  // Nothing refers to it: what we keep for it goes first, the finalizer last.
  absl::Status status = remove_classes(context, world_, name);
  if (status.ok()) status = capacity_.remove(context, name);
  if (status.ok())
    status =
        world_.client.remove(context, kube::kConfigMaps, {world_.name_space, intents_config_map(name)}, {});
  if (status.ok()) status = keep_finalizer(context, object, false);
  if (!status.ok()) return kube::Retry{status};
  world_.backends.remove(name);
  base::log::info(context, "storage backend removed",
                  {{"backend", name}, {"volumes_left", left.volumes.size()}});
  return kube::Done{};
}

// Gives them policy Delete, by which the reclaim controller removes them as any other. Those that are not
// provably ours are left, and named.
absl::Status BackendController::remove_retained(const base::Context& context,
                                                const kube::BackendObject& object,
                                                const std::vector<std::string>& volumes, Memory& memory,
                                                std::string& message) {
  absl::Status trouble;
  for (const std::string& name : volumes) {
    const auto volume = world_.volumes.get(name);
    if (!volume) continue;
    absl::Status allowed = may_be_removed(context, *volume, memory);
    if (!allowed.ok()) {
      absl::StrAppend(&message, " ", name, " is not removed: ", allowed.message(), ".");
      continue;
    }
    auto patched = world_.client.patch(
        context, kube::kPersistentVolumes, volume->meta.key(), kube::PatchType::kMerge,
        {{"metadata", {{"uid", volume->meta.uid}}}, {"spec", {{"persistentVolumeReclaimPolicy", "Delete"}}}},
        {});
    if (!patched.ok() && !absl::IsNotFound(patched.status())) {
      trouble.Update(patched.status());
      continue;
    }
    world_.events.event(
        kube::event_target(object), kube::EventType::kNormal, "VolumeRemoved",
        absl::StrCat("PersistentVolume ", name,
                     " was Released and retained: it is removed, "
                     "since the StorageBackend is being deleted with spec.deletionPolicy Delete."));
  }
  return trouble;
}

// A person asked for all volumes of the backend to go: that is believed of those which we made for this very
// cluster, and of no other.
absl::Status BackendController::may_be_removed(const base::Context& context, const kube::Volume& volume,
                                               const Memory& memory) {
  if (volume.provisioned_by != volume.driver)
    return absl::FailedPreconditionError("it was not made by Collage");
  if (volume.system_id.str() != memory.system_id) {
    return absl::FailedPreconditionError(
        absl::StrCat("it was made on the storage system ", volume.system_id.str()));
  }
  COLLAGE_ASSIGN_OR_RETURN(const drivers::Handle handle, drivers::parse_handle(volume.handle));
  const auto found = memory.driver->inspect(context.with_timeout(kInspectTimeout), handle.id);
  if (absl::IsNotFound(found.status())) return absl::OkStatus();  // only its object is left
  if (!found.ok()) return base::annotate(found.status(), "it cannot be looked at");
  const auto tag = [&](const char* key) {
    const auto at = found->tags.find(key);
    return at == found->tags.end() ? std::string() : at->second;
  };
  if (tag(drivers::kTagCluster) != world_.cluster_id || tag(drivers::kTagVolume) != volume.meta.name) {
    return absl::FailedPreconditionError(
        absl::StrCat("the storage says that it is ", tag(drivers::kTagVolume), " of cluster ",
                     tag(drivers::kTagCluster), ", and this cluster is ", world_.cluster_id));
  }
  return absl::OkStatus();
}

}  // namespace collage::reconcile
