#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "operator/kube/objects.h"
#include "operator/kube/objects_detail.h"

// Claims, volumes and attachments.
namespace collage::kube {
namespace {

constexpr std::string_view kMigratedTo = "/metadata/annotations/pv.kubernetes.io~1migrated-to";

// The first of the annotations that is there.
Interned first_of(const base::Json& object, std::initializer_list<std::string_view> pointers) {
  for (const std::string_view pointer : pointers) {
    const Interned value = detail::interned(object, pointer);
    if (!value.empty()) return value;
  }
  return {};
}

std::unique_ptr<DataSource> parse_data_source(const base::Json& object) {
  for (const std::string_view pointer : {"/spec/dataSourceRef", "/spec/dataSource"}) {
    const base::Json* source = base::find(object, pointer);
    if (source == nullptr || !source->is_object() || source->empty()) continue;
    auto result = std::make_unique<DataSource>();
    result->group = base::get_string(*source, "/apiGroup");
    result->kind = base::get_string(*source, "/kind");
    result->name = base::get_string(*source, "/name");
    result->name_space = base::get_string(*source, "/namespace");
    return result;
  }
  return nullptr;
}

}  // namespace

template <>
absl::StatusOr<Claim> parse<Claim>(const base::Json& object) {
  Claim claim;
  COLLAGE_ASSIGN_OR_RETURN(claim.meta, parse_meta(object));
  claim.provisioner =
      first_of(object, {kMigratedTo, "/metadata/annotations/volume.kubernetes.io~1storage-provisioner",
                        "/metadata/annotations/volume.beta.kubernetes.io~1storage-provisioner"});
  claim.selected_node = base::get_string(object, "/metadata/annotations/volume.kubernetes.io~1selected-node");
  claim.storage_class = detail::interned(object, "/spec/storageClassName");
  claim.volume_name = base::get_string(object, "/spec/volumeName");
  claim.access_modes = detail::interned_list(object, "/spec/accessModes");
  claim.block = base::get_string(object, "/spec/volumeMode") == "Block";
  claim.requested_bytes = detail::quantity(object, "/spec/resources/requests/storage", 0);
  claim.limit_bytes = std::max<int64_t>(0, detail::quantity(object, "/spec/resources/limits/storage", 0));
  const base::Json* selector = base::find(object, "/spec/selector");
  claim.has_selector = selector != nullptr && !selector->is_null();
  claim.data_source = parse_data_source(object);
  claim.attributes_class = detail::interned(object, "/spec/volumeAttributesClassName");
  claim.phase = detail::interned(object, "/status/phase");
  return claim;
}

template <>
absl::StatusOr<Volume> parse<Volume>(const base::Json& object) {
  Volume volume;
  COLLAGE_ASSIGN_OR_RETURN(volume.meta, parse_meta(object));
  volume.driver = detail::interned(object, "/spec/csi/driver");
  volume.provisioned_by =
      first_of(object, {kMigratedTo, "/metadata/annotations/pv.kubernetes.io~1provisioned-by"});
  volume.handle = base::get_string(object, "/spec/csi/volumeHandle");
  volume.storage_class = detail::interned(object, "/spec/storageClassName");
  volume.phase = detail::interned(object, "/status/phase");
  // The API server's own default, and the one that loses nothing.
  volume.reclaim_policy = detail::interned(object, "/spec/persistentVolumeReclaimPolicy", "Retain");
  volume.access_modes = detail::interned_list(object, "/spec/accessModes");
  volume.block = base::get_string(object, "/spec/volumeMode") == "Block";
  volume.read_only = base::get_bool(object, "/spec/csi/readOnly");
  volume.capacity_bytes = detail::quantity(object, "/spec/capacity/storage", 0);
  volume.fs_type = detail::interned(object, "/spec/csi/fsType");
  volume.system_id = detail::interned(object, "/spec/csi/volumeAttributes/collage.storage~1system-id");
  volume.claim_namespace = detail::interned(object, "/spec/claimRef/namespace");
  volume.claim_name = base::get_string(object, "/spec/claimRef/name");
  volume.claim_uid = base::get_string(object, "/spec/claimRef/uid");
  return volume;
}

template <>
absl::StatusOr<Attachment> parse<Attachment>(const base::Json& object) {
  Attachment attachment;
  COLLAGE_ASSIGN_OR_RETURN(attachment.meta, parse_meta(object));
  attachment.attacher = detail::interned(object, "/spec/attacher");
  attachment.node_name = detail::interned(object, "/spec/nodeName");
  attachment.volume_name = base::get_string(object, "/spec/source/persistentVolumeName");
  attachment.node_id = base::get_string(object, "/metadata/annotations/csi.alpha.kubernetes.io~1node-id");
  attachment.holder_gone =
      base::get_string(object, "/metadata/annotations/collage.storage~1holder-is-gone") == "true";
  attachment.created = base::parse_rfc3339(base::get_string(object, "/metadata/creationTimestamp"));
  attachment.attached = base::get_bool(object, "/status/attached");
  const base::Json* metadata = base::find(object, "/status/attachmentMetadata");
  attachment.has_metadata = metadata != nullptr && metadata->is_object() && !metadata->empty();
  attachment.attach_error = base::get_string(object, "/status/attachError/message");
  attachment.detach_error = base::get_string(object, "/status/detachError/message");
  if (!attachment.attached || attachment.meta.deleting) attachment.whole = base::dump_json(object);
  return attachment;
}

}  // namespace collage::kube
