#pragma once

#include <functional>
#include <string>

#include "operator/csi/call.h"
#include "operator/node/agent.h"
#include "operator/proto/csi.grpc.pb.h"
#include "operator/proto/plugin_registration.grpc.pb.h"

namespace collage::csi {

// Whom a service speaks for.
struct Plugin {
  std::string name;     // "image.collage.storage"
  std::string version;  // of this program
  std::string node_name;
  std::string topology_key;  // not empty: volumes are reachable from their own node alone
};

// CSI Identity. The Controller service is not offered here: on Kubernetes the operator does its work through
// the API server.
class IdentityService : public ::csi::v1::Identity::CallbackService {
 public:
  explicit IdentityService(Plugin plugin) : plugin_(std::move(plugin)) {}
  grpc::ServerUnaryReactor* GetPluginInfo(grpc::CallbackServerContext* context,
                                          const ::csi::v1::GetPluginInfoRequest* request,
                                          ::csi::v1::GetPluginInfoResponse* response) override;
  grpc::ServerUnaryReactor* GetPluginCapabilities(
      grpc::CallbackServerContext* context, const ::csi::v1::GetPluginCapabilitiesRequest* request,
      ::csi::v1::GetPluginCapabilitiesResponse* response) override;
  grpc::ServerUnaryReactor* Probe(grpc::CallbackServerContext* context,
                                  const ::csi::v1::ProbeRequest* request,
                                  ::csi::v1::ProbeResponse* response) override;

 private:
  const Plugin plugin_;
};

// CSI Node over the agent. NodeExpandVolume is UNIMPLEMENTED and not advertised.
class NodeService : public ::csi::v1::Node::CallbackService {
 public:
  NodeService(Plugin plugin, node::Agent& agent, Lanes& lanes)
      : plugin_(std::move(plugin)), agent_(agent), lanes_(lanes) {}
  grpc::ServerUnaryReactor* NodeStageVolume(grpc::CallbackServerContext* context,
                                            const ::csi::v1::NodeStageVolumeRequest* request,
                                            ::csi::v1::NodeStageVolumeResponse* response) override;
  grpc::ServerUnaryReactor* NodeUnstageVolume(grpc::CallbackServerContext* context,
                                              const ::csi::v1::NodeUnstageVolumeRequest* request,
                                              ::csi::v1::NodeUnstageVolumeResponse* response) override;
  grpc::ServerUnaryReactor* NodePublishVolume(grpc::CallbackServerContext* context,
                                              const ::csi::v1::NodePublishVolumeRequest* request,
                                              ::csi::v1::NodePublishVolumeResponse* response) override;
  grpc::ServerUnaryReactor* NodeUnpublishVolume(grpc::CallbackServerContext* context,
                                                const ::csi::v1::NodeUnpublishVolumeRequest* request,
                                                ::csi::v1::NodeUnpublishVolumeResponse* response) override;
  grpc::ServerUnaryReactor* NodeGetVolumeStats(grpc::CallbackServerContext* context,
                                               const ::csi::v1::NodeGetVolumeStatsRequest* request,
                                               ::csi::v1::NodeGetVolumeStatsResponse* response) override;
  grpc::ServerUnaryReactor* NodeGetCapabilities(grpc::CallbackServerContext* context,
                                                const ::csi::v1::NodeGetCapabilitiesRequest* request,
                                                ::csi::v1::NodeGetCapabilitiesResponse* response) override;
  grpc::ServerUnaryReactor* NodeGetInfo(grpc::CallbackServerContext* context,
                                        const ::csi::v1::NodeGetInfoRequest* request,
                                        ::csi::v1::NodeGetInfoResponse* response) override;

 private:
  const Plugin plugin_;
  node::Agent& agent_;
  Lanes& lanes_;
};

// Kubelet's plugin registration. `told` is called, on a thread of gRPC, with what kubelet made of us; it must
// not block.
class RegistrationService : public pluginregistration::Registration::CallbackService {
 public:
  using Told = std::function<void(bool registered, const std::string& error)>;
  RegistrationService(std::string name, std::string endpoint, Told told)
      : name_(std::move(name)), endpoint_(std::move(endpoint)), told_(std::move(told)) {}
  grpc::ServerUnaryReactor* GetInfo(grpc::CallbackServerContext* context,
                                    const pluginregistration::InfoRequest* request,
                                    pluginregistration::PluginInfo* response) override;
  grpc::ServerUnaryReactor* NotifyRegistrationStatus(
      grpc::CallbackServerContext* context, const pluginregistration::RegistrationStatus* request,
      pluginregistration::RegistrationStatusResponse* response) override;

 private:
  const std::string name_, endpoint_;
  const Told told_;
};

}  // namespace collage::csi
