#include "unit/testing/builders.h"

#include "absl/strings/escaping.h"

namespace collage::testing {

using base::Json;

namespace {

constexpr char kDriver[] = "image.collage.storage";
constexpr char kProvisioner[] = "volume.kubernetes.io/storage-provisioner";
constexpr char kProvisionedBy[] = "pv.kubernetes.io/provisioned-by";

}  // namespace

ClaimBuilder::ClaimBuilder(const std::string& name) : ObjectBuilder("v1", "PersistentVolumeClaim", name) {
  in("default").of_class("fast").of_driver(kDriver).size("1Gi").mode("ReadWriteOnce");
  set("/spec/volumeMode", "Filesystem").set("/status/phase", "Pending");
}
ClaimBuilder& ClaimBuilder::of_class(const std::string& storage_class) {
  return set("/spec/storageClassName", storage_class);
}
ClaimBuilder& ClaimBuilder::of_driver(const std::string& driver) {
  return annotation(kProvisioner, driver);
}
ClaimBuilder& ClaimBuilder::without_driver() {
  json_["metadata"]["annotations"].erase(kProvisioner);
  return *this;
}
ClaimBuilder& ClaimBuilder::size(const std::string& quantity) {
  return set("/spec/resources/requests/storage", quantity);
}
ClaimBuilder& ClaimBuilder::mode(const std::string& access_mode) {
  return modes({access_mode});
}
ClaimBuilder& ClaimBuilder::modes(const std::vector<std::string>& access_modes) {
  return set("/spec/accessModes", access_modes);
}
ClaimBuilder& ClaimBuilder::raw_block() {
  return set("/spec/volumeMode", "Block");
}
ClaimBuilder& ClaimBuilder::on_node(const std::string& node) {
  return annotation("volume.kubernetes.io/selected-node", node);
}
ClaimBuilder& ClaimBuilder::bound(const std::string& volume) {
  const std::string name = volume.empty() ? "pvc-" + base::get_string(json_, "/metadata/uid") : volume;
  return set("/spec/volumeName", name)
      .set("/status/phase", "Bound")
      .annotation("pv.kubernetes.io/bind-completed", "yes");
}
ClaimBuilder& ClaimBuilder::lost() {
  return set("/status/phase", "Lost");
}
ClaimBuilder& ClaimBuilder::from(const std::string& kind, const std::string& name, const std::string& group) {
  Json source = {{"kind", kind}, {"name", name}};
  if (!group.empty()) source["apiGroup"] = group;
  return set("/spec/dataSource", source).set("/spec/dataSourceRef", source);
}

VolumeBuilder::VolumeBuilder(const std::string& name) : ObjectBuilder("v1", "PersistentVolume", name) {
  of_class("fast").of_driver(kDriver).handle("fast/" + name).size("1Gi").modes({"ReadWriteOnce"});
  set("/spec/volumeMode", "Filesystem")
      .set("/spec/persistentVolumeReclaimPolicy", "Delete")
      .set("/status/phase", "Available");
}
VolumeBuilder& VolumeBuilder::of_class(const std::string& storage_class) {
  return set("/spec/storageClassName", storage_class);
}
VolumeBuilder& VolumeBuilder::of_driver(const std::string& driver) {
  return set("/spec/csi/driver", driver).annotation(kProvisionedBy, driver);
}
VolumeBuilder& VolumeBuilder::handle(const std::string& handle) {
  return set("/spec/csi/volumeHandle", handle);
}
VolumeBuilder& VolumeBuilder::size(const std::string& quantity) {
  return set("/spec/capacity/storage", quantity);
}
VolumeBuilder& VolumeBuilder::modes(const std::vector<std::string>& access_modes) {
  return set("/spec/accessModes", access_modes);
}
VolumeBuilder& VolumeBuilder::raw_block() {
  return set("/spec/volumeMode", "Block");
}
VolumeBuilder& VolumeBuilder::retain() {
  return set("/spec/persistentVolumeReclaimPolicy", "Retain");
}
VolumeBuilder& VolumeBuilder::attribute(const std::string& key, const std::string& value) {
  json_["spec"]["csi"]["volumeAttributes"][key] = value;
  return *this;
}
VolumeBuilder& VolumeBuilder::claimed_by(const std::string& name_space, const std::string& claim,
                                         const std::string& uid) {
  return set("/spec/claimRef", {{"apiVersion", "v1"},
                                {"kind", "PersistentVolumeClaim"},
                                {"namespace", name_space},
                                {"name", claim},
                                {"uid", uid.empty() ? "uid-" + claim : uid}});
}
VolumeBuilder& VolumeBuilder::bound() {
  return set("/status/phase", "Bound");
}
VolumeBuilder& VolumeBuilder::released() {
  return set("/status/phase", "Released");
}

AttachmentBuilder::AttachmentBuilder(const std::string& volume, const std::string& node)
    : ObjectBuilder("storage.k8s.io/v1", "VolumeAttachment", "csi-" + volume + "-" + node) {
  of_driver(kDriver)
      .set("/spec/nodeName", node)
      .set("/spec/source/persistentVolumeName", volume)
      .set("/status/attached", false);
}
AttachmentBuilder& AttachmentBuilder::of_driver(const std::string& driver) {
  return set("/spec/attacher", driver);
}
AttachmentBuilder& AttachmentBuilder::attached() {
  return set("/status/attached", true);
}
AttachmentBuilder& AttachmentBuilder::with_node_id(const std::string& node_id) {
  return annotation("csi.alpha.kubernetes.io/node-id", node_id);
}
AttachmentBuilder& AttachmentBuilder::failed(const std::string& message) {
  return set("/status/attachError", {{"message", message}, {"time", "2026-01-01T00:00:00Z"}});
}

ClassBuilder::ClassBuilder(const std::string& name)
    : ObjectBuilder("storage.k8s.io/v1", "StorageClass", name) {
  of_driver(kDriver).set("/reclaimPolicy", "Delete").set("/volumeBindingMode", "Immediate");
}
ClassBuilder& ClassBuilder::of_driver(const std::string& driver) {
  return set("/provisioner", driver);
}
ClassBuilder& ClassBuilder::of_backend(const std::string& backend) {
  return parameter("backend", backend);
}
ClassBuilder& ClassBuilder::kept_by(const std::string& backend) {
  return label("collage.storage/backend", backend);
}
ClassBuilder& ClassBuilder::parameter(const std::string& key, const std::string& value) {
  json_["parameters"][key] = value;
  return *this;
}
ClassBuilder& ClassBuilder::wait_for_first_consumer() {
  return set("/volumeBindingMode", "WaitForFirstConsumer");
}
ClassBuilder& ClassBuilder::retain() {
  return set("/reclaimPolicy", "Retain");
}
ClassBuilder& ClassBuilder::is_default() {
  return annotation("storageclass.kubernetes.io/is-default-class", "true");
}
ClassBuilder& ClassBuilder::topology(const std::string& key, const std::vector<std::string>& values) {
  json_["allowedTopologies"].push_back(
      {{"matchLabelExpressions", Json::array({{{"key", key}, {"values", values}}})}});
  return *this;
}

BackendBuilder::BackendBuilder(const std::string& name)
    : ObjectBuilder("collage.storage/v1beta1", "StorageBackend", name) {
  generation(1).set("/spec/image/directory", "/srv/share");
}
BackendBuilder& BackendBuilder::kind(const std::string& kind, Json settings) {
  json_["spec"].erase("image");
  return set("/spec/" + kind, std::move(settings));
}
BackendBuilder& BackendBuilder::with_class(const std::string& name, bool is_default) {
  Json entry = {{"name", name}};
  if (is_default) entry["default"] = true;
  json_["spec"]["storageClasses"].push_back(std::move(entry));
  return *this;
}
BackendBuilder& BackendBuilder::limits(Json limits) {
  return set("/spec/limits", std::move(limits));
}
BackendBuilder& BackendBuilder::condition(const std::string& type, bool value, const std::string& reason,
                                          const std::string& message) {
  json_["status"]["conditions"].push_back({{"type", type},
                                           {"status", value ? "True" : "False"},
                                           {"reason", reason},
                                           {"message", message},
                                           {"lastTransitionTime", "2026-01-01T00:00:00Z"}});
  return *this;
}
BackendBuilder& BackendBuilder::ready() {
  return condition("Ready", true, "Ready");
}
BackendBuilder& BackendBuilder::paused() {
  return set("/spec/paused", true);
}
BackendBuilder& BackendBuilder::deletion_policy(const std::string& policy) {
  return set("/spec/deletionPolicy", policy);
}

NodeBuilder::NodeBuilder(const std::string& name) : ObjectBuilder("v1", "Node", name) {
  label("kubernetes.io/hostname", name);
  set("/status/conditions", Json::array({{{"type", "Ready"}, {"status", "True"}}}));
}
NodeBuilder& NodeBuilder::not_ready() {
  return set("/status/conditions", Json::array({{{"type", "Ready"}, {"status", "Unknown"}}}));
}
NodeBuilder& NodeBuilder::taint(const std::string& key, const std::string& effect) {
  json_["spec"]["taints"].push_back({{"key", key}, {"effect", effect}});
  return *this;
}

NodeBuilder& NodeBuilder::machine(const std::string& system_uuid) {
  return set("/status/nodeInfo/systemUUID", system_uuid);
}

CsiNodeBuilder::CsiNodeBuilder(const std::string& name)
    : ObjectBuilder("storage.k8s.io/v1", "CSINode", name) {
  set("/spec/drivers", Json::array());
}
CsiNodeBuilder& CsiNodeBuilder::driver(const std::string& driver, const std::string& node_id,
                                       const std::vector<std::string>& topology_keys, int allocatable) {
  Json entry = {{"name", driver}, {"nodeID", node_id}, {"topologyKeys", topology_keys}};
  if (allocatable >= 0) entry["allocatable"]["count"] = allocatable;
  json_["spec"]["drivers"].push_back(std::move(entry));
  return *this;
}

StorageNodeBuilder::StorageNodeBuilder(const std::string& name)
    : ObjectBuilder("collage.storage/v1beta1", "StorageNode", name) {
  set("/spec", Json::object());
}

Json a_namespace(const std::string& name) {
  return {
      {"apiVersion", "v1"}, {"kind", "Namespace"}, {"metadata", {{"name", name}, {"uid", "uid-" + name}}}};
}

Json a_secret(const std::string& name_space, const std::string& name, const Json& string_data) {
  Json data = Json::object();
  for (const auto& [key, value] : string_data.items())
    data[key] = absl::Base64Escape(value.get<std::string>());
  return {{"apiVersion", "v1"},
          {"kind", "Secret"},
          {"metadata", {{"namespace", name_space}, {"name", name}, {"uid", "uid-" + name}}},
          {"type", "Opaque"},
          {"data", std::move(data)}};
}

}  // namespace collage::testing
