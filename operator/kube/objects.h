#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/json.h"
#include "operator/kube/interned.h"
#include "operator/kube/resource.h"

// What decisions read of each object, and no more: ten thousand of each fit in a few megabytes. Parsed from
// the API's JSON; the JSON is then dropped. Nothing here is ever written back: writes are patches of the
// fields we own, or of a whole object (Attachment::whole).
namespace collage::kube {

struct Meta {
  std::string name;
  Interned name_space;
  std::string uid;
  uint64_t generation = 0;
  std::string resource_version;
  bool deleting = false;  // deletionTimestamp is set
  std::vector<Interned> finalizers;
  Key key() const { return {name_space.str(), name}; }
  bool has_finalizer(std::string_view finalizer) const;
};

struct DataSource {
  std::string group, kind, name, name_space;
};

struct Claim {  // PersistentVolumeClaim
  static constexpr const Resource& kResource = kPersistentVolumeClaims;
  Meta meta;
  Interned provisioner;       // annotation volume.kubernetes.io/storage-provisioner, or its beta form;
                              // pv.kubernetes.io/migrated-to wins
  std::string selected_node;  // annotation volume.kubernetes.io/selected-node
  Interned storage_class;
  std::string volume_name;
  std::vector<Interned> access_modes;  // "ReadWriteOnce", ...
  bool block = false;                  // volumeMode Block
  int64_t requested_bytes = 0;         // spec.resources.requests.storage; -1 when it is no quantity
  int64_t limit_bytes = 0;             // spec.resources.limits.storage; 0 for none
  bool has_selector = false;
  std::unique_ptr<DataSource> data_source;  // dataSourceRef, else dataSource
  Interned attributes_class;                // spec.volumeAttributesClassName
  Interned phase;
};

struct Volume {  // PersistentVolume
  static constexpr const Resource& kResource = kPersistentVolumes;
  Meta meta;
  Interned driver;          // spec.csi.driver
  Interned provisioned_by;  // annotation pv.kubernetes.io/provisioned-by; migrated-to wins
  std::string handle;       // spec.csi.volumeHandle
  Interned storage_class;
  Interned phase;
  Interned reclaim_policy;
  std::vector<Interned> access_modes;
  bool block = false;
  bool read_only = false;  // spec.csi.readOnly
  int64_t capacity_bytes = 0;
  Interned fs_type;
  Interned system_id;  // spec.csi.volumeAttributes["collage.storage/system-id"]: the storage system that it
                       // was made on
  Interned claim_namespace;
  std::string claim_name, claim_uid;
};

struct Attachment {  // VolumeAttachment
  static constexpr const Resource& kResource = kVolumeAttachments;
  Meta meta;
  Interned attacher;
  Interned node_name;
  std::string volume_name;  // spec.source.persistentVolumeName; "" for an inline volume
  std::string node_id;      // annotation csi.alpha.kubernetes.io/node-id
  bool attached = false;
  bool has_metadata = false;  // status.attachmentMetadata is set
  bool holder_gone = false;   // annotation collage.storage/holder-is-gone is "true"
  base::Clock::Wall created;
  std::string attach_error, detach_error;
  // The object as JSON, for as long as something is to be written to it: not attached yet, or being deleted.
  std::string whole;
};

struct StorageClass {
  static constexpr const Resource& kResource = kStorageClasses;
  Meta meta;
  Interned provisioner;
  std::map<std::string, std::string> parameters;
  Interned reclaim_policy;
  Interned binding_mode;
  std::vector<std::string> mount_options;
  std::vector<std::map<std::string, std::vector<std::string>>> allowed_topologies;  // OR of (key -> values)
  bool allow_expansion = false;
  bool is_default = false;
  std::string managed_by_backend;  // label collage.storage/backend, "" when the class is not ours
  std::string spec_hash;           // annotation collage.storage/spec-hash
};

struct CsiNode {
  static constexpr const Resource& kResource = kCsiNodes;
  Meta meta;
  struct Driver {
    Interned name;
    std::string node_id;
    std::vector<Interned> topology_keys;
    int64_t allocatable = -1;  // -1: no limit given
  };
  std::vector<Driver> drivers;
  const Driver* driver(std::string_view name) const;
};

struct Node {
  static constexpr const Resource& kResource = kNodes;
  Meta meta;
  std::string hostname;  // label kubernetes.io/hostname, mostly the node's name
  std::map<std::string, std::string>
      topology;  // labels whose key belongs to us ("*.collage.storage/..." ) or to topology.kubernetes.io
  bool ready = false;
  bool out_of_service = false;  // taint node.kubernetes.io/out-of-service
  std::string machine;          // status.nodeInfo.systemUUID, else machineID: what runs under this name
  std::vector<Interned> agent_taints;  // keys of taints "<driver>/agent-not-ready"
  // status.volumesInUse, those of our drivers as "<driver>^<volume handle>": kubelet lists a volume before it
  // mounts it and takes it out once it is unstaged.
  std::vector<std::string> volumes_in_use;
};

struct Namespace {
  static constexpr const Resource& kResource = kNamespaces;
  Meta meta;
  std::map<std::string, std::string> labels;
};

struct CsiDriver {
  static constexpr const Resource& kResource = kCsiDrivers;
  Meta meta;
  std::shared_ptr<const base::Json> spec;  // of our own drivers; nullptr for those of others
};

struct CsiStorageCapacity {
  static constexpr const Resource& kResource = kCsiStorageCapacities;
  Meta meta;
  std::string backend;  // label collage.storage/backend
  Interned storage_class;
  std::string node_topology;  // as JSON text; "" when it is not set
  int64_t available_bytes = 0, maximum_volume_bytes = 0;
};

// Our own resources are few: their JSON is kept.
struct BackendObject {  // StorageBackend
  static constexpr const Resource& kResource = kStorageBackends;
  Meta meta;
  std::shared_ptr<const base::Json> json;
};

struct StorageNodeObject {  // StorageNode
  static constexpr const Resource& kResource = kStorageNodes;
  Meta meta;
  std::shared_ptr<const base::Json> json;
};

// INVALID_ARGUMENT when the object is not what its type promises (no name, no uid).
absl::StatusOr<Meta> parse_meta(const base::Json& object);
template <typename T>
absl::StatusOr<T> parse(const base::Json& object);  // specialised in objects.cpp for every struct above

}  // namespace collage::kube
