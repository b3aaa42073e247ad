#pragma once

#include "absl/status/statusor.h"
#include "operator/node/agent.h"
#include "operator/proto/csi.pb.h"

// CSI's messages and the agent's requests. What is missing or of no use is INVALID_ARGUMENT, "<field>:
// <problem>", with the field's name as in csi.proto. Secrets are not taken over.
namespace collage::csi {

absl::StatusOr<drivers::VolumeCapability> to_capability(const ::csi::v1::VolumeCapability& capability);
absl::StatusOr<node::StageRequest> to_stage(const ::csi::v1::NodeStageVolumeRequest& request);
absl::StatusOr<node::PublishRequest> to_publish(const ::csi::v1::NodePublishVolumeRequest& request);
void from_stats(const node::VolumeStats& stats, ::csi::v1::NodeGetVolumeStatsResponse& response);

// INVALID_ARGUMENT "<field>: must be set" when it is empty.
absl::Status require(const char* field, const std::string& value);

}  // namespace collage::csi
