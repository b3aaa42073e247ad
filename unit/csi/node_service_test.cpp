// The CSI services over real gRPC on a unix socket.
#include "unit/csi/csi_fixture.h"

namespace collage::csi {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;
using namespace ::csi::v1;  // NOLINT: the messages of one protocol

class Service : public testing::CsiFixture {
 protected:
  void SetUp() override { start(); }

  template <typename Request, typename Response>
  using Method = grpc::Status (Node::Stub::*)(grpc::ClientContext*, const Request&, Response*);
  template <typename Request, typename Response>
  grpc::Status call(grpc::Status (Node::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response = nullptr,
                    std::chrono::milliseconds timeout = std::chrono::seconds(10)) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + timeout);
    Response ignored;
    const auto stub = node();
    return (stub.get()->*method)(&context, request, response != nullptr ? response : &ignored);
  }

  static NodeStageVolumeRequest a_stage() {
    NodeStageVolumeRequest request;
    request.set_volume_id("fast/v1");
    request.set_staging_target_path("/stage");
    request.mutable_volume_capability()->mutable_mount()->set_fs_type("xfs");
    request.mutable_volume_capability()->mutable_mount()->add_mount_flags("noatime");
    request.mutable_volume_capability()->mutable_access_mode()->set_mode(
        VolumeCapability::AccessMode::SINGLE_NODE_MULTI_WRITER);
    (*request.mutable_publish_context())["image"] = "v1/image.0";
    (*request.mutable_volume_context())["key"] = "value";
    (*request.mutable_secrets())["password"] = "hush";
    return request;
  }
  static NodePublishVolumeRequest a_publish() {
    NodePublishVolumeRequest request;
    request.set_volume_id("fast/v1");
    request.set_staging_target_path("/stage");
    request.set_target_path("/pod");
    request.mutable_volume_capability()->mutable_block();
    request.mutable_volume_capability()->mutable_access_mode()->set_mode(
        VolumeCapability::AccessMode::SINGLE_NODE_WRITER);
    request.set_readonly(true);
    return request;
  }
};

TEST_F(Service, IdentitySaysWhoItIs) {
  grpc::ClientContext context;
  GetPluginInfoResponse info;
  ASSERT_TRUE(identity()->GetPluginInfo(&context, {}, &info).ok());
  EXPECT_EQ(info.name(), "stub.collage.storage");
  EXPECT_EQ(info.vendor_version(), "1.2.3");
  grpc::ClientContext probe_context;
  ProbeResponse probe;
  ASSERT_TRUE(identity()->Probe(&probe_context, {}, &probe).ok());
  EXPECT_TRUE(probe.ready().value());
  grpc::ClientContext capabilities_context;
  GetPluginCapabilitiesResponse capabilities;
  ASSERT_TRUE(identity()->GetPluginCapabilities(&capabilities_context, {}, &capabilities).ok());
  EXPECT_EQ(capabilities.capabilities_size(), 0);
}

TEST_F(Service, TheNodeIsItsNameAndHasTheCapabilitiesThatWork) {
  NodeGetInfoResponse info;
  ASSERT_TRUE(call(&Node::Stub::NodeGetInfo, NodeGetInfoRequest(), &info).ok());
  EXPECT_EQ(info.node_id(), "node-a");
  EXPECT_FALSE(info.has_accessible_topology());
  NodeGetCapabilitiesResponse capabilities;
  ASSERT_TRUE(call(&Node::Stub::NodeGetCapabilities, NodeGetCapabilitiesRequest(), &capabilities).ok());
  std::vector<int> types;
  for (const auto& capability : capabilities.capabilities()) types.push_back(capability.rpc().type());
  using Rpc = NodeServiceCapability::RPC;
  EXPECT_THAT(types, UnorderedElementsAre(Rpc::STAGE_UNSTAGE_VOLUME, Rpc::GET_VOLUME_STATS,
                                          Rpc::VOLUME_CONDITION, Rpc::SINGLE_NODE_MULTI_WRITER));
}

TEST_F(Service, AKindWithVolumesOfOneNodeHasATopology) {
  agent.want({"stub", "owned"});
  ASSERT_TRUE(wait_announced("owned"));
  grpc::ClientContext context;
  NodeGetInfoResponse info;
  ASSERT_TRUE(Node::NewStub(channel(csi_socket("owned")))->NodeGetInfo(&context, {}, &info).ok());
  EXPECT_EQ(info.accessible_topology().segments().at("owned.collage.storage/node"), "node-a");
  grpc::ClientContext capabilities_context;
  GetPluginCapabilitiesResponse capabilities;
  ASSERT_TRUE(identity("owned")->GetPluginCapabilities(&capabilities_context, {}, &capabilities).ok());
  ASSERT_EQ(capabilities.capabilities_size(), 1);
  EXPECT_EQ(capabilities.capabilities(0).service().type(),
            PluginCapability::Service::VOLUME_ACCESSIBILITY_CONSTRAINTS);
}

