// Sockets and kubelet's registration.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "base/files.h"
#include "operator/csi/unix_server.h"
#include "unit/csi/csi_fixture.h"

namespace collage::csi {
namespace {

using ::testing::HasSubstr;

class RegistrationTest : public testing::CsiFixture {
 protected:
  static mode_t mode_of(const std::string& path) {
    struct stat node {};
    return lstat(path.c_str(), &node) == 0 ? node.st_mode & 07777 : 0;
  }
  static ino_t inode_of(const std::string& path) {
    struct stat node {};
    return lstat(path.c_str(), &node) == 0 ? node.st_ino : 0;
  }
  // When it was made: a file system may give a new file the number of one that has just gone.
  static int64_t made_at(const std::string& path) {
    struct stat status {};
    EXPECT_EQ(stat(path.c_str(), &status), 0) << path;
    return status.st_ctim.tv_sec * int64_t{1'000'000'000} + status.st_ctim.tv_nsec;
  }
  static base::UniqueFd listen_on(const std::string& path) {
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    base::UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    EXPECT_EQ(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(fd.get(), 5), 0);
    return fd;
  }
};

TEST_F(RegistrationTest, KubeletIsToldWhereTheCsiSocketIs) {
  start();
  grpc::ClientContext context;
  pluginregistration::PluginInfo info;
  ASSERT_TRUE(kubelet()->GetInfo(&context, {}, &info).ok());
  EXPECT_EQ(info.type(), "CSIPlugin");
  EXPECT_EQ(info.name(), "stub.collage.storage");
  EXPECT_EQ(info.endpoint(), csi_socket());
  ASSERT_EQ(info.supported_versions_size(), 1);
  EXPECT_EQ(info.supported_versions(0), "1.0.0");
  EXPECT_TRUE(server->ready().ok());
}

TEST_F(RegistrationTest, SocketsAreForRootAlone) {
  start();
  EXPECT_EQ(mode_of(csi_socket()), 0600u);
  EXPECT_EQ(mode_of(registration_socket()), 0600u);
  EXPECT_EQ(mode_of(directory / "plugins/stub.collage.storage"), 0700u);
}

TEST_F(RegistrationTest, ARegistrationIsNotedAndSurvivesAKubeletThatAsksAgain) {
  start();
  ASSERT_TRUE(notify(true).ok());
  EXPECT_TRUE(
      agent.wait_kind("stub", [](const auto& state) { return state.registered && state.message.empty(); }));
  ASSERT_TRUE(notify(true).ok());
  EXPECT_TRUE(agent.wait_kind("stub", [](const auto& state) { return state.registered; }));
}

TEST_F(RegistrationTest, ARefusedRegistrationIsToldAndTriedAgainWithANewSocket) {
  start();
  const int64_t before = made_at(registration_socket());
  const ino_t csi = inode_of(csi_socket());
  ASSERT_TRUE(notify(false, "version 9 is not liked").ok());
  EXPECT_TRUE(agent.wait_kind("stub", [](const auto& state) {
    return !state.registered && state.message == "kubelet refused it: version 9 is not liked";
  }));
  EXPECT_TRUE(wait_announced("stub"));
  EXPECT_GT(made_at(registration_socket()), before);
  EXPECT_EQ(inode_of(csi_socket()), csi) << "mounted volumes still need the CSI socket";
  ASSERT_TRUE(notify(true).ok());
  EXPECT_TRUE(agent.wait_kind("stub", [](const auto& state) { return state.registered; }));
}

TEST_F(RegistrationTest, KindsComeAndGo) {
  start({});
  EXPECT_TRUE(eventually([&] { return server->ready().ok(); }));
  EXPECT_FALSE(std::filesystem::exists(csi_socket()));
  agent.want({"stub"});
  ASSERT_TRUE(wait_announced("stub"));
  agent.want({"stub", "owned"});
  ASSERT_TRUE(wait_announced("owned"));
  EXPECT_TRUE(std::filesystem::exists(csi_socket()));
  agent.want({"owned"});
  EXPECT_TRUE(eventually([&] {
    return !std::filesystem::exists(csi_socket()) && !std::filesystem::exists(registration_socket());
  }));
  EXPECT_TRUE(std::filesystem::exists(registration_socket("owned")));
}

TEST_F(RegistrationTest, StopRemovesWhatItMade) {
  start();
  server->stop();
  EXPECT_FALSE(std::filesystem::exists(registration_socket()));
  EXPECT_FALSE(std::filesystem::exists(csi_socket()));
  server->stop();
}

TEST_F(RegistrationTest, SocketsThatAKilledProcessLeftAreReplaced) {
  { const base::UniqueFd left = listen_on(csi_socket()); }
  { const base::UniqueFd left = listen_on(registration_socket()); }
  start();
  ASSERT_TRUE(notify(true).ok());
}

TEST_F(RegistrationTest, ASocketInUseIsNeverStolen) {
  base::UniqueFd other = listen_on(csi_socket());
  const ino_t before = inode_of(csi_socket());
  agent.want({"stub", "owned"});
  server = std::make_unique<NodeServer>(agent, options());
  ASSERT_TRUE(server->start({}).ok());
  EXPECT_TRUE(agent.wait_kind("stub", [&](const auto& state) {
    return state.message.find(csi_socket() + " is in use") != std::string::npos &&
           state.message.find("stop it") != std::string::npos;
  }));
  EXPECT_EQ(inode_of(csi_socket()), before);
  EXPECT_FALSE(std::filesystem::exists(registration_socket())) << "kubelet must not be sent to a stranger";
  // The other kind is served, and nothing ended.
  ASSERT_TRUE(wait_announced("owned"));
  EXPECT_TRUE(
      eventually([&] { return server->ready().message().find("is in use") != absl::string_view::npos; }));
  other.reset();
  EXPECT_TRUE(wait_announced("stub"));
  EXPECT_TRUE(eventually([&] { return server->ready().ok(); }));
}

TEST_F(RegistrationTest, TwoAgentsOfOneStateDirectoryDoNotFight) {
  start();
  const ino_t before = inode_of(csi_socket());
  testing::FakeAgent second({"stub"});
  NodeServer rival(second, options());
  ASSERT_TRUE(rival.start({}).ok());
  EXPECT_TRUE(second.wait_kind("stub", [&](const auto& state) {
    return state.message.find(csi_socket()) != std::string::npos &&
           state.message.find("held by another process") != std::string::npos;
  }));
  EXPECT_EQ(inode_of(csi_socket()), before);
  ASSERT_TRUE(notify(true).ok());
  server->stop();
  EXPECT_TRUE(second.wait_kind(
      "stub", [](const auto& state) { return state.message == "kubelet has not answered yet"; }));
}

TEST_F(RegistrationTest, WhatIsNoSocketIsNotRemoved) {
  std::filesystem::create_directories(std::filesystem::path(csi_socket()).parent_path());
  std::ofstream(csi_socket()) << "precious";
  agent.want({"stub"});
  server = std::make_unique<NodeServer>(agent, options());
  ASSERT_TRUE(server->start({}).ok());
  EXPECT_TRUE(agent.wait_kind("stub", [&](const auto& state) {
    return state.message.find("not a socket") != std::string::npos &&
           state.message.find(csi_socket()) != std::string::npos;
  }));
  EXPECT_EQ(*base::read_file(csi_socket()), "precious");
}

TEST_F(RegistrationTest, APathThatIsTooLongIsSaidSo) {
  const auto server = UnixServer::start(directory / std::string(120, 'x'), 0700, directory / "lock", {});
  EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(server.status().message()), HasSubstr("longer than the kernel allows"));
}

TEST_F(RegistrationTest, BadOptionsAreRefused) {
  NodeServerOptions bad = options();
  bad.kubelet_directory = "relative";
  EXPECT_EQ(NodeServer(agent, bad).start({}).code(), absl::StatusCode::kInvalidArgument);
  bad = options();
  bad.node_name = "";
  EXPECT_EQ(NodeServer(agent, bad).start({}).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace collage::csi
