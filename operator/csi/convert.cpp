#include "operator/csi/convert.h"

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace collage::csi {
namespace {

using ::csi::v1::VolumeUsage;
using drivers::AccessMode;

drivers::StringMap to_map(const google::protobuf::Map<std::string, std::string>& map) {
  return {map.begin(), map.end()};
}

absl::StatusOr<drivers::VolumeCapability> required_capability(bool has,
                                                              const ::csi::v1::VolumeCapability& capability) {
  if (!has) return absl::InvalidArgumentError("volume_capability: must be set");
  return to_capability(capability);
}

}  // namespace

absl::Status require(const char* field, const std::string& value) {
  if (!value.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, ": must be set"));
}

absl::StatusOr<drivers::VolumeCapability> to_capability(const ::csi::v1::VolumeCapability& capability) {
  drivers::VolumeCapability result;
  switch (capability.access_type_case()) {
    case ::csi::v1::VolumeCapability::kBlock:
      result.mode = drivers::VolumeMode::kBlock;
      break;
    case ::csi::v1::VolumeCapability::kMount:
      result.mode = drivers::VolumeMode::kFilesystem;
      result.fs_type = capability.mount().fs_type();
      result.mount_flags = {capability.mount().mount_flags().begin(), capability.mount().mount_flags().end()};
      if (!capability.mount().volume_mount_group().empty()) {
        return absl::InvalidArgumentError("volume_capability.mount.volume_mount_group: is not supported");
      }
      break;
    case ::csi::v1::VolumeCapability::ACCESS_TYPE_NOT_SET:
      return absl::InvalidArgumentError("volume_capability.access_type: must be block or mount");
  }
  const int mode = capability.access_mode().mode();
  if (mode < static_cast<int>(AccessMode::kSingleNodeWriter) ||
      mode > static_cast<int>(AccessMode::kSingleNodeMultiWriter)) {
    return absl::InvalidArgumentError(
        "volume_capability.access_mode: must be one of those that CSI v1.12 has");
  }
  result.access_mode = static_cast<AccessMode>(mode);
  return result;
}

absl::StatusOr<node::StageRequest> to_stage(const ::csi::v1::NodeStageVolumeRequest& request) {
  COLLAGE_RETURN_IF_ERROR(require("volume_id", request.volume_id()));
  COLLAGE_RETURN_IF_ERROR(require("staging_target_path", request.staging_target_path()));
  node::StageRequest result;
  COLLAGE_ASSIGN_OR_RETURN(result.capability,
                           required_capability(request.has_volume_capability(), request.volume_capability()));
  result.handle = request.volume_id();
  result.staging_path = request.staging_target_path();
  result.volume_context = to_map(request.volume_context());
  result.publish_context = to_map(request.publish_context());
  result.read_only = drivers::for_readers(result.capability.access_mode);
  return result;
}

absl::StatusOr<node::PublishRequest> to_publish(const ::csi::v1::NodePublishVolumeRequest& request) {
  COLLAGE_RETURN_IF_ERROR(require("volume_id", request.volume_id()));
  COLLAGE_RETURN_IF_ERROR(require("target_path", request.target_path()));
  node::PublishRequest result;
  COLLAGE_ASSIGN_OR_RETURN(result.capability,
                           required_capability(request.has_volume_capability(), request.volume_capability()));
  result.handle = request.volume_id();
  result.staging_path = request.staging_target_path();
  result.target_path = request.target_path();
  result.volume_context = to_map(request.volume_context());
  result.publish_context = to_map(request.publish_context());
  result.read_only = request.readonly() || drivers::for_readers(result.capability.access_mode);
  // Kubelet's, where the CSIDriver has podInfoOnMount.
  const auto info = [&](const char* key) {
    const auto found = result.volume_context.find(absl::StrCat("csi.storage.k8s.io/pod.", key));
    return found == result.volume_context.end() ? "" : found->second;
  };
  result.pod = {info("namespace"), info("name"), info("uid")};
  return result;
}

void from_stats(const node::VolumeStats& stats, ::csi::v1::NodeGetVolumeStatsResponse& response) {
  if (stats.total_bytes > 0) {
    VolumeUsage* bytes = response.add_usage();
    bytes->set_unit(VolumeUsage::BYTES);
    bytes->set_total(stats.total_bytes);
    bytes->set_used(stats.used_bytes);
    bytes->set_available(stats.available_bytes);
  }
  if (stats.total_inodes > 0) {
    VolumeUsage* inodes = response.add_usage();
    inodes->set_unit(VolumeUsage::INODES);
    inodes->set_total(stats.total_inodes);
    inodes->set_used(stats.used_inodes);
    inodes->set_available(stats.available_inodes);
  }
  response.mutable_volume_condition()->set_abnormal(stats.abnormal);
  response.mutable_volume_condition()->set_message(stats.abnormal ? stats.message : "the volume works");
}

}  // namespace collage::csi
