#pragma once

#include <string>

#include "absl/status/status.h"
#include "drivers/kind.h"
#include "operator/engine/backends.h"
#include "operator/kube/objects.h"

// What is to be done for a PersistentVolume, as pure functions over what was observed. `collage explain`
// calls the same ones.
namespace collage::reconcile {

enum class ReclaimStep {
  kIgnore,
  kAddFinalizer,    // a bound volume with policy Delete that lacks ours: a static one, or one from before
                    // (contract 42)
  kDropFinalizers,  // ours have no meaning any more: the policy is Retain, or the volume is going and nothing
                    // names it
  kWaitForDetach,   // to be deleted, but a VolumeAttachment still names it (contract 43)
  kDelete,          // the volume at the provider, then its object (contract 41)
};

struct ReclaimFacts {
  const kube::Volume* volume = nullptr;  // nullptr: gone
  const drivers::Kind* kind = nullptr;   // of its driver; nullptr: not ours
  int attachments = 0;                   // VolumeAttachments that name it
};
ReclaimStep decide_reclaim(const ReclaimFacts& facts);

// Ours: provisioned by us, or a static volume with our driver (contract 40).
bool is_ours(const kube::Volume& volume);

// May this volume be deleted on this backend now? OK; else FAILED_PRECONDITION (somebody must act) or
// UNAVAILABLE (not now), with a message that names the backend and the remedy.
absl::Status judge_volume_backend(const std::string& backend_name, const engine::Backend* backend,
                                  const kube::Volume& volume);

}  // namespace collage::reconcile
