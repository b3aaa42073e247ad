#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/quantity.h"
#include "base/status.h"
#include "drivers/driver.h"
#include "operator/engine/error_table.h"
#include "operator/engine/names.h"
#include "operator/reconcile/provision.h"
#include "operator/reconcile/volume_metrics.h"

// The driver's create and the PersistentVolume's. What a kill leaves, and who heals it:
//   before or during the driver's call   the intent, perhaps a volume: the next process sends the same
//   request again after it, before the PersistentVolume the intent and a volume: the same; the create is
//   idempotent by name during the PersistentVolume's create  the intent, a volume, perhaps its object: if it
//   is there the intent ends, else as above after it, before the intent's end     the intent alone: the next
//   process finds the object and ends it
namespace collage::reconcile {
namespace {

constexpr char kSelectedNodePath[] = "/metadata/annotations/volume.kubernetes.io~1selected-node";

}  // namespace

absl::StatusOr<drivers::Volume> Provisioner::call_create(const base::Context& context, Work& work,
                                                         const engine::Backend& backend) {
  const std::string key = work.id.to_key();
  work.creating = true;
  const absl::Cleanup finished = [&work] { work.creating = false; };
  if (!work.announced) announcer_.enqueue_after(key, options_.announce_after);
  const metrics::Call call(drivers::csi_driver_name(backend.spec.kind), metrics::kCreateVolume);
  absl::StatusOr<drivers::Volume> volume =
      create_in_place(context.with_timeout(options_.create_timeout), work, backend);
  call.done(volume.status());
  if (volume.ok() && volume->capacity_bytes == 0) volume->capacity_bytes = work.request->required_bytes;
  return volume;
}

// A volume that lives on one node is asked of one node at a time, and the intent names it before the call:
// asked of another node by the next process, the same name would be a second volume. A node that is full has
// none.
absl::StatusOr<drivers::Volume> Provisioner::create_in_place(const base::Context& context, Work& work,
                                                             const engine::Backend& backend) {
  const std::vector<drivers::Topology>& places = work.request->preferred;
  auto place = std::find(places.begin(), places.end(), work.record.segment);
  const bool one_by_one = backend.driver->info().control == drivers::ControlPlace::kOwnerNode;
  if (!one_by_one || place == places.end()) return backend.driver->create(context, *work.request);
  drivers::CreateRequest request = *work.request;
  while (true) {
    work.record.segment = *place;
    COLLAGE_ASSIGN_OR_RETURN(const std::string record, engine::encode_intent(work.record));
    // Costs a write only where another node was full.
    if (absl::Status noted = work.intents->begin(context, work.id.uid, record); !noted.ok())
      return absl::UnavailableError(noted.message());
    request.requisite = request.preferred = {*place};
    absl::StatusOr<drivers::Volume> volume = backend.driver->create(context, request);
    if (!absl::IsResourceExhausted(volume.status()) || ++place == places.end()) return volume;
  }
}

kube::Outcome Provisioner::create(const base::Context& context, const WorkPtr& work, const kube::Claim& claim,
                                  const drivers::Kind& kind, const engine::Backend& backend) {
  absl::StatusOr<drivers::Volume> volume = call_create(context, *work, backend);
  if (!volume.ok()) {
    return create_failed(context, work, claim, backend,
                         base::annotate(volume.status(), absl::StrCat("make a volume on StorageBackend \"",
                                                                      work->backend, "\"")));
  }
  work->volume = *std::move(volume);
  if (work->volume->capacity_bytes < work->request->required_bytes) {
    metrics::provision_failed(claim.storage_class);
    event(work->id, kube::EventType::kWarning, "ProvisioningFailed",
          absl::StrCat("StorageBackend \"", work->backend, "\" made a volume of ",
                       base::human_bytes(work->volume->capacity_bytes), " where ",
                       base::human_bytes(work->request->required_bytes), " were asked for: it is removed"));
    work->unwanted = true;
    return remove_volume(context, work, backend);
  }
  return publish(context, work, claim, kind, backend);
}

kube::Outcome Provisioner::create_failed(const base::Context& context, const WorkPtr& work,
                                         const kube::Claim& claim, const engine::Backend& backend,
                                         const absl::Status& status) {
  // The process stops: the intent stays, the next one goes on.
  if (context.stopped()) return kube::Retry{status};
  metrics::provision_failed(claim.storage_class);
  const engine::ErrorClass meaning = engine::classify(engine::Operation::kCreate, status);
  // The request is kept and sent again as it is, also when the claim is deleted meanwhile.
  if (meaning == engine::ErrorClass::kUnderWay) return retry(claim, status);
  const absl::StatusOr<Settled> settled = settle(context, *work, backend, status);
  if (!settled.ok()) {
    base::log::warning(context, "not certain that a failed create left nothing",
                       {{"error", settled.status()}});
  }
  if (!settled.ok() || *settled == Settled::kNotOurs) return retry(claim, status);
  const std::string key = work->id.to_key();
  const bool place_matters = work->place_matters;
  end(*work);
  wait_for(key, backend.spec.name);
  switch (meaning) {
    case engine::ErrorClass::kReschedule:
      if (place_matters && !claim.selected_node.empty()) return reschedule(context, claim, status);
      return retry(claim, status);
    case engine::ErrorClass::kInfeasible:
      return refuse(claim, status);
    case engine::ErrorClass::kUnderWay:
    case engine::ErrorClass::kFailed:
      return retry(claim, status);
  }
  return kube::Done{};
}

kube::Outcome Provisioner::publish(const base::Context& context, const WorkPtr& work,
                                   const kube::Claim& claim, const drivers::Kind& kind,
                                   const engine::Backend& backend) {
  if (!work->secrets.has_value()) {
    if (absl::Status status = read_secrets(context, *work); !status.ok())
      return retry(claim, base::annotate(status, "find the secrets"));
  }
  const base::Json object = make_volume_object(
      {claim, *work->storage_class, kind, *work->request, *work->volume, work->backend, backend.system_id,
       *work->secrets, backend.spec.node_credentials_secret, world_.name_space});
  absl::StatusOr<base::Json> answer = world_.client.create(context, kube::kPersistentVolumes, "", object);
  if (answer.ok()) {
    world_.volumes.observe(*answer);
    return succeed(context, work, claim);
  }
  if (absl::IsAlreadyExists(answer.status())) return exists_already(context, work, claim, backend);
  // Tried again from here: the driver is not asked a second time (contract 34).
  metrics::provision_failed(claim.storage_class);
  return retry(claim, base::annotate(answer.status(), absl::StrCat("create PersistentVolume ",
                                                                   engine::volume_name(claim.meta.uid))));
}

// Not success by itself: it may be on its way out, or somebody else's (contract 35).
kube::Outcome Provisioner::exists_already(const base::Context& context, const WorkPtr& work,
                                          const kube::Claim& claim, const engine::Backend& backend) {
  const std::string name = engine::volume_name(claim.meta.uid);
  absl::StatusOr<base::Json> object = world_.client.get(context, kube::kPersistentVolumes, {"", name});
  if (!object.ok())
    return kube::Retry{base::annotate(object.status(), absl::StrCat("read PersistentVolume ", name))};
  const absl::StatusOr<kube::Volume> live = kube::parse<kube::Volume>(*object);
  if (!live.ok()) return kube::Retry{live.status()};
  const std::string handle = drivers::volume_handle(work->backend, work->volume->id);
  switch (judge_existing_volume(*live, claim.meta.uid, drivers::csi_driver_name(backend.spec.kind), handle)) {
    case ExistingVolume::kOurs:
      world_.volumes.observe(*object);
      return succeed(context, work, claim);
    case ExistingVolume::kConflict:
      return refuse(claim, absl::FailedPreconditionError(absl::StrCat(
                               "PersistentVolume ", name, " exists and stands for the same volume ", handle,
                               " in the name of another claim: delete it, or this claim")));
    case ExistingVolume::kSurplus:
      break;
  }
  event(work->id, kube::EventType::kWarning, "ProvisioningFailed",
        absl::StrCat("PersistentVolume ", name,
                     " exists already and is not for this claim's new volume, which is removed"));
  work->unwanted = true;
  return remove_volume(context, work, backend);
}

kube::Outcome Provisioner::succeed(const base::Context& context, const WorkPtr& work,
                                   const kube::Claim& claim) {
  const std::string handle = drivers::volume_handle(work->backend, work->volume->id);
  metrics::provision_succeeded(claim.storage_class, context.clock().now() - work->begun);
  base::log::info(context, "volume made", {{"volume", handle}, {"bytes", work->volume->capacity_bytes}});
  event(work->id, kube::EventType::kRoutine, "ProvisioningSucceeded",
        absl::StrCat("made volume ", handle, " of ", base::human_bytes(work->volume->capacity_bytes)));
  end(*work);
  return kube::Done{};
}

// Has the scheduler choose another node: it does once its choice is gone from the claim (contract 38).
kube::Outcome Provisioner::reschedule(const base::Context& context, const kube::Claim& claim,
                                      const absl::Status& why) {
  const base::Json patch = {
      {{"op", "test"}, {"path", "/metadata/uid"}, {"value", claim.meta.uid}},
      {{"op", "test"}, {"path", kSelectedNodePath}, {"value", claim.selected_node}},
      {{"op", "remove"}, {"path", kSelectedNodePath}},
  };
  event(Id::of(claim), kube::EventType::kWarning, "ProvisioningFailed",
        absl::StrCat(why.message(), "; the scheduler is asked for another node than ", claim.selected_node));
  absl::StatusOr<base::Json> answer = world_.client.patch(
      context, kube::kPersistentVolumeClaims, claim.meta.key(), kube::PatchType::kJson, patch, {});
  if (answer.ok()) {
    world_.claims.observe(*answer);
    return kube::Done{};
  }
  // Gone, or another choice was made meanwhile: the informer brings it.
  if (absl::IsNotFound(answer.status()) || absl::IsInvalidArgument(answer.status())) return kube::Done{};
  return kube::Retry{base::annotate(answer.status(), "take the selected node off the claim")};
}

}  // namespace collage::reconcile
