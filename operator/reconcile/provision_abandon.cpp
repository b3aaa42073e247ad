#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status.h"
#include "drivers/driver.h"
#include "operator/engine/error_table.h"
#include "operator/engine/names.h"
#include "operator/reconcile/provision.h"
#include "operator/reconcile/volume_metrics.h"

// A create whose claim is gone, or whose volume cannot be used: it is pursued to its end and the volume
// removed. A kill at any step leaves the intent; the next process begins here again, and every step may be
// repeated.
namespace collage::reconcile {
namespace {

constexpr std::chrono::milliseconds kBusy{100};

}  // namespace

kube::Outcome Provisioner::abandon(const base::Context& context, const WorkPtr& work) {
  const std::string name = engine::volume_name(work->id.uid);
  wait_for(work->id.to_key(), work->backend);
  const BackendPtr backend = world_.backends.get(work->backend);
  // Nothing is lost: the intent stays until the backend is back.
  if (backend == nullptr || backend->spec.paused || !backend->identity.ok()) {
    base::log::warning(context, "an abandoned create waits for its StorageBackend",
                       {{"backend", work->backend},
                        {"volume", name},
                        {"reason", backend == nullptr     ? world_.why_not_in_use(work->backend)
                                   : backend->spec.paused ? std::string("spec.paused is true")
                                                          : std::string(backend->identity.message())}});
    return kube::RequeueAfter{options_.slow_retry};
  }
  if (work->unwanted && work->volume.has_value()) return remove_volume(context, work, *backend);

  // Our own write, by an earlier process or with its answer lost, may have made the object, which then has an
  // owner: reclaim.
  absl::StatusOr<base::Json> object = world_.client.get(context, kube::kPersistentVolumes, {"", name});
  if (object.ok()) {
    const absl::StatusOr<kube::Volume> live = kube::parse<kube::Volume>(*object);
    const std::string handle = live.ok() ? live->handle : "";
    if (live.ok() && stands_for(*live, *work)) {
      base::log::info(context, "an abandoned create has its PersistentVolume", {{"volume", handle}});
      end(*work);
      return kube::Done{};
    }
  } else if (!absl::IsNotFound(object.status())) {
    return kube::Retry{base::annotate(object.status(), absl::StrCat("read PersistentVolume ", name))};
  }
  return work->volume.has_value() ? remove_volume(context, work, *backend) : pursue(context, work, *backend);
}

// The create is repeated until its final answer: only then is it certain what there is to remove (contract
// 37).
kube::Outcome Provisioner::pursue(const base::Context& context, const WorkPtr& work,
                                  const engine::Backend& backend) {
  if (!work->request.has_value()) {
    for (const auto& storage_class : world_.classes.list()) {
      if (storage_class->meta.uid == work->record.class_uid) work->storage_class = storage_class;
    }
    const drivers::Kind* const kind = world_.kind_of_driver(drivers::csi_driver_name(backend.spec.kind));
    if (kind == nullptr || !restore_request(*work, *kind).ok()) return settle_unknown(context, work, backend);
  }
  absl::StatusOr<drivers::Volume> volume = call_create(context, *work, backend);
  if (volume.ok()) {
    work->volume = *std::move(volume);
    return remove_volume(context, work, backend);
  }
  if (engine::classify(engine::Operation::kCreate, volume.status()) == engine::ErrorClass::kUnderWay) {
    return kube::Retry{base::annotate(volume.status(), "pursue a create that nobody waits for")};
  }
  if (auto settled = settle(context, *work, backend, volume.status()); !settled.ok())
    return kube::Retry{settled.status()};
  end(*work);
  return kube::Done{};
}

kube::Outcome Provisioner::remove_volume(const base::Context& context, const WorkPtr& work,
                                         const engine::Backend& backend) {
  const std::string handle = drivers::volume_handle(work->backend, work->volume->id);
  if (is_referred_to(work->backend, handle)) {
    base::log::warning(context, "a volume that was to be removed belongs to a PersistentVolume, it stays",
                       {{"volume", handle}});
    end(*work);
    return kube::Done{};
  }
  const VolumeLocks::Hold hold = world_.locks.try_hold(handle);
  if (!hold) return kube::RequeueAfter{kBusy};
  const metrics::Call call(drivers::csi_driver_name(backend.spec.kind), metrics::kDeleteVolume);
  const absl::Status status = backend.driver->remove(context, work->volume->id);
  call.done(status);
  if (!status.ok()) {
    if (!context.stopped()) {
      event(work->id, kube::EventType::kWarning, "ProvisioningCleanupFailed",
            absl::StrCat(
                "volume ", handle,
                " has no claim any more and could not be removed, this is tried again: ", status.message()));
    }
    return kube::Retry{base::annotate(status, absl::StrCat("remove volume ", handle))};
  }
  base::log::info(context, "volume without a claim removed", {{"volume", handle}});
  const bool starts_over = work->unwanted;
  end(*work);
  // The claim is still there, perhaps: it starts over, not at once.
  if (starts_over)
    return kube::Retry{
        absl::AbortedError(absl::StrCat("volume ", handle, " could not be used and was removed"))};
  return kube::Done{};
}

absl::StatusOr<Provisioner::Settled> Provisioner::settle(const base::Context& context, const Work& work,
                                                         const engine::Backend& backend,
                                                         const absl::Status& cause) {
  const std::string name = engine::volume_name(work.id.uid);
  const drivers::DriverInfo& info = backend.driver->info();
  if (info.control == drivers::ControlPlace::kOwnerNode) {
    // A node that is down is not asked by find(): the one that the create went to must have answered.
    const auto segment = work.record.segment.find(drivers::node_topology_key(info.kind));
    const std::string node = segment != work.record.segment.end() ? segment->second : work.record.node;
    if (!node.empty()) {
      const auto there = backend.driver->inspect(context, absl::StrCat(node, "/", name));
      if (!there.ok() && !absl::IsNotFound(there.status()))
        return base::annotate(there.status(), absl::StrCat("look for volume ", name, " on ", node));
    }
  }
  auto found = backend.driver->find(context, name);
  if (!found.ok()) return base::annotate(found.status(), absl::StrCat("look for volume ", name));
  if (!found->has_value()) return Settled::kNothingLeft;
  const drivers::Volume& volume = **found;
  const std::string handle = drivers::volume_handle(work.backend, volume.id);
  const auto tag = volume.tags.find(drivers::kTagCluster);
  const bool tagged_ours = tag != volume.tags.end() && tag->second == world_.cluster_id;
  const bool tagged_otherwise = tag != volume.tags.end() && !tagged_ours;
  // A cluster that was restored from a copy knows the same claims. What existed before us is removed only if
  // it says that it is ours.
  const auto left_alone = [&](const char* why) {
    base::log::warning(context, "a volume of our name is left alone", {{"volume", handle}, {"reason", why}});
    return Settled::kNotOurs;
  };
  if (tagged_otherwise || (absl::IsAlreadyExists(cause) && !tagged_ours))
    return left_alone("it was not made by this cluster");
  if (is_referred_to(work.backend, handle)) return left_alone("it belongs to a PersistentVolume");
  const VolumeLocks::Hold hold = world_.locks.try_hold(handle);
  if (!hold) return absl::UnavailableError(absl::StrCat("volume ", handle, " is being worked on"));
  if (absl::Status removed = backend.driver->remove(context, volume.id); !removed.ok())
    return base::annotate(removed, absl::StrCat("remove volume ", handle));
  return Settled::kNothingLeft;
}

kube::Outcome Provisioner::settle_unknown(const base::Context& context, const WorkPtr& work,
                                          const engine::Backend& backend) {
  // What the earlier process asked for may still be under way at the provider: what is not there yet may
  // come.
  const auto until = work->begun + options_.settle;
  const auto now = context.clock().now();
  if (now < until)
    return kube::RequeueAfter{std::chrono::duration_cast<std::chrono::milliseconds>(until - now) +
                              std::chrono::milliseconds(1)};
  if (auto settled = settle(context, *work, backend, absl::OkStatus()); !settled.ok())
    return kube::Retry{settled.status()};
  const std::string key = work->id.to_key();
  end(*work);
  lanes_.enqueue(key);  // a claim that is still there starts over
  return kube::Done{};
}

// After a restart the id is not known; it ends with the name that we gave.
bool Provisioner::stands_for(const kube::Volume& volume, const Work& work) const {
  if (work.volume.has_value()) return volume.handle == drivers::volume_handle(work.backend, work.volume->id);
  const auto handle = drivers::parse_handle(volume.handle);
  return handle.ok() && handle->backend == work.backend &&
         (volume.claim_uid == work.id.uid || absl::EndsWith(handle->id, engine::volume_name(work.id.uid)));
}

bool Provisioner::is_referred_to(const std::string& backend, const std::string& handle) const {
  const auto volumes = world_.volumes.by_index(World::kByBackend, backend);
  return std::any_of(volumes.begin(), volumes.end(),
                     [&](const auto& volume) { return volume->handle == handle; });
}

}  // namespace collage::reconcile
