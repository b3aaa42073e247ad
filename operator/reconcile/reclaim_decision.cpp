#include "operator/reconcile/reclaim_decision.h"

#include "absl/strings/str_cat.h"
#include "drivers/driver.h"
#include "operator/engine/names.h"
#include "operator/reconcile/attach_decision.h"

namespace collage::reconcile {

bool is_ours(const kube::Volume& volume) {
  if (engine::kind_of_csi_driver(volume.driver.str()).empty()) return false;
  return volume.provisioned_by.empty() || volume.provisioned_by == volume.driver;
}

ReclaimStep decide_reclaim(const ReclaimFacts& facts) {
  if (facts.volume == nullptr || facts.kind == nullptr || !is_ours(*facts.volume))
    return ReclaimStep::kIgnore;
  const kube::Volume& volume = *facts.volume;
  const bool has_ours = volume.meta.has_finalizer(engine::kProvisionerFinalizer);
  const bool has_attachers = volume.meta.has_finalizer(engine::attacher_finalizer(volume.driver.str()));
  const bool deletes = volume.reclaim_policy == "Delete";
  if (deletes && volume.phase == "Released" && (!volume.meta.deleting || has_ours)) {
    return facts.attachments > 0 && facts.kind->attaches ? ReclaimStep::kWaitForDetach : ReclaimStep::kDelete;
  }
  if (deletes && volume.phase == "Bound" && !volume.meta.deleting && !has_ours)
    return ReclaimStep::kAddFinalizer;
  if (!deletes && has_ours) return ReclaimStep::kDropFinalizers;
  // Nothing names it any more and it is going (contract 54). With policy Delete our own finalizer still says
  // what is to be done first.
  if (volume.meta.deleting && has_attachers && facts.attachments == 0 && !has_ours)
    return ReclaimStep::kDropFinalizers;
  return ReclaimStep::kIgnore;
}

absl::Status judge_volume_backend(const std::string& backend_name, const engine::Backend* backend,
                                  const kube::Volume& volume) {
  if (backend == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("volume ", volume.handle, " is on StorageBackend \"", backend_name,
                     "\", which is not in use: create it again, or set persistentVolumeReclaimPolicy to "
                     "Retain to let the volume be"));
  }
  if (drivers::csi_driver_name(backend->spec.kind) != volume.driver.str()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "volume ", volume.handle, " was made by ", volume.driver.str(), ", but StorageBackend \"",
        backend_name, "\" is now of kind ", backend->spec.kind, ": give that backend another name"));
  }
  if (backend->spec.paused) {
    return absl::UnavailableError(
        absl::StrCat("StorageBackend \"", backend_name, "\" is paused: set spec.paused to false to go on"));
  }
  return check_system(backend_name, *backend, volume);
}

}  // namespace collage::reconcile
