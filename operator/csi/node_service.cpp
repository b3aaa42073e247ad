#include "base/status.h"
#include "operator/csi/convert.h"
#include "operator/csi/services.h"

namespace collage::csi {

using base::Context;

grpc::ServerUnaryReactor* NodeService::NodeStageVolume(grpc::CallbackServerContext* context,
                                                       const ::csi::v1::NodeStageVolumeRequest* request,
                                                       ::csi::v1::NodeStageVolumeResponse*) {
  return lanes_.run(context, plugin_.name, "NodeStageVolume", request->volume_id(),
                    [this, request](const Context& c) -> absl::Status {
                      COLLAGE_ASSIGN_OR_RETURN(const node::StageRequest stage, to_stage(*request));
                      return agent_.stage(c, stage);
                    });
}

grpc::ServerUnaryReactor* NodeService::NodeUnstageVolume(grpc::CallbackServerContext* context,
                                                         const ::csi::v1::NodeUnstageVolumeRequest* request,
                                                         ::csi::v1::NodeUnstageVolumeResponse*) {
  return lanes_.run(context, plugin_.name, "NodeUnstageVolume", request->volume_id(),
                    [this, request](const Context& c) -> absl::Status {
                      COLLAGE_RETURN_IF_ERROR(require("volume_id", request->volume_id()));
                      COLLAGE_RETURN_IF_ERROR(require("staging_target_path", request->staging_target_path()));
                      return agent_.unstage(c, request->volume_id(), request->staging_target_path());
                    });
}

grpc::ServerUnaryReactor* NodeService::NodePublishVolume(grpc::CallbackServerContext* context,
                                                         const ::csi::v1::NodePublishVolumeRequest* request,
                                                         ::csi::v1::NodePublishVolumeResponse*) {
  return lanes_.run(context, plugin_.name, "NodePublishVolume", request->volume_id(),
                    [this, request](const Context& c) -> absl::Status {
                      COLLAGE_ASSIGN_OR_RETURN(const node::PublishRequest publish, to_publish(*request));
                      return agent_.publish(c, publish);
                    });
}

grpc::ServerUnaryReactor* NodeService::NodeUnpublishVolume(
    grpc::CallbackServerContext* context, const ::csi::v1::NodeUnpublishVolumeRequest* request,
    ::csi::v1::NodeUnpublishVolumeResponse*) {
  return lanes_.run(context, plugin_.name, "NodeUnpublishVolume", request->volume_id(),
                    [this, request](const Context& c) -> absl::Status {
                      COLLAGE_RETURN_IF_ERROR(require("volume_id", request->volume_id()));
                      COLLAGE_RETURN_IF_ERROR(require("target_path", request->target_path()));
                      return agent_.unpublish(c, request->volume_id(), request->target_path());
                    });
}

grpc::ServerUnaryReactor* NodeService::NodeGetVolumeStats(grpc::CallbackServerContext* context,
                                                          const ::csi::v1::NodeGetVolumeStatsRequest* request,
                                                          ::csi::v1::NodeGetVolumeStatsResponse* response) {
  return lanes_.run(context, plugin_.name, "NodeGetVolumeStats", request->volume_id(),
                    [this, request, response](const Context& c) -> absl::Status {
                      COLLAGE_RETURN_IF_ERROR(require("volume_id", request->volume_id()));
                      COLLAGE_RETURN_IF_ERROR(require("volume_path", request->volume_path()));
                      COLLAGE_ASSIGN_OR_RETURN(const node::VolumeStats stats,
                                               agent_.stats(c, request->volume_id(), request->volume_path()));
                      from_stats(stats, *response);
                      return absl::OkStatus();
                    });
}

grpc::ServerUnaryReactor* NodeService::NodeGetCapabilities(grpc::CallbackServerContext* context,
                                                           const ::csi::v1::NodeGetCapabilitiesRequest*,
                                                           ::csi::v1::NodeGetCapabilitiesResponse* response) {
  using Rpc = ::csi::v1::NodeServiceCapability::RPC;
  for (const auto type : {Rpc::STAGE_UNSTAGE_VOLUME, Rpc::GET_VOLUME_STATS, Rpc::VOLUME_CONDITION,
                          Rpc::SINGLE_NODE_MULTI_WRITER}) {
    response->add_capabilities()->mutable_rpc()->set_type(type);
  }
  return finish(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* NodeService::NodeGetInfo(grpc::CallbackServerContext* context,
                                                   const ::csi::v1::NodeGetInfoRequest*,
                                                   ::csi::v1::NodeGetInfoResponse* response) {
  response->set_node_id(plugin_.node_name);
  if (!plugin_.topology_key.empty()) {
    (*response->mutable_accessible_topology()->mutable_segments())[plugin_.topology_key] = plugin_.node_name;
  }
  return finish(context, absl::OkStatus());
}

}  // namespace collage::csi
