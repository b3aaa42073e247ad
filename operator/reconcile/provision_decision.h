#pragma once

#include <string>

#include "absl/status/status.h"
#include "drivers/kind.h"
#include "operator/engine/backends.h"
#include "operator/kube/objects.h"

// What is to be done for a claim, as pure functions over what was observed. `collage explain` calls the same
// ones.
namespace collage::reconcile {

enum class ProvisionStep {
  kIgnore,   // not ours, bound already, or nothing to do before it changes
  kDone,     // the PersistentVolume exists
  kAbandon,  // nobody wants the volume any more: see what a create that had begun left behind, and remove it
  kPopulator,  // an external populator fills it
  kWait,       // something that will come is missing: `why`
  kRefuse,     // cannot work until somebody changes something: `why`
  kProvision,
};

struct ProvisionFacts {
  const kube::Claim* claim = nullptr;   // nullptr: gone, or another one of that name
  const drivers::Kind* kind = nullptr;  // of the claim's provisioner; nullptr: not ours
  const kube::StorageClass* storage_class = nullptr;
  bool volume_exists = false;  // a PersistentVolume of the claim's deterministic name, for this claim
  bool begun = false;          // a create was begun and its end is not known
};

struct ProvisionDecision {
  ProvisionStep step = ProvisionStep::kIgnore;
  absl::Status why;
};
ProvisionDecision decide_provision(const ProvisionFacts& facts);

// May a volume of this kind be created on this backend now? OK; FAILED_PRECONDITION when somebody must change
// the class or the backend; UNAVAILABLE when the backend will be ready by itself, perhaps. Messages name the
// object, the field and the remedy. A create that has begun goes on whatever the backend's readiness, also
// while the backend is being deleted: only its end makes certain what there is.
enum class Begun { kNo, kYes };
absl::Status judge_backend(const std::string& backend_name, const engine::Backend* backend,
                           const drivers::Kind& kind, const std::string& storage_class,
                           Begun begun = Begun::kNo);

// A PersistentVolume of the name that we wanted to give is there already (contract 35).
enum class ExistingVolume {
  kOurs,      // of this very claim and volume: our own write, whose answer was lost
  kSurplus,   // it is not for this claim and volume, or it is going: what was just created has no owner,
              // remove it
  kConflict,  // it stands for this very volume in another claim's name: leave everything as it is
};
ExistingVolume judge_existing_volume(const kube::Volume& live, const std::string& claim_uid,
                                     const std::string& csi_driver, const std::string& handle);

}  // namespace collage::reconcile
