#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/json.h"

// Objects as the API server would show them, said in words:
//   server.put(a_claim("data").of_class("fast").bound("pv-1").deleting());
// Each builder is a copyable value that converts to JSON. Names and uids are derived, so that a test may
// predict them: the uid of an object named "data" is "uid-data".
namespace collage::testing {

// What all of them share. Self is the builder's own type, so that calls can be chained in any order.
template <typename Self>
class ObjectBuilder {
 public:
  ObjectBuilder(const char* api_version, const char* kind, const std::string& name) {
    json_ = {
        {"apiVersion", api_version}, {"kind", kind}, {"metadata", {{"name", name}, {"uid", "uid-" + name}}}};
  }
  Self& in(const std::string& name_space) { return set("/metadata/namespace", name_space); }
  Self& uid(const std::string& uid) { return set("/metadata/uid", uid); }
  Self& version(uint64_t resource_version) {
    return set("/metadata/resourceVersion", std::to_string(resource_version));
  }
  Self& generation(int generation) { return set("/metadata/generation", generation); }
  Self& label(const std::string& key, const std::string& value) { return put("labels", key, value); }
  Self& annotation(const std::string& key, const std::string& value) {
    return put("annotations", key, value);
  }
  Self& finalizer(const std::string& name) {
    json_["metadata"]["finalizers"].push_back(name);
    return self();
  }
  Self& created(const std::string& rfc3339) { return set("/metadata/creationTimestamp", rfc3339); }
  // kubectl delete has been called. Give it a finalizer too, or it would be gone.
  Self& deleting(const std::string& since = "2026-01-01T00:00:00Z") {
    return set("/metadata/deletionTimestamp", since);
  }
  // Any field, by JSON pointer.
  Self& set(const std::string& pointer, base::Json value) {
    json_[base::Json::json_pointer(pointer)] = std::move(value);
    return self();
  }
  const base::Json& json() const { return json_; }
  operator const base::Json&() const { return json_; }

