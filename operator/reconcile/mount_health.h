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
  friend bool operator==(const AbnormalMount&, const AbnormalMount&) = default;
};
std::vector<AbnormalMount> abnormal_mounts(const base::Json& storage_node);

// Whether every container of the pod that mounts this claim sees mounts that the node makes later.
bool sees_new_mounts(const base::Json& pod, const std::string& claim);

// Tells pods and claims what nodes find wrong with their mounts; with onMountLost: DeletePod, deletes the
// pods whose mount is lost and who cannot see a new one. A node names pods by what its kubelet told it, and
// is believed only where the pod runs on that very node and uses that very volume's claim.
class MountHealth {
 public:
  explicit MountHealth(World& world);
  void start(const base::Context& context) { controller_.start(context); }
  void stop() { controller_.stop(); }

 private:
  struct Subject;  // the volume's objects
  kube::Outcome reconcile(const base::Context& context, const std::string& node);
  absl::Status tell(const base::Context& context, const std::string& node, const AbnormalMount& mount);
  void tell_well(const std::string& node, const AbnormalMount& mount);
  absl::Status pod_lost_mount(const base::Context& context, const std::string& node,
                              const AbnormalMount& mount, const Subject& subject);
  Subject subject_of(const AbnormalMount& mount) const;

  World& world_;
  kube::Controller controller_;
  std::mutex mutex_;
  std::map<std::string, std::map<std::string, AbnormalMount>> told_;  // by node and path
};

}  // namespace collage::reconcile
