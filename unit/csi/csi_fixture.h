#pragma once

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "operator/csi/node_server.h"
#include "operator/proto/csi.grpc.pb.h"
#include "operator/proto/plugin_registration.grpc.pb.h"
#include "unit/csi/fake_agent.h"
#include "unit/testing/temp_dir.h"

namespace collage::testing {

// A node server over a kubelet directory of the test's own, and clients on its sockets.
class CsiFixture : public ::testing::Test {
 public:
  void start(std::vector<std::string> kinds = {"stub"}) {
    agent.want(kinds);
    server = std::make_unique<csi::NodeServer>(agent, options());
    ASSERT_TRUE(server->start({}).ok());
    for (const std::string& kind : kinds) ASSERT_TRUE(wait_announced(kind));
  }
  void TearDown() override { server.reset(); }

  csi::NodeServerOptions options() const {
    return {.kubelet_directory = directory.path(),
            .state_directory = directory / "state",
            .node_name = "node-a",
            .version = "1.2.3"};
  }
  std::string csi_socket(const std::string& kind = "stub") const {
    return directory / ("plugins/" + kind + ".collage.storage/csi.sock");
  }
  std::string registration_socket(const std::string& kind = "stub") const {
    return directory / ("plugins_registry/" + kind + ".collage.storage-reg.sock");
  }
  bool wait_announced(const std::string& kind) {
    return agent.wait_kind(kind,
                           [](const auto& state) { return state.message == "kubelet has not answered yet"; });
  }
  // Until `is`; false after 10 s.
  template <typename F>
  static bool eventually(F is) {
    for (int i = 0; i < 1000; ++i) {
      if (is()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
  // A connection of its own: gRPC would hand out one that it has to another file at the same path.
  static std::shared_ptr<grpc::Channel> channel(const std::string& socket) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel("unix:" + socket, grpc::InsecureChannelCredentials(), arguments);
  }
  std::unique_ptr<::csi::v1::Node::Stub> node() const {
    return ::csi::v1::Node::NewStub(channel(csi_socket()));
  }
  std::unique_ptr<::csi::v1::Identity::Stub> identity(const std::string& kind = "stub") const {
    return ::csi::v1::Identity::NewStub(channel(csi_socket(kind)));
  }
  std::unique_ptr<pluginregistration::Registration::Stub> kubelet(const std::string& kind = "stub") const {
    return pluginregistration::Registration::NewStub(channel(registration_socket(kind)));
  }
  grpc::Status notify(bool registered, const std::string& error = "") {
    grpc::ClientContext context;
    pluginregistration::RegistrationStatus request;
    pluginregistration::RegistrationStatusResponse response;
    request.set_plugin_registered(registered);
    request.set_error(error);
    return kubelet()->NotifyRegistrationStatus(&context, request, &response);
  }

  TempDir directory;
  FakeAgent agent{{}};
  std::unique_ptr<csi::NodeServer> server;
};

}  // namespace collage::testing
