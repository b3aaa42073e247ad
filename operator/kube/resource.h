#pragma once

#include <string>
#include <string_view>

namespace collage::kube {

// A kind of object as the API server's paths name it.
struct Resource {
  std::string_view group;  // "" for the core group
  std::string_view version;
  std::string_view plural;
  std::string_view kind;
  bool namespaced;
  std::string api_version() const;  // "v1", "storage.k8s.io/v1"
};

inline constexpr Resource kPersistentVolumeClaims{"", "v1", "persistentvolumeclaims", "PersistentVolumeClaim",
                                                  true};
inline constexpr Resource kPersistentVolumes{"", "v1", "persistentvolumes", "PersistentVolume", false};
inline constexpr Resource kNodes{"", "v1", "nodes", "Node", false};
inline constexpr Resource kNamespaces{"", "v1", "namespaces", "Namespace", false};
inline constexpr Resource kSecrets{"", "v1", "secrets", "Secret", true};
inline constexpr Resource kConfigMaps{"", "v1", "configmaps", "ConfigMap", true};
inline constexpr Resource kEvents{"", "v1", "events", "Event", true};
inline constexpr Resource kPods{"", "v1", "pods", "Pod", true};
inline constexpr Resource kDaemonSets{"apps", "v1", "daemonsets", "DaemonSet", true};
inline constexpr Resource kLeases{"coordination.k8s.io", "v1", "leases", "Lease", true};
inline constexpr Resource kStorageClasses{"storage.k8s.io", "v1", "storageclasses", "StorageClass", false};
inline constexpr Resource kVolumeAttachments{"storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment",
                                             false};
inline constexpr Resource kCsiDrivers{"storage.k8s.io", "v1", "csidrivers", "CSIDriver", false};
inline constexpr Resource kCsiNodes{"storage.k8s.io", "v1", "csinodes", "CSINode", false};
inline constexpr Resource kCsiStorageCapacities{"storage.k8s.io", "v1", "csistoragecapacities",
                                                "CSIStorageCapacity", true};
inline constexpr Resource kStorageBackends{"collage.storage", "v1beta1", "storagebackends", "StorageBackend",
                                           false};
inline constexpr Resource kStorageNodes{"collage.storage", "v1beta1", "storagenodes", "StorageNode", false};

// An object's place: "namespace/name", or "name" for cluster-scoped ones.
struct Key {
  std::string name_space;
  std::string name;
  std::string to_string() const;
  static Key parse(std::string_view text);
  friend bool operator==(const Key&, const Key&) = default;
  friend auto operator<=>(const Key&, const Key&) = default;
};

}  // namespace collage::kube
