#include "operator/csi/services.h"

namespace collage::csi {

grpc::ServerUnaryReactor* RegistrationService::GetInfo(grpc::CallbackServerContext* context,
                                                       const pluginregistration::InfoRequest*,
                                                       pluginregistration::PluginInfo* response) {
  response->set_type("CSIPlugin");
  response->set_name(name_);
  response->set_endpoint(endpoint_);
  response->add_supported_versions("1.0.0");
  return finish(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* RegistrationService::NotifyRegistrationStatus(
    grpc::CallbackServerContext* context, const pluginregistration::RegistrationStatus* request,
    pluginregistration::RegistrationStatusResponse*) {
  told_(request->plugin_registered(), request->error());
  return finish(context, absl::OkStatus());
}

}  // namespace collage::csi
