#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/json.h"
#include "operator/kube/controller.h"
#include "operator/reconcile/world.h"

namespace collage::reconcile {

// An entry of a StorageNode's status.mounts.abnormal, as read.
struct AbnormalMount {
  std::string volume, path, reason, message;  // volume: the handle
  bool healed = false;
  std::string pod_namespace, pod_name, pod_uid;
  base::Clock::Wall healed_at{};  // by the node's clock, as kubelet's times are; 0: the node does not say
  friend bool operator==(const AbnormalMount&, const AbnormalMount&) = default;
};
std::vector<AbnormalMount> abnormal_mounts(const base::Json& storage_node);

// Whether every container of the pod that mounts this claim sees mounts that the node makes later.
bool sees_new_mounts(const base::Json& pod, const std::string& claim);

// How this process came to know of a mount that was made again.
enum class Known {
  kSeen,       // it was told when it happened: what runs was there before
  kInherited,  // it was listed already when this process began to lead
};
// Whether a container of the pod may still run with the mount that was lost: it sees no new mounts, and was
// not started anew since the mount was made again. Where the node does not say when that was, an inherited
// one counts as long as the container was never restarted.
bool still_blind(const base::Json& pod, const std::string& claim, base::Clock::Wall healed_at, Known known);

// Tells pods and claims what nodes find wrong with their mounts; with onMountLost: DeletePod, deletes the
// pods whose mount is lost and who cannot see a new one. A node names pods by what its kubelet told it, and
// is believed only where the pod runs on that very node and uses that very volume's claim.
//
// A node lists a mount that was made again until the pod ends, so that the next leader finds it too: it tells
// nobody once more, and deletes only a pod that is still blind. That is also what a leader left that ended
// between the node's word and the deletion.
class MountHealth {
 public:
  explicit MountHealth(World& world);
  void start(const base::Context& context);
  void stop() { controller_.stop(); }

 private:
  struct Subject;  // the volume's objects
  kube::Outcome reconcile(const base::Context& context, const std::string& node);
  absl::Status tell(const base::Context& context, const std::string& node, const AbnormalMount& mount);
  Known how_known(const std::string& node, const AbnormalMount& mount) const;
  void tell_well(const std::string& node, const AbnormalMount& mount);
  absl::Status pod_lost_mount(const base::Context& context, const std::string& node,
                              const AbnormalMount& mount, const Subject& subject, Known known);
  Subject subject_of(const AbnormalMount& mount) const;

  World& world_;
  kube::Controller controller_;
  mutable std::mutex mutex_;
  std::map<std::string, std::map<std::string, AbnormalMount>> told_;  // by node and path
  // By node: listed as made again when this process began to lead, until it has gone through them.
  std::map<std::string, std::vector<AbnormalMount>> inherited_;
};

}  // namespace collage::reconcile
