#include "operator/reconcile/provision_decision.h"

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "drivers/driver.h"
#include "operator/engine/names.h"

namespace collage::reconcile {
namespace {

constexpr std::string_view kWaitForFirstConsumer = "WaitForFirstConsumer";

bool is_populated_by_others(const kube::DataSource& source) {
  const bool snapshot = source.group == "snapshot.storage.k8s.io" && source.kind == "VolumeSnapshot";
  const bool claim = source.group.empty() && source.kind == "PersistentVolumeClaim";
  return !snapshot && !claim;
}

// What the claim asks for that no kind serves yet.
absl::Status unserved(const kube::Claim& claim, const drivers::Kind& kind) {
  if (claim.has_selector) {
    return absl::InvalidArgumentError(
        "spec.selector: a volume that is made for a claim cannot be chosen by labels: leave the field out");
  }
  if (claim.data_source != nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("spec.dataSource: ", kind.info.kind,
                                                   " cannot make a volume from a ", claim.data_source->kind,
                                                   ": leave the field out and copy the data"));
  }
  if (!claim.attributes_class.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("spec.volumeAttributesClassName: ", kind.info.kind,
                     " has no attributes that can be changed: leave the field out"));
  }
  return absl::OkStatus();
}

}  // namespace

ProvisionDecision decide_provision(const ProvisionFacts& facts) {
  if (facts.volume_exists) return {ProvisionStep::kDone, {}};
  const bool wanted =
      facts.claim != nullptr && facts.claim->volume_name.empty() && !facts.claim->meta.deleting;
  if (!wanted) return {facts.begun ? ProvisionStep::kAbandon : ProvisionStep::kIgnore, {}};
  const kube::Claim& claim = *facts.claim;
  if (facts.kind == nullptr) return {facts.begun ? ProvisionStep::kAbandon : ProvisionStep::kIgnore, {}};
  if (facts.storage_class == nullptr) {
    return {ProvisionStep::kWait,
            absl::UnavailableError(
                absl::StrCat("StorageClass \"", claim.storage_class.str(), "\" does not exist (yet)"))};
  }
  if (facts.storage_class->provisioner != claim.provisioner) {
    return {facts.begun ? ProvisionStep::kAbandon : ProvisionStep::kIgnore, {}};
  }
  // What has begun goes on with the request that was sent first, whatever the class and the claim say now.
  if (facts.begun) return {ProvisionStep::kProvision, {}};
  if (claim.data_source != nullptr && is_populated_by_others(*claim.data_source))
    return {ProvisionStep::kPopulator, {}};
  if (facts.storage_class->binding_mode == kWaitForFirstConsumer && claim.selected_node.empty()) {
    return {ProvisionStep::kIgnore, {}};
  }
  if (absl::Status status = unserved(claim, *facts.kind); !status.ok())
    return {ProvisionStep::kRefuse, status};
  return {ProvisionStep::kProvision, {}};
}

absl::Status judge_backend(const std::string& backend_name, const engine::Backend* backend,
                           const drivers::Kind& kind, const std::string& storage_class, Begun begun) {
  if (backend == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        "StorageClass \"", storage_class, "\" parameter \"backend\" is \"", backend_name,
        "\", but no StorageBackend \"", backend_name, "\" is in use: create it, or correct the class"));
  }
  if (backend->spec.kind != kind.info.kind) {
    return absl::FailedPreconditionError(absl::StrCat(
        "StorageClass \"", storage_class, "\" has provisioner ", drivers::csi_driver_name(kind.info.kind),
        ", but its StorageBackend \"", backend_name, "\" is of kind ", backend->spec.kind,
        ": use provisioner ", drivers::csi_driver_name(backend->spec.kind), " or name another backend"));
  }
  if (backend->spec.paused) {
    return absl::UnavailableError(
        absl::StrCat("StorageBackend \"", backend_name, "\" is paused: set spec.paused to false to go on"));
  }
  if (!backend->identity.ok()) {
    return absl::UnavailableError(absl::StrCat(
        "StorageBackend \"", backend_name, "\" is not the storage it was: ", backend->identity.message()));
  }
  if (begun == Begun::kNo && !backend->ready.ok()) {
    return absl::UnavailableError(
        absl::StrCat("StorageBackend \"", backend_name, "\" is not ready: ", backend->ready.message()));
  }
  return absl::OkStatus();
}

ExistingVolume judge_existing_volume(const kube::Volume& live, const std::string& claim_uid,
                                     const std::string& csi_driver, const std::string& handle) {
  const bool same_volume = live.driver == csi_driver && live.handle == handle;
  if (live.meta.deleting || !same_volume) return ExistingVolume::kSurplus;
  return live.claim_uid == claim_uid ? ExistingVolume::kOurs : ExistingVolume::kConflict;
}

}  // namespace collage::reconcile
