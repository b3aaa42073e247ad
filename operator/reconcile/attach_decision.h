#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "drivers/kind.h"
#include "operator/engine/backends.h"
#include "operator/engine/names.h"
#include "operator/kube/objects.h"

// What is to be done for a VolumeAttachment, as pure functions over what was observed. `collage explain`
// calls the same ones.
namespace collage::reconcile {

struct AttachFacts {
  const kube::Attachment* attachment = nullptr;
  const kube::Volume* volume = nullptr;      // nullptr: not there
  const drivers::Kind* kind = nullptr;       // of the attacher
  const kube::CsiNode* csi_node = nullptr;   // of the node, nullptr: not there
  const engine::Backend* backend = nullptr;  // of the volume, nullptr: not in use
  std::string why_not_in_use;                // the reason or the remedy, then
};

struct AttachPlan {
  drivers::Handle handle;
  std::string node_id;
  drivers::VolumeCapability capability;
  bool read_only = false;
};
// Everything that can be checked before the finalizer, which blocks deletion, is put on (contract 48). Errors
// name the object, the field and the remedy.
absl::StatusOr<AttachPlan> plan_attach(const AttachFacts& facts);

// OK, or why a volume's recorded storage system and the one that its backend reports now do not allow to
// touch it.
absl::Status check_system(const std::string& backend_name, const engine::Backend& backend,
                          const kube::Volume& volume);

// The provider's ids of the node a volume is detached from (contract 49): the one written before the attach,
// and the one that the node has now. A detach from where it is not attached is OK.
std::vector<std::string> detach_node_ids(const kube::Attachment& attachment, const kube::CsiNode* csi_node);

// What is known of a volume's holder when its attachment is to end (contract 58).
struct DetachFacts {
  std::string volume, node, attachment;  // for messages: the handle, the names
  bool node_exists = false;
  bool node_ready = false;
  // The Node object was made after the attachment: kubelet registered anew, and what it lists in use says
  // nothing of what the machine still holds from before.
  bool node_newer = false;
  bool in_use = false;          // kubelet lists the volume in its node's volumesInUse: not unstaged
  bool out_of_service = false;  // the taint node.kubernetes.io/out-of-service: a person's word
  // The annotation kHolderGone on the attachment: a person's word, for a node without an object.
  bool confirmed = false;
  bool driver_fences = false;     // the detach itself takes access away
  bool holder_elsewhere = false;  // the driver says that another node holds it, or that it is gone
  std::string absence;            // why the machine can no longer write, as its provider knows it
  // The node was asked, and is the machine that the volume was attached to: it has the volume neither staged
  // nor open.
  bool let_go = false;
  std::string node_says;  // what else the node answered, or why it was not asked, for the message
};

inline constexpr char kHolderGone[] = "collage.storage/holder-is-gone";
// On the attachment: kube::Node::machine at the time of the attach.
inline constexpr char kMachine[] = "collage.storage/machine";

// Kubernetes ends an attachment after a clean unstage, but also, forced, when a node does not answer: then
// the old holder may still write. allowed: `proof` says by what it cannot, "" for the ordinary case of a
// clean unstage. fence: the proof is a person's word, and people err: access is taken away as well where the
// storage can. Not allowed: `message` names the holder and the proof that is needed. A deleted Node object
// and elapsed time are no proof.
struct DetachVerdict {
  bool allowed = false;
  bool fence = false;
  std::string proof;
  std::string message;
};
DetachVerdict detach_allowed(const DetachFacts& facts);

}  // namespace collage::reconcile
