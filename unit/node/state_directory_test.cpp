// The agent's state directory on file systems of the real kernel: full, read-only, in use.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/metrics.h"
#include "drivers/codec.h"
#include "drivers/registry.h"
#include "operator/node/agent.h"
#include "operator/node/journal.h"
#include "unit/mount/kernel_sandbox.h"

namespace collage::node {
namespace {

using base::Json;
using ::testing::AllOf;
using ::testing::HasSubstr;

class StateDirectory : public testing::KernelSandbox {
 protected:
  void SetUp() override {
    make_directory("storage");
    make_directory("pods");
    make_directory("staging");
    state_ = make_directory("state");
  }
  void TearDown() override {
    agent_.reset();
    KernelSandbox::TearDown();
  }
  AgentOptions options() const {
    return {.node_name = "node-a",
            .state_directory = state_,
            .mount_helper = testing::kMountHelper,
            .kinds = &drivers::kinds()};
  }
  void start() {
    agent_.reset();
    auto agent = make_agent(options());
    ASSERT_TRUE(agent.ok()) << agent.status();
    agent_ = *std::move(agent);
    const absl::Status recovered = agent_->recover({});
    ASSERT_TRUE(recovered.ok()) << recovered;
  }
  void use_backend() {
    agent_->set_backends(
        {{"disk", "local", std::make_shared<const Json>(Json{{"directory", path("storage")}}), ""}});
    for (int i = 0; i < 2000 && !agent_->status().backends.front().ready; ++i) usleep(5000);
    ASSERT_TRUE(agent_->status().backends.front().ready) << agent_->status().backends.front().message;
  }
  std::string create(const std::string& name) {
    drivers::CreateRequest request;
    request.name = name;
    request.required_bytes = 32 << 20;
    request.capabilities = {{.access_mode = drivers::AccessMode::kSingleNodeMultiWriter}};
    request.parameters = {{"allocation", "sparse"}};
    const auto made = agent_->carry_out({}, "disk", drivers::Verb::kCreate, drivers::to_json(request));
    EXPECT_TRUE(made.ok()) << made.status();
    return made.ok() ? "disk/" + base::get_string(*made, "/id") : "";
  }
  absl::Status stage(const std::string& volume, const std::string& staging) {
    StageRequest request;
    request.handle = volume;
    request.staging_path = staging;
    request.capability.access_mode = drivers::AccessMode::kSingleNodeMultiWriter;
    return agent_->stage({}, request);
  }
  absl::Status publish(const std::string& volume, const std::string& target) {
    PublishRequest request;
    request.handle = volume;
    request.staging_path = path("staging");
    request.target_path = target;
    request.capability.access_mode = drivers::AccessMode::kSingleNodeMultiWriter;
    return agent_->publish({}, request);
  }
  // As full as it gets.
  void fill(const std::string& directory) {
    std::ofstream filler(directory + "/filler");
    const std::string block(1024, 'x');
    while (filler.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
    }
  }