 protected:
  Self& self() { return static_cast<Self&>(*this); }
  Self& put(const char* map, const std::string& key, const std::string& value) {
    json_["metadata"][map][key] = value;
    return self();
  }
  base::Json json_;
};

// A PersistentVolumeClaim in "default": 1Gi, ReadWriteOnce, class "fast", provisioner image.collage.storage,
// Pending.
class ClaimBuilder : public ObjectBuilder<ClaimBuilder> {
 public:
  explicit ClaimBuilder(const std::string& name);
  ClaimBuilder& of_class(const std::string& storage_class);
  ClaimBuilder& of_driver(const std::string& driver);  // the PV controller's annotation
  ClaimBuilder& without_driver();
  ClaimBuilder& size(const std::string& quantity);
  ClaimBuilder& mode(const std::string& access_mode);  // instead of ReadWriteOnce
  ClaimBuilder& modes(const std::vector<std::string>& access_modes);
  ClaimBuilder& raw_block();
  ClaimBuilder& on_node(const std::string& node);       // annotation selected-node
  ClaimBuilder& bound(const std::string& volume = "");  // "": pvc-<uid>
  ClaimBuilder& lost();
  ClaimBuilder& from(const std::string& kind, const std::string& name,
                     const std::string& group = "");  // data source
};

// A PersistentVolume: 1Gi, ReadWriteOnce, class "fast", driver image.collage.storage, handle fast/<name>,
// Delete, Available.
class VolumeBuilder : public ObjectBuilder<VolumeBuilder> {
 public:
  explicit VolumeBuilder(const std::string& name);
  VolumeBuilder& of_class(const std::string& storage_class);
  VolumeBuilder& of_driver(const std::string& driver);  // spec.csi.driver and the provisioned-by annotation
  VolumeBuilder& handle(const std::string& handle);
  VolumeBuilder& size(const std::string& quantity);
  VolumeBuilder& modes(const std::vector<std::string>& access_modes);
  VolumeBuilder& raw_block();
  VolumeBuilder& retain();
  VolumeBuilder& attribute(const std::string& key, const std::string& value);
  VolumeBuilder& claimed_by(const std::string& name_space, const std::string& claim,
                            const std::string& uid = "");
  VolumeBuilder& bound();
  VolumeBuilder& released();
};

// A VolumeAttachment of a volume to a node, by image.collage.storage; not attached.
class AttachmentBuilder : public ObjectBuilder<AttachmentBuilder> {
 public:
  AttachmentBuilder(const std::string& volume, const std::string& node);  // named csi-<volume>-<node>
  AttachmentBuilder& of_driver(const std::string& driver);
  AttachmentBuilder& attached();
  AttachmentBuilder& with_node_id(const std::string& node_id);  // annotation
  AttachmentBuilder& failed(const std::string& message);
};

// A StorageClass of image.collage.storage: Delete, Immediate.
class ClassBuilder : public ObjectBuilder<ClassBuilder> {
 public:
  explicit ClassBuilder(const std::string& name);
  ClassBuilder& of_driver(const std::string& driver);
  ClassBuilder& of_backend(const std::string& backend);  // parameter "backend"
  ClassBuilder& kept_by(const std::string& backend);     // label collage.storage/backend
  ClassBuilder& parameter(const std::string& key, const std::string& value);
  ClassBuilder& wait_for_first_consumer();
  ClassBuilder& retain();
  ClassBuilder& is_default();
  ClassBuilder& topology(const std::string& key, const std::vector<std::string>& values);  // one more term
};

// A StorageBackend of kind image in /srv/share.
class BackendBuilder : public ObjectBuilder<BackendBuilder> {
 public:
  explicit BackendBuilder(const std::string& name);
  BackendBuilder& kind(const std::string& kind, base::Json settings);  // instead of image
  BackendBuilder& with_class(const std::string& name, bool is_default = false);
  BackendBuilder& limits(base::Json limits);
  BackendBuilder& condition(const std::string& type, bool value, const std::string& reason,
                            const std::string& message = "");
  BackendBuilder& ready();
  BackendBuilder& paused();
  BackendBuilder& deletion_policy(const std::string& policy);
};

// A Node, Ready, and its CSINode with one driver.
class NodeBuilder : public ObjectBuilder<NodeBuilder> {
 public:
  explicit NodeBuilder(const std::string& name);
  NodeBuilder& not_ready();
  NodeBuilder& taint(const std::string& key, const std::string& effect = "NoExecute");
  NodeBuilder& machine(const std::string& system_uuid);
};
class CsiNodeBuilder : public ObjectBuilder<CsiNodeBuilder> {
 public:
  explicit CsiNodeBuilder(const std::string& name);
  CsiNodeBuilder& driver(const std::string& driver, const std::string& node_id,
                         const std::vector<std::string>& topology_keys = {}, int allocatable = -1);
};
class StorageNodeBuilder : public ObjectBuilder<StorageNodeBuilder> {
 public:
  explicit StorageNodeBuilder(const std::string& name);
};

inline ClaimBuilder a_claim(const std::string& name = "claim") {
  return ClaimBuilder(name);
}
inline VolumeBuilder a_volume(const std::string& name = "volume") {
  return VolumeBuilder(name);
}
inline AttachmentBuilder an_attachment(const std::string& volume = "volume",
                                       const std::string& node = "node-a") {
  return AttachmentBuilder(volume, node);
}
inline ClassBuilder a_class(const std::string& name = "fast") {
  return ClassBuilder(name);
}
inline BackendBuilder a_backend(const std::string& name = "fast") {
  return BackendBuilder(name);
}
inline NodeBuilder a_node(const std::string& name = "node-a") {
  return NodeBuilder(name);
}
inline CsiNodeBuilder a_csi_node(const std::string& name = "node-a") {
  return CsiNodeBuilder(name);
}
inline StorageNodeBuilder a_storage_node(const std::string& name = "node-a") {
  return StorageNodeBuilder(name);
}
base::Json a_namespace(const std::string& name);
base::Json a_secret(const std::string& name_space, const std::string& name, const base::Json& string_data);

}  // namespace collage::testing