TEST_F(Service, StageHandsOverEverything) {
  ASSERT_TRUE(call(&Node::Stub::NodeStageVolume, a_stage()).ok());
  ASSERT_EQ(agent.staged().size(), 1u);
  const node::StageRequest request = agent.staged()[0];
  EXPECT_EQ(request.handle, "fast/v1");
  EXPECT_EQ(request.staging_path, "/stage");
  EXPECT_EQ(request.capability, (drivers::VolumeCapability{drivers::VolumeMode::kFilesystem,
                                                           drivers::AccessMode::kSingleNodeMultiWriter,
                                                           "xfs",
                                                           {"noatime"}}));
  EXPECT_EQ(request.volume_context, (drivers::StringMap{{"key", "value"}}));
  EXPECT_EQ(request.publish_context, (drivers::StringMap{{"image", "v1/image.0"}}));
  EXPECT_FALSE(request.read_only);
}

TEST_F(Service, PublishHandsOverEverything) {
  ASSERT_TRUE(call(&Node::Stub::NodePublishVolume, a_publish()).ok());
  ASSERT_EQ(agent.published().size(), 1u);
  const node::PublishRequest request = agent.published()[0];
  EXPECT_EQ(request.handle, "fast/v1");
  EXPECT_EQ(request.staging_path, "/stage");
  EXPECT_EQ(request.target_path, "/pod");
  EXPECT_EQ(request.capability.mode, drivers::VolumeMode::kBlock);
  EXPECT_TRUE(request.read_only);
}

TEST_F(Service, AReadersAccessModeIsReadOnly) {
  NodeStageVolumeRequest stage = a_stage();
  stage.mutable_volume_capability()->mutable_access_mode()->set_mode(
      VolumeCapability::AccessMode::SINGLE_NODE_READER_ONLY);
  ASSERT_TRUE(call(&Node::Stub::NodeStageVolume, stage).ok());
  EXPECT_TRUE(agent.staged()[0].read_only);
}

TEST_F(Service, UnstageUnpublishAndStatsHandOver) {
  NodeUnstageVolumeRequest unstage;
  unstage.set_volume_id("fast/v1");
  unstage.set_staging_target_path("/stage");
  ASSERT_TRUE(call(&Node::Stub::NodeUnstageVolume, unstage).ok());
  NodeUnpublishVolumeRequest unpublish;
  unpublish.set_volume_id("fast/v1");
  unpublish.set_target_path("/pod");
  ASSERT_TRUE(call(&Node::Stub::NodeUnpublishVolume, unpublish).ok());
  NodeGetVolumeStatsRequest stats;
  stats.set_volume_id("fast/v1");
  stats.set_volume_path("/pod");
  agent.stats_answer = node::VolumeStats{100, 40, 60, 10, 3, 7, true, "broken"};
  NodeGetVolumeStatsResponse answer;
  ASSERT_TRUE(call(&Node::Stub::NodeGetVolumeStats, stats, &answer).ok());
  EXPECT_THAT(agent.calls(),
              ElementsAre("unstage fast/v1 /stage", "unpublish fast/v1 /pod", "stats fast/v1 /pod"));
  ASSERT_EQ(answer.usage_size(), 2);
  EXPECT_EQ(answer.usage(0).unit(), VolumeUsage::BYTES);
  EXPECT_EQ(answer.usage(0).total(), 100);
  EXPECT_EQ(answer.usage(0).used(), 40);
  EXPECT_EQ(answer.usage(0).available(), 60);
  EXPECT_EQ(answer.usage(1).unit(), VolumeUsage::INODES);
  EXPECT_EQ(answer.usage(1).used(), 3);
  EXPECT_TRUE(answer.volume_condition().abnormal());
  EXPECT_EQ(answer.volume_condition().message(), "broken");
}

