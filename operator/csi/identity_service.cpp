#include "operator/csi/services.h"

namespace collage::csi {

grpc::ServerUnaryReactor* IdentityService::GetPluginInfo(grpc::CallbackServerContext* context,
                                                         const ::csi::v1::GetPluginInfoRequest*,
                                                         ::csi::v1::GetPluginInfoResponse* response) {
  response->set_name(plugin_.name);
  response->set_vendor_version(plugin_.version);
  return finish(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* IdentityService::GetPluginCapabilities(
    grpc::CallbackServerContext* context, const ::csi::v1::GetPluginCapabilitiesRequest*,
    ::csi::v1::GetPluginCapabilitiesResponse* response) {
  if (!plugin_.topology_key.empty()) {
    response->add_capabilities()->mutable_service()->set_type(
        ::csi::v1::PluginCapability::Service::VOLUME_ACCESSIBILITY_CONSTRAINTS);
  }
  return finish(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* IdentityService::Probe(grpc::CallbackServerContext* context,
                                                 const ::csi::v1::ProbeRequest*,
                                                 ::csi::v1::ProbeResponse* response) {
  // Served only between recovery and stop.
  response->mutable_ready()->set_value(true);
  return finish(context, absl::OkStatus());
}

}  // namespace collage::csi
