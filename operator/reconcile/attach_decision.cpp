#include "operator/reconcile/attach_decision.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "drivers/driver.h"
#include "operator/engine/claim_request.h"

namespace collage::reconcile {

absl::Status check_system(const std::string& backend_name, const engine::Backend& backend,
                          const kube::Volume& volume) {
  if (!backend.identity.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("volume ", volume.handle, " is left alone while StorageBackend \"", backend_name,
                     "\" is not the storage it was: ", backend.identity.message()));
  }
  if (volume.system_id.empty() || volume.system_id == backend.system_id) return absl::OkStatus();
  if (backend.system_id.empty()) {
    return absl::UnavailableError(absl::StrCat("StorageBackend \"", backend_name,
                                               "\" has not been reached yet: ", backend.ready.message()));
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "volume ", volume.handle, " was made on the storage system ", volume.system_id.str(),
      ", but StorageBackend \"", backend_name, "\" now reports ", backend.system_id,
      ": point the backend at the old system, or use a backend of another name for the new one"));
}

absl::StatusOr<AttachPlan> plan_attach(const AttachFacts& facts) {
  const kube::Attachment& attachment = *facts.attachment;
  const std::string node = attachment.node_name.str();
  if (attachment.volume_name.empty()) {
    return absl::InvalidArgumentError(
        "spec.source: an inline volume cannot be attached: use a PersistentVolumeClaim");
  }
  if (facts.volume == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("PersistentVolume ", attachment.volume_name, " does not exist (yet)"));
  }
  const kube::Volume& volume = *facts.volume;
  if (volume.meta.deleting) {
    return absl::FailedPreconditionError(
        absl::StrCat("PersistentVolume ", volume.meta.name, " is being deleted"));
  }
  if (volume.driver != attachment.attacher) {
    return absl::InvalidArgumentError(absl::StrCat("PersistentVolume ", volume.meta.name, " is of driver ",
                                                   volume.driver.str(), ", not ", attachment.attacher.str()));
  }
  AttachPlan plan;
  COLLAGE_ASSIGN_OR_RETURN(plan.handle, drivers::parse_handle(volume.handle));
  if (facts.backend == nullptr) {
    return absl::UnavailableError(absl::StrCat("volume ", volume.handle, " is on StorageBackend \"",
                                               plan.handle.backend,
                                               "\", which is not in use: ", facts.why_not_in_use));
  }
  if (facts.kind == nullptr || facts.backend->spec.kind != facts.kind->info.kind ||
      facts.backend->driver->attacher() == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("StorageBackend \"", plan.handle.backend, "\" is of kind ", facts.backend->spec.kind,
                     ", which does not attach volumes of ", attachment.attacher.str()));
  }
  COLLAGE_RETURN_IF_ERROR(check_system(plan.handle.backend, *facts.backend, volume));
  const kube::CsiNode::Driver* const driver =
      facts.csi_node == nullptr ? nullptr : facts.csi_node->driver(attachment.attacher);
  if (driver == nullptr || driver->node_id.empty()) {
    return absl::UnavailableError(
        absl::StrCat("node ", node, " has not registered ", attachment.attacher.str(),
                     ": see that its agent runs (kubectl get storagenode ", node, ")"));
  }
  plan.node_id = driver->node_id;
  std::vector<std::string> modes;
  for (const kube::Interned& mode : volume.access_modes) modes.push_back(mode.str());
  COLLAGE_ASSIGN_OR_RETURN(plan.capability.access_mode, engine::attach_access_mode(modes, facts.kind->info));
  plan.capability.mode = volume.block ? drivers::VolumeMode::kBlock : drivers::VolumeMode::kFilesystem;
  if (!volume.block) plan.capability.fs_type = volume.fs_type.str();
  plan.read_only = volume.read_only;
  return plan;
}

std::vector<std::string> detach_node_ids(const kube::Attachment& attachment, const kube::CsiNode* csi_node) {
  std::vector<std::string> ids;
  const kube::CsiNode::Driver* const driver =
      csi_node == nullptr ? nullptr : csi_node->driver(attachment.attacher);
  if (driver != nullptr && !driver->node_id.empty()) ids.push_back(driver->node_id);
  if (!attachment.node_id.empty() && (ids.empty() || ids.front() != attachment.node_id))
    ids.push_back(attachment.node_id);
  return ids;
}

namespace {

std::string waits_for(const DetachFacts& facts) {
  const std::string annotate =
      absl::StrCat("kubectl annotate volumeattachment ", facts.attachment, " ", kHolderGone, "=true");
  if (!facts.node_exists) {
    return absl::StrCat(
        "whose Node object is gone, which does not prove that the machine is off: it is detached once the "
        "same machine is back under that name, or once somebody who knows that it is off says so: ",
        annotate);
  }
  if (facts.in_use && facts.node_ready && (facts.out_of_service || facts.confirmed)) {
    return absl::StrCat(
        "which is said to be off, but whose kubelet is Ready and still uses it: it is detached "
        "once kubelet has unstaged it there, or the Node is not Ready any more");
  }
  if (facts.in_use && facts.node_ready)
    return "which still uses it: it is detached once kubelet has unstaged it there";
  if (facts.node_newer && !facts.in_use) {
    return absl::StrCat(
        "whose Node object was made anew since, so that it does not say what the machine still holds",
        facts.node_says.empty() ? "" : absl::StrCat(" (", facts.node_says, ")"),
        ": it is detached once the node itself says that it has let it go, or once somebody who knows that "
        "nothing there writes to it says so: ",
        annotate);
  }
  return absl::StrCat(
      "which does not answer and may still write to it: it is detached once that node unstages it, or once "
      "somebody who knows that the machine is off says so: kubectl taint node ",
      facts.node, " node.kubernetes.io/out-of-service=nodeshutdown:NoExecute");
}

}  // namespace

DetachVerdict detach_allowed(const DetachFacts& facts) {
  const auto proven = [](std::string proof) {
    return DetachVerdict{.allowed = true, .proof = std::move(proof)};
  };
  const auto told = [](std::string proof) {
    return DetachVerdict{.allowed = true, .fence = true, .proof = std::move(proof)};
  };
  if (facts.node_exists && !facts.in_use && !facts.node_newer) return {.allowed = true};
  if (facts.driver_fences) return proven("the storage takes access away with the detach");
  if (!facts.absence.empty()) return proven(facts.absence);
  if (facts.holder_elsewhere) return proven("the storage says that this node does not hold it");
  if (facts.let_go) return proven("the node itself says that it has let it go");
  // A kubelet at work contradicts who says that its machine is off: it will unstage what it need not have.
  const bool contradicted = facts.node_exists && facts.node_ready && facts.in_use;
  if (!contradicted && facts.node_exists && facts.out_of_service)
    return told("the taint node.kubernetes.io/out-of-service on the node");
  if (!contradicted && facts.confirmed) return told(absl::StrCat("the annotation ", kHolderGone));
  return {.message =
              absl::StrCat("volume ", facts.volume, " is held by node ", facts.node, ", ", waits_for(facts))};
}

}  // namespace collage::reconcile
