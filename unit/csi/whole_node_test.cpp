// From gRPC down to the kernel: the services, the agent, the driver `local`, collage-mount.
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "drivers/codec.h"
#include "drivers/registry.h"
#include "operator/csi/node_server.h"
#include "operator/node/agent.h"
#include "operator/proto/csi.grpc.pb.h"
#include "unit/csi/csi_fixture.h"
#include "unit/mount/dead_share.h"
#include "unit/mount/kernel_sandbox.h"

namespace collage::csi {
namespace {

using base::Json;
using namespace ::csi::v1;  // NOLINT: the messages of one protocol

class WholeNode : public testing::KernelSandbox {
 protected:
  void SetUp() override {
    make_directory("storage");
    make_directory("pods");
    staging_ = make_directory("staging");
    start();
  }
  void TearDown() override {
    stop();
    KernelSandbox::TearDown();
  }

  void start() {
    auto agent = node::make_agent({.node_name = "node-a",
                                   .state_directory = path("state"),
                                   .mount_helper = testing::kMountHelper,
                                   .kinds = &drivers::kinds()});
    ASSERT_TRUE(agent.ok()) << agent.status();
    agent_ = *std::move(agent);
    ASSERT_TRUE(agent_->recover({}).ok());
    server_ = std::make_unique<NodeServer>(*agent_, NodeServerOptions{.kubelet_directory = path("kubelet"),
                                                                      .state_directory = path("state"),
                                                                      .node_name = "node-a",
                                                                      .version = "1"});
    ASSERT_TRUE(server_->start({}).ok());
    agent_->set_backends(
        {{"disk", "local", std::make_shared<const Json>(Json{{"directory", path("storage")}}), ""}});
    ASSERT_TRUE(testing::CsiFixture::eventually([&] {
      const auto backends = agent_->status().backends;
      return !backends.empty() && backends.front().ready && std::filesystem::exists(socket());
    })) << agent_->status().backends.front().message;
    stub_ = Node::NewStub(testing::CsiFixture::channel(socket()));
  }
  void stop() {
    stub_.reset();
    server_.reset();
    agent_.reset();
  }
  std::string socket() const { return path("kubelet/plugins/local.collage.storage/csi.sock"); }

  std::string create(const std::string& name) {
    drivers::CreateRequest request;
    request.name = name;
    request.required_bytes = 64 << 20;
    for (const auto mode : {drivers::VolumeMode::kFilesystem, drivers::VolumeMode::kBlock}) {
      request.capabilities.push_back({.mode = mode});
    }
    request.requisite = {{{"local.collage.storage/node", "node-a"}}};
    const auto made = agent_->carry_out({}, "disk", drivers::Verb::kCreate, drivers::to_json(request));
    EXPECT_TRUE(made.ok()) << made.status();
    return made.ok() ? "disk/" + base::get_string(*made, "/id") : "";
  }
  static void fill(VolumeCapability& capability, bool block) {
    if (block) {
      capability.mutable_block();
    } else {
      capability.mutable_mount()->set_fs_type("ext4");
    }
    capability.mutable_access_mode()->set_mode(VolumeCapability::AccessMode::SINGLE_NODE_MULTI_WRITER);
  }
  grpc::Status stage(const std::string& volume, bool block) {
    NodeStageVolumeRequest request;
    request.set_volume_id(volume);
    request.set_staging_target_path(staging_);
    fill(*request.mutable_volume_capability(), block);
    NodeStageVolumeResponse response;
    grpc::ClientContext context;
    return stub_->NodeStageVolume(&context, request, &response);
  }
  grpc::Status publish(const std::string& volume, const std::string& target, bool block) {
    NodePublishVolumeRequest request;
    request.set_volume_id(volume);
    request.set_staging_target_path(staging_);
    request.set_target_path(target);
    fill(*request.mutable_volume_capability(), block);
    NodePublishVolumeResponse response;
    grpc::ClientContext context;
    return stub_->NodePublishVolume(&context, request, &response);
  }
  grpc::Status unpublish(const std::string& volume, const std::string& target) {
    NodeUnpublishVolumeRequest request;
    request.set_volume_id(volume);
    request.set_target_path(target);
    NodeUnpublishVolumeResponse response;
    grpc::ClientContext context;
    return stub_->NodeUnpublishVolume(&context, request, &response);
  }
  grpc::Status unstage(const std::string& volume) {
    NodeUnstageVolumeRequest request;
    request.set_volume_id(volume);
    request.set_staging_target_path(staging_);
    NodeUnstageVolumeResponse response;
    grpc::ClientContext context;
    return stub_->NodeUnstageVolume(&context, request, &response);
  }
  static void ok(const grpc::Status& status) { EXPECT_TRUE(status.ok()) << status.error_message(); }

