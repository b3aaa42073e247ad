// "Have you got this volume?": a no lets another node have it.
#include <nlohmann/json.hpp>

#include "base/random.h"
#include "unit/node/node_fixture.h"

namespace collage::node {
namespace {

using base::Json;

struct Holds : testing::NodeFixture {
  void SetUp() override { restart(); }
  void restart() {
    start();
    set_backends();
    ASSERT_TRUE(wait_ready(true));
    ASSERT_TRUE(agent->recover({}).ok());
  }
  absl::StatusOr<Json> ask(const std::string& id = "v1") {
    return agent->carry_out(base::Context().with_timeout(std::chrono::seconds(10)), "fast",
                            drivers::Verb::kHolds, {{"id", id}});
  }
  // Where; "" when it does not hold it.
  std::string where(const std::string& id = "v1") {
    const auto answer = ask(id);
    EXPECT_TRUE(answer.ok()) << answer.status();
    if (!answer.ok()) return "no answer";
    EXPECT_EQ(base::get_bool(*answer, "/held"), !base::get_string(*answer, "/where").empty());
    EXPECT_EQ(base::get_string(*answer, "/bootID"), boot_id);
    return base::get_string(*answer, "/where");
  }
  void lose_journal() {
    for (const std::string& file : journal_files()) {
      ASSERT_EQ(std::remove((directory / ("volumes/" + file)).c_str()), 0);
    }
  }
};

TEST_F(Holds, FromStageToUnstage) {
  EXPECT_EQ(where(), "");
  ASSERT_TRUE(stage().ok());
  EXPECT_EQ(where(), staging);
  EXPECT_EQ(where("v2"), "");
  ASSERT_TRUE(publish("/pods/1").ok());
  EXPECT_EQ(where(), staging);
  ASSERT_TRUE(unpublish("/pods/1").ok());
  EXPECT_EQ(where(), staging);
  ASSERT_TRUE(unstage().ok());
  EXPECT_EQ(where(), "");
}

TEST_F(Holds, AfterARestartOfTheAgentStill) {
  ASSERT_TRUE(stage().ok());
  restart();
  EXPECT_EQ(where(), staging);
}

TEST_F(Holds, NothingAfterAReboot) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish("/pods/1").ok());
  kernel.reboot();
  boot_id = "boot-2";
  restart();
  EXPECT_EQ(where(), "");
}

TEST_F(Holds, AStageThatIsNotDoneIsHeld) {
  kernel.on_step([](const std::string& step) {
    return step == "mount" ? absl::UnavailableError("later") : absl::OkStatus();
  });
  ASSERT_FALSE(stage().ok());
  EXPECT_EQ(where(), staging);
}

TEST_F(Holds, WithoutAJournalTheMountTells) {
  staging =
      "/kubelet/plugins/kubernetes.io/csi/stub.collage.storage/" + base::sha256_hex(kVolume) + "/globalmount";
  ASSERT_TRUE(stage().ok());
  lose_journal();
  restart();
  EXPECT_EQ(where(), staging);
}

TEST_F(Holds, WithoutAJournalTheLoopDeviceOfARawBlockVolumeTells) {
  capability.mode = drivers::VolumeMode::kBlock;
  ASSERT_TRUE(stage().ok());
  lose_journal();
  restart();
  EXPECT_EQ(where(), "/dev/loop0");
}

// Nothing is known of a volume before the journal is read.
TEST_F(Holds, NoAnswerBeforeRecovery) {
  AgentParts parts{.mounter = std::make_unique<testing::FakeMounter>(kernel), .boot_id = boot_id};
  AgentImpl fresh(
      {.node_name = "node-a", .state_directory = directory / "other", .kinds = &testing::stub_kinds()},
      std::move(parts));
  EXPECT_TRUE(
      absl::IsUnavailable(fresh.carry_out({}, "fast", drivers::Verb::kHolds, {{"id", "v1"}}).status()));
}

TEST_F(Holds, NeedsNoBackendButAnId) {
  set_backends(false);
  ASSERT_TRUE(ask().ok());
  EXPECT_TRUE(
      absl::IsInvalidArgument(agent->carry_out({}, "fast", drivers::Verb::kHolds, Json::object()).status()));
}

}  // namespace
}  // namespace collage::node