TEST_F(Service, MissingFieldsAreNamed) {
  auto refused = [](const grpc::Status& status, const char* field) {
    EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(field));
  };
  auto stage = [&](auto change, const char* field) {
    SCOPED_TRACE(field);
    NodeStageVolumeRequest request = a_stage();
    change(request);
    refused(call(&Node::Stub::NodeStageVolume, request), field);
  };
  stage([](auto& r) { r.clear_volume_id(); }, "volume_id: must be set");
  stage([](auto& r) { r.clear_staging_target_path(); }, "staging_target_path: must be set");
  stage([](auto& r) { r.clear_volume_capability(); }, "volume_capability: must be set");
  stage([](auto& r) { r.mutable_volume_capability()->clear_mount(); }, "volume_capability.access_type");
  stage([](auto& r) { r.mutable_volume_capability()->clear_access_mode(); }, "volume_capability.access_mode");
  stage(
      [](auto& r) {
        r.mutable_volume_capability()->mutable_access_mode()->set_mode(
            VolumeCapability::AccessMode::Mode(99));
      },
      "volume_capability.access_mode");
  stage([](auto& r) { r.mutable_volume_capability()->mutable_mount()->set_volume_mount_group("1000"); },
        "volume_mount_group");

  auto publish = [&](auto change, const char* field) {
    SCOPED_TRACE(field);
    NodePublishVolumeRequest request = a_publish();
    change(request);
    refused(call(&Node::Stub::NodePublishVolume, request), field);
  };
  publish([](auto& r) { r.clear_volume_id(); }, "volume_id: must be set");
  publish([](auto& r) { r.clear_target_path(); }, "target_path: must be set");
  publish([](auto& r) { r.clear_volume_capability(); }, "volume_capability: must be set");
  publish([](auto& r) { r.mutable_volume_capability()->clear_block(); }, "volume_capability.access_type");

  NodeUnstageVolumeRequest unstage;
  refused(call(&Node::Stub::NodeUnstageVolume, unstage), "volume_id");
  unstage.set_volume_id("fast/v1");
  refused(call(&Node::Stub::NodeUnstageVolume, unstage), "staging_target_path");
  NodeUnpublishVolumeRequest unpublish;
  refused(call(&Node::Stub::NodeUnpublishVolume, unpublish), "volume_id");
  unpublish.set_volume_id("fast/v1");
  refused(call(&Node::Stub::NodeUnpublishVolume, unpublish), "target_path");
  NodeGetVolumeStatsRequest stats;
  refused(call(&Node::Stub::NodeGetVolumeStats, stats), "volume_id");
  stats.set_volume_id("fast/v1");
  refused(call(&Node::Stub::NodeGetVolumeStats, stats), "volume_path");
  EXPECT_THAT(agent.calls(), IsEmpty());
}

TEST_F(Service, EveryCodeAndItsMessageComesThrough) {
  for (int code = 1; code <= 16; ++code) {
    agent.answer = [code](const base::Context&) {
      return absl::Status(static_cast<absl::StatusCode>(code), "why so");
    };
    const grpc::Status status = call(&Node::Stub::NodeStageVolume, a_stage());
    EXPECT_EQ(static_cast<int>(status.error_code()), code);
    EXPECT_EQ(status.error_message(), "why so");
  }
}

TEST_F(Service, WhatIsNotAdvertisedIsUnimplemented) {
  EXPECT_EQ(call(&Node::Stub::NodeExpandVolume, NodeExpandVolumeRequest()).error_code(), grpc::UNIMPLEMENTED);
  grpc::ClientContext context;
  ControllerGetCapabilitiesResponse response;
  const auto controller = Controller::NewStub(channel(csi_socket()));
  EXPECT_EQ(controller->ControllerGetCapabilities(&context, {}, &response).error_code(), grpc::UNIMPLEMENTED);
}

TEST_F(Service, AStepEndsBeforeItsCallersDeadlineSoThatTheAnswerArrives) {
  agent.answer = [](const base::Context& context) -> absl::Status {
    EXPECT_LE(context.remaining(), std::chrono::milliseconds(950));
    EXPECT_FALSE(context.sleep_for(std::chrono::seconds(30)).ok());
    return absl::UnavailableError("not done yet");
  };
  const grpc::Status status = call(&Node::Stub::NodeStageVolume, a_stage(),
                                   static_cast<NodeStageVolumeResponse*>(nullptr), std::chrono::seconds(1));
  EXPECT_EQ(status.error_message(), "not done yet");
  EXPECT_EQ(status.error_code(), grpc::UNAVAILABLE);
}

TEST_F(Service, ACallerThatGoesAwayEndsItsStep) {
  std::atomic<bool> begun = false, ended = false;
  agent.answer = [&](const base::Context& context) -> absl::Status {
    begun = true;
    const absl::Status slept = context.sleep_for(std::chrono::seconds(30));
    EXPECT_EQ(slept.code(), absl::StatusCode::kCancelled);
    ended = true;
    return slept;
  };
  grpc::ClientContext context;
  std::thread caller([&] {
    NodeStageVolumeResponse response;
    EXPECT_EQ(node()->NodeStageVolume(&context, a_stage(), &response).error_code(), grpc::CANCELLED);
  });
  EXPECT_TRUE(eventually([&] { return begun.load(); }));
  context.TryCancel();
  caller.join();
  EXPECT_TRUE(eventually([&] { return ended.load(); }));
}

TEST_F(Service, StopWaitsForAStepThatIsUnderWay) {
  std::atomic<bool> begun = false;
  agent.answer = [&](const base::Context& context) {
    begun = true;
    return context.sleep_for(std::chrono::milliseconds(300));
  };
  std::thread caller([&] { EXPECT_TRUE(call(&Node::Stub::NodeStageVolume, a_stage()).ok()); });
  EXPECT_TRUE(eventually([&] { return begun.load(); }));
  server->stop();
  caller.join();
}

}  // namespace
}  // namespace collage::csi