  std::unique_ptr<node::Agent> agent_;
  std::unique_ptr<NodeServer> server_;
  std::unique_ptr<Node::Stub> stub_;
  std::string staging_;
};

TEST_F(WholeNode, AFileSystemVolumeIsUsedAndFollowsThroughARestart) {
  const std::string volume = create("pvc-1"), target = path("pods/mount");
  for (int i = 0; i < 2; ++i) {
    ok(stage(volume, false));
    ok(publish(volume, target, false));
  }
  EXPECT_EQ(mounts_at(staging_), 1);
  EXPECT_EQ(mounts_at(target), 1);
  std::ofstream(target + "/data") << "kept";
  stop();
  EXPECT_EQ(mounts_at(target), 1) << "a pod keeps its volume while the agent is away";
  start();
  ok(publish(volume, target, false));
  EXPECT_EQ(mounts_at(target), 1);
  NodeGetVolumeStatsRequest request;
  request.set_volume_id(volume);
  request.set_volume_path(target);
  NodeGetVolumeStatsResponse stats;
  grpc::ClientContext context;
  ok(stub_->NodeGetVolumeStats(&context, request, &stats));
  ASSERT_EQ(stats.usage_size(), 2);
  EXPECT_LE(stats.usage(0).total(), 64 << 20);
  EXPECT_FALSE(stats.volume_condition().abnormal());
  for (int i = 0; i < 2; ++i) {
    ok(unpublish(volume, target));
    ok(unstage(volume));
  }
  EXPECT_EQ(mounts_at(staging_), 0);
  EXPECT_TRUE(loops().empty());
  ok(stage(volume, false));
  EXPECT_EQ(read_at(staging_ + "/data", 0, 4), "kept");
}

TEST_F(WholeNode, ARawBlockVolumeIsUsed) {
  const std::string volume = create("pvc-2"), target = path("pods/device");
  ok(stage(volume, true));
  ok(publish(volume, target, true));
  ASSERT_TRUE(std::filesystem::is_block_file(target));
  write_at(target, 12345, "raw");
  EXPECT_EQ(unstage(volume).error_code(), grpc::FAILED_PRECONDITION);
  ok(unpublish(volume, target));
  EXPECT_FALSE(std::filesystem::exists(target));
  ok(unstage(volume));
  EXPECT_TRUE(loops().empty());
  ok(stage(volume, true));
  ok(publish(volume, target, true));
  EXPECT_EQ(read_at(target, 12345, 3), "raw");
  // What holds data is not formatted for whoever asks for a file system next.
  ok(unpublish(volume, target));
  ok(unstage(volume));
  const grpc::Status refused = stage(volume, false);
  EXPECT_EQ(refused.error_code(), grpc::FAILED_PRECONDITION);
  EXPECT_THAT(refused.error_message(), ::testing::HasSubstr("is not blank"));
  EXPECT_TRUE(loops().empty());
}

TEST_F(WholeNode, AShareThatDoesNotAnswerHoldsUpItsOwnBackendAlone) {
  const auto block = [](const std::string& directory) {
    return std::make_shared<const Json>(Json{{"directory", directory}});
  };
  testing::DeadShare share(make_directory("share"));
  agent_->set_backends(
      {{"dead", "image", block(path("share")), ""}, {"disk", "local", block(path("storage")), ""}});
  const auto begun = std::chrono::steady_clock::now();
  // Asked before the probe gave up: it waits no longer than it may.
  const auto late = agent_->carry_out(base::Context().with_timeout(std::chrono::milliseconds(300)), "dead",
                                      drivers::Verb::kRemove, {{"id", "pvc-1"}});
  EXPECT_EQ(late.status().code(), absl::StatusCode::kUnavailable) << late.status();
  const auto next = agent_->carry_out({}, "dead", drivers::Verb::kFind, {{"name", "pvc-2"}});
  EXPECT_EQ(next.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(next.status().message()), ::testing::HasSubstr("backend dead on node node-a"));
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(8)) << "at once, or nearly";
  ASSERT_TRUE(testing::CsiFixture::eventually([&] {
    const auto backends = agent_->status().backends;
    return backends.size() == 2 && !backends[0].ready && backends[1].ready;
  }));
  // The other goes on.
  const std::string volume = create("pvc-1");
  ok(stage(volume, false));
  ok(publish(volume, path("pods/1"), false));
  ok(unpublish(volume, path("pods/1")));
  ok(unstage(volume));
  stop();  // with a call that hangs in the kernel
  share.end();
}

TEST_F(WholeNode, AMountThatSomebodyUndoesIsMadeAgain) {
  const std::string volume = create("pvc-1");
  ok(stage(volume, false));
  ok(publish(volume, path("pods/1"), false));
  std::ofstream(path("pods/1/data")) << "kept";
  ASSERT_EQ(umount2(path("pods/1").c_str(), MNT_DETACH), 0);
  ASSERT_EQ(umount2(staging_.c_str(), MNT_DETACH), 0);
  ASSERT_TRUE(testing::CsiFixture::eventually([&] { return agent_->status().mounts_healed == 2; }));
  EXPECT_EQ(mounts_at(path("pods/1")), 1);
  EXPECT_EQ(mounts_at(staging_), 1);
  std::ifstream file(path("pods/1/data"));
  std::string word;
  file >> word;
  file.close();
  EXPECT_EQ(word, "kept");
  ok(unpublish(volume, path("pods/1")));
  ok(unstage(volume));
  EXPECT_EQ(agent_->status().mounts_healed, 2);
  EXPECT_EQ(mounts_at(staging_), 0);
  EXPECT_TRUE(loops().empty());
}

}  // namespace
}  // namespace collage::csi
