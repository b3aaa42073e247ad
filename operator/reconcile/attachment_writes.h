#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/context.h"
#include "base/json.h"
#include "drivers/volume.h"
#include "operator/reconcile/world.h"

// What the operator writes to a VolumeAttachment. It is small, and hardly anybody else writes to it: where
// the cache has the whole of it, the whole is sent back (an update costs the API server little more than half
// of a patch), and where it has moved on meanwhile, a patch. Each answer goes into the cache.
namespace collage::reconcile {

// The object as the cache has it, null where that is no longer whole.
base::Json whole_of(const kube::Attachment& attachment);

// Our finalizer and these annotations, if the object is still the one in the cache: else ABORTED. Answers the
// object as it is then.
absl::StatusOr<base::Json> protect_attachment(const base::Context& context, World& world,
                                              const kube::Attachment& attachment,
                                              const std::string& finalizer, const base::Json& annotations);

// status.attached, and no error any more. `whole`: the object as it was answered last, or null.
absl::Status say_attached(const base::Context& context, World& world, const kube::Meta& meta,
                          base::Json whole, const drivers::StringMap& published);

// status.attachError or status.detachError, once for each message.
enum class AttachmentStep { kAttach, kDetach };
void say_failed(const base::Context& context, World& world, const kube::Attachment& attachment,
                AttachmentStep step, const absl::Status& why);

// Takes our finalizer off a deleted attachment; if others keep it, says that it is attached no more. The
// finalizer goes first, then the status (contract 52).
absl::Status release_attachment(const base::Context& context, World& world,
                                const kube::Attachment& attachment, const std::string& finalizer);

}  // namespace collage::reconcile
