#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/context.h"
#include "drivers/kind.h"
#include "operator/engine/backends.h"
#include "operator/engine/limits.h"
#include "operator/kube/client.h"
#include "operator/kube/events.h"
#include "operator/kube/informer.h"
#include "operator/reconcile/corrections.h"
#include "operator/reconcile/volume_locks.h"

namespace collage::reconcile {

// What every controller of the operator looks at and acts through: one client, one set of informers, one
// table of backends. Made once by the role, before the controllers; outlives them. Informers start after all
// controllers have put in their handlers.
struct World {
  World(kube::Client& client, kube::EventRecorder& events, const std::vector<drivers::Kind>& kinds,
        std::string name_space, const kube::ReflectorOptions& watching = {});

  // Starts all informers and waits until each has its first whole list. Nothing is deleted before that.
  void start(const base::Context& context);
  absl::Status wait_synced(const base::Context& context) const;
  void stop();

  // nullptr when no kind compiled in has this CSI driver name ("image.collage.storage").
  const drivers::Kind* kind_of_driver(std::string_view csi_driver) const;

  // There is a StorageBackend of this name, and this process has not looked at it yet: whoever needs it waits
  // for backend_changed() and tells nobody. False once it is in use, and when its conditions say why it is
  // not.
  bool being_set_up(const std::string& backend) const;
  // Why a backend is not in use, or the remedy: what its StorageBackend says, or "create it again".
  std::string why_not_in_use(const std::string& backend) const;
  // Tells of each StorageBackend that begins to say why it is not in use: who waits for it in silence can
  // tell now. Before the informers start.
  void on_refused_backend(std::function<void(const std::string& backend)> told);

  kube::Client& client;
  kube::EventRecorder& events;
  const std::vector<drivers::Kind>& kinds;
  const std::string name_space;  // the operator's own
  std::string cluster_id;        // by which our volumes are tagged; set before the controllers start
  std::string cluster_uid;       // of the namespace kube-system: tells two clusters of one id apart; likewise
  // OK while this process may act; CANCELLED with the reason otherwise. Asked before every call of a driver:
  // writes to the API server have the client's own fence. Set before the controllers start.
  std::function<absl::Status()> leads = [] { return absl::OkStatus(); };

  engine::Backends backends;
  engine::Usage usage;  // of volumes that exist: kept by a handler of `volumes`
  VolumeLocks locks;    // by volume handle
  Corrections corrections;

  kube::Informer<kube::Claim> claims;
  kube::Informer<kube::Volume> volumes;          // index kByBackend
  kube::Informer<kube::Attachment> attachments;  // index kByVolume
  kube::Informer<kube::StorageClass> classes;
  kube::Informer<kube::CsiNode> csi_nodes;
  kube::Informer<kube::Node> nodes;
  kube::Informer<kube::Namespace> namespaces;
  kube::Informer<kube::CsiDriver> csi_drivers;
  kube::Informer<kube::CsiStorageCapacity> capacities;  // our own, in our namespace
  kube::Informer<kube::BackendObject> backend_objects;
  kube::Informer<kube::StorageNodeObject> storage_nodes;

  static constexpr char kByBackend[] =
      "backend";  // of volumes: the first part of the handle, for our drivers only
  // Label of CSIStorageCapacity objects that we keep.
  static constexpr char kManagedByLabel[] = "csi.storage.k8s.io/managed-by";
  static constexpr char kManagedBy[] = "collage";
  static constexpr char kByVolume[] = "volume";  // of attachments: the PersistentVolume's name
};

// Why a StorageBackend is not ready, as its own condition says it; "" when that is not False.
std::string why_not_ready(const kube::BackendObject& backend);

}  // namespace collage::reconcile