  std::string state_;
  std::unique_ptr<Agent> agent_;
};

TEST_F(StateDirectory, AFullOneRefusesTheWayForwardAndNotTheWayBack) {
  ASSERT_EQ(::mount("none", state_.c_str(), "tmpfs", 0, "size=256k"), 0);
  start();
  use_backend();
  const std::string first = create("pvc-1"), second = create("pvc-2");
  ASSERT_TRUE(stage(first, path("staging")).ok());
  ASSERT_TRUE(publish(first, path("pods/1")).ok());
  fill(state_);
  for (const absl::Status& refused :
       {stage(second, make_directory("staging-2")), publish(first, path("pods/2"))}) {
    EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable) << "never final: there may be room again";
    EXPECT_THAT(std::string(refused.message()),
                AllOf(HasSubstr("make room below " + state_), HasSubstr("No space left")));
  }
  EXPECT_EQ(mounts_at(path("pods/2")), 0);
  EXPECT_EQ(loops().size(), 1u);
  // A new agent too.
  start();
  EXPECT_TRUE(agent_->unpublish({}, first, path("pods/1")).ok());
  EXPECT_TRUE(agent_->unstage({}, first, path("staging")).ok());
  EXPECT_EQ(mounts_at(path("staging")), 0);
  EXPECT_TRUE(loops().empty());
  // Room again.
  std::filesystem::remove(state_ + "/filler");
  use_backend();
  EXPECT_TRUE(stage(second, path("staging-2")).ok());
}

TEST_F(StateDirectory, AReadOnlyOneRefusesTheWayForwardAndNotTheWayBack) {
  ASSERT_EQ(::mount("none", state_.c_str(), "tmpfs", 0, "size=1m"), 0);
  start();
  use_backend();
  const std::string volume = create("pvc-1");
  ASSERT_TRUE(stage(volume, path("staging")).ok());
  ASSERT_TRUE(publish(volume, path("pods/1")).ok());
  // With a file that nobody can read, and nobody can set aside.
  std::ofstream(state_ + "/volumes/garbage.json") << "{";
  agent_.reset();
  ASSERT_EQ(::mount("none", state_.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr), 0);
  start();
  use_backend();
  const absl::Status refused = publish(volume, path("pods/2"));
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(refused.message()), AllOf(HasSubstr(state_), HasSubstr("read-only")));
  EXPECT_TRUE(agent_->unpublish({}, volume, path("pods/1")).ok());
  EXPECT_TRUE(agent_->unstage({}, volume, path("staging")).ok());
  EXPECT_EQ(mounts_at(path("staging")), 0);
  EXPECT_TRUE(loops().empty());
}

TEST_F(StateDirectory, OneThatCannotBeMadeIsNamedWithTheRemedy) {
  std::ofstream(path("file")) << "";
  state_ = path("file/state");
  const auto refused = make_agent(options());
  EXPECT_FALSE(refused.ok());
  EXPECT_THAT(std::string(refused.status().message()),
              AllOf(HasSubstr("the state directory " + state_), HasSubstr("--state-directory")));
  ASSERT_EQ(::mount("none", path("pods").c_str(), "tmpfs", MS_RDONLY, nullptr), 0);
  state_ = path("pods/state");
  EXPECT_THAT(std::string(make_agent(options()).status().message()),
              AllOf(HasSubstr(state_), HasSubstr("Read-only file system")));
}

TEST_F(StateDirectory, IsOneAgentsAlone) {
  start();
  const auto second = make_agent(options());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()),
              AllOf(HasSubstr("the state directory " + state_ + " is in use by another agent"),
                    HasSubstr("pid " + std::to_string(getpid()))));
  agent_.reset();
  EXPECT_TRUE(make_agent(options()).ok());
}

TEST_F(StateDirectory, WhatIsDamagedOrNewerIsSetAsideCountedAndHarmsNobody) {
  start();
  use_backend();
  const std::string good = create("pvc-1");
  ASSERT_TRUE(stage(good, path("staging")).ok());
  agent_.reset();
  const std::string volumes = state_ + "/volumes/";
  const std::string text = *base::read_file(Journal(state_ + "/volumes").path_of(good));
  std::ofstream(volumes + "disk%2Fempty.json") << "";
  std::ofstream(volumes + "disk%2Fcut.json") << text.substr(0, text.size() / 2);
  std::ofstream(volumes + "disk%2Fgarbage.json") << std::string(64, '\0') + "\xff\xfe";
  std::ofstream(volumes + "disk%2Fnewer.json") << R"({"version": 999, "handle": "disk/newer"})";
  mkdir((volumes + "disk%2Fdirectory.json").c_str(), 0700);
  const base::Counter counter("collage_node_journal_set_aside_total", "");
  const double before = counter.value();
  start();
  EXPECT_EQ(counter.value(), before + 5);
  for (const char* aside : {"empty.json.corrupt", "cut.json.corrupt", "garbage.json.corrupt",
                            "newer.json.newer", "directory.json.corrupt"}) {
    EXPECT_TRUE(base::exists(volumes + "disk%2F" + aside)) << aside;
  }
  EXPECT_EQ(agent_->status().mounts_held, 1);
  EXPECT_EQ(mounts_at(path("staging")), 1);
  EXPECT_TRUE(agent_->unstage({}, good, path("staging")).ok());
}

}  // namespace
}  // namespace collage::node
