// The agent is killed at every single instant of every step, and started again: nothing is mounted twice,
// nothing is lost, and both ways on, again and back, lead where they should.
#include <set>

#include "unit/node/crashing_node.h"

namespace collage::node {
namespace {

using testing::CrashingNode;

constexpr char kTarget[] = "/kubelet/pods/1/mount";

enum class Then { kAgain, kBack };
struct Script {
  drivers::VolumeMode mode;
  Then then;
  bool reboot;
};

class Crash : public CrashingNode, public ::testing::WithParamInterface<Script> {
 protected:
  absl::Status life(int steps) {
    if (steps > 0) {
      const absl::Status status = stage();
      if (!status.ok()) return status;
    }
    if (steps > 1) {
      const absl::Status status = publish(kTarget);
      if (!status.ok()) return status;
    }
    if (steps > 2) {
      const absl::Status status = unpublish(kTarget);
      if (!status.ok()) return status;
    }
    return steps > 3 ? unstage() : absl::OkStatus();
  }

  void nothing_is_double_or_lost() {
    const std::vector<std::string> mounted = kernel.mounted();
    const std::set<std::string> once(mounted.begin(), mounted.end());
    EXPECT_EQ(once.size(), mounted.size()) << "something is mounted twice";
    if (!kernel.attached().empty() || !mounted.empty()) {
      EXPECT_EQ(journal_files().size(), 1u) << "nobody knows of what is there";
    }
  }
};

TEST_P(Crash, AtEveryInstant) {
  capability.mode = GetParam().mode;
  int crashes = 0;
  for (int point = 1;; ++point) {
    SCOPED_TRACE("point " + std::to_string(point));
    start_again(true);
    crash_at(point);
    const absl::Status whole = life(4);
    const bool crashed = came_to(point);
    if (!crashed) {
      ASSERT_TRUE(whole.ok()) << whole;
      break;
    }
    ++crashes;
    if (GetParam().reboot) reboot();
    start_again(false);
    nothing_is_double_or_lost();
    EXPECT_EQ(agent->status().mounts_stale, 0);
    // The backend may be gone by now; the way back must do without it.
    if (GetParam().then == Then::kAgain) {
      set_backends();
      ASSERT_TRUE(wait_ready(true));
      ASSERT_TRUE(life(2).ok());
      nothing_is_double_or_lost();
      EXPECT_EQ(kernel.attached(), std::vector<std::string>{kImage});
      EXPECT_EQ(kernel.mounted().size(), capability.mode == drivers::VolumeMode::kBlock ? 1u : 2u);
    }
    ASSERT_TRUE(unpublish(kTarget).ok());
    const absl::Status unstaged = unstage();
    ASSERT_TRUE(unstaged.ok()) << unstaged;
    EXPECT_TRUE(kernel.mounted().empty());
    EXPECT_TRUE(kernel.attached().empty());
    EXPECT_TRUE(journal_files().empty());
  }
  std::set<std::string> expected{"create",          "write",  "fsync",  "rename",
                                 "fsync directory", "unlink", "attach", "bind",
                                 "unmount",         "detach", "after"};
  if (capability.mode == drivers::VolumeMode::kFilesystem) expected.insert("mount");
  EXPECT_EQ(steps(), expected) << "a step is not cut any more, or a new one is not listed here";
  EXPECT_GT(crashes, 40);
}

INSTANTIATE_TEST_SUITE_P(All, Crash,
                         ::testing::Values(Script{drivers::VolumeMode::kFilesystem, Then::kAgain, false},
                                           Script{drivers::VolumeMode::kFilesystem, Then::kAgain, true},
                                           Script{drivers::VolumeMode::kFilesystem, Then::kBack, false},
                                           Script{drivers::VolumeMode::kFilesystem, Then::kBack, true},
                                           Script{drivers::VolumeMode::kBlock, Then::kAgain, false},
                                           Script{drivers::VolumeMode::kBlock, Then::kAgain, true},
                                           Script{drivers::VolumeMode::kBlock, Then::kBack, false},
                                           Script{drivers::VolumeMode::kBlock, Then::kBack, true}),
                         [](const auto& info) {
                           return std::string(info.param.mode == drivers::VolumeMode::kBlock ? "block"
                                                                                             : "filesystem") +
                                  (info.param.then == Then::kAgain ? "_again" : "_back") +
                                  (info.param.reboot ? "_reboot" : "");
                         });

}  // namespace
}  // namespace collage::node
