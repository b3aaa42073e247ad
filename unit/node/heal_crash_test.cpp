// Mounts go away under pods, and the agent is killed at every single instant of making them again: each pod's
// path shows its volume or is told, whoever lost it is told in any case, nothing is mounted twice, what
// others mounted stays, and the way on and the way back are open.
#include "unit/node/crashing_node.h"

namespace collage::node {
namespace {

using drivers::VolumeMode;
using testing::CrashingNode;

constexpr char kKept[] = "/kubelet/pods/1/mount";      // of a pod whose mount stays, unless all goes
constexpr char kLost[] = "/kubelet/pods/2/mount";      // of a pod whose mount goes
constexpr char kReplaced[] = "/kubelet/pods/3/mount";  // somebody mounted something else there
constexpr char kNew[] = "/kubelet/pods/4/mount";       // of a pod that comes later
constexpr char kOtherImage[] = "/images/other/image.0";

enum class Gone { kPath, kAll, kAllAndDevice };
enum class Healer { kAgent, kNextPod };  // unasked; the agent was not there when it happened, a pod's publish
struct Script {
  VolumeMode mode;
  Gone gone;
  Healer healer;
  bool reboot;
  std::string name() const {
    return std::string(mode == VolumeMode::kBlock ? "Block" : "Filesystem") +
           (gone == Gone::kPath  ? "Path"
            : gone == Gone::kAll ? "All"
                                 : "AllAndDevice") +
           (healer == Healer::kAgent ? "ByTheAgent" : "ByAPublish") + (reboot ? "Rebooted" : "");
  }
};

std::vector<Script> scripts() {
  std::vector<Script> scripts;
  for (const VolumeMode mode : {VolumeMode::kFilesystem, VolumeMode::kBlock}) {
    for (const Gone gone : {Gone::kPath, Gone::kAll, Gone::kAllAndDevice}) {
      for (const Healer healer : {Healer::kAgent, Healer::kNextPod}) {
        // A publish makes only the staging again.
        if (healer == Healer::kNextPod && gone == Gone::kPath) continue;
        for (const bool reboot : {false, true}) scripts.push_back({mode, gone, healer, reboot});
      }
    }
  }
  return scripts;
}

class HealCrash : public CrashingNode, public ::testing::WithParamInterface<Script> {
 protected:
  bool is_lost(const std::string& path) const {
    return path == kLost || (path == kKept && GetParam().gone != Gone::kPath);
  }
  const AbnormalMount* told(const NodeStatus& status, const std::string& path) const {
    for (const AbnormalMount& mount : status.abnormal) {
      if (mount.path == path) return &mount;
    }
    return nullptr;
  }
  bool all_healed(const NodeStatus& status) const {
    for (const char* path : {kKept, kLost}) {
      const AbnormalMount* mount = told(status, path);
      if (is_lost(path) && (mount == nullptr || !mount->healed)) return false;
    }
    return true;
  }
  // Does a container that starts now find the volume there?
  bool shows_the_volume(const std::string& path) const {
    const mount::MountTable table = kernel.table();
    const mount::MountEntry* entry = table.at(path);
    if (entry == nullptr) return false;
    return table.backs(capability.mode == VolumeMode::kBlock ? "/dev" + entry->root : entry->source, kImage);
  }

  void set_up() {
    kernel.unmount_behind_the_back(kReplaced);
    kernel.detach_behind_the_back(kOtherImage);
    start_again(true);
    ASSERT_TRUE(stage().ok());
    for (const char* path : {kKept, kLost, kReplaced}) ASSERT_TRUE(publish(path).ok());
    kernel.replace_behind_the_back(kReplaced);
    ASSERT_TRUE(wait_status([&](const NodeStatus& status) { return told(status, kReplaced) != nullptr; }));
  }
  void lose() {
    testing::FakeKernel::Loss loss{{kLost}, "", ""};
    if (GetParam().gone != Gone::kPath) loss.paths.insert(loss.paths.end(), {kKept, staging});
    if (GetParam().gone == Gone::kAllAndDevice) {
      loss.image = kImage;
      loss.other = kOtherImage;
    }
    kernel.lose(loss);
  }
  // Until it is done or the agent is killed there.
  void heal_until(int point) {
    if (GetParam().healer == Healer::kAgent) {
      crash_at(point);
      lose();
      EXPECT_TRUE(
          wait_status([&](const NodeStatus& status) { return came_to(point) || all_healed(status); }));
      return;
    }
    agent.reset();
    lose();
    start_again(true);
    crash_at(point);
    const absl::Status published = publish(kNew);
    EXPECT_TRUE(published.ok() || came_to(point)) << published;
  }

  void nothing_is_double_or_forgotten() {
    const std::vector<std::string> mounted = kernel.mounted();
    const std::set<std::string> once(mounted.begin(), mounted.end());
    EXPECT_EQ(once.size(), mounted.size()) << "something is mounted twice";
    EXPECT_EQ(journal_files().size(), 1u) << "nobody knows of what is there, or a file was set aside";
    const NodeStatus status = agent->status();
    for (const std::string path : {kKept, kLost, kReplaced}) {
      SCOPED_TRACE(path);
      const AbnormalMount* mount = told(status, path);
      if (mount == nullptr || mount->healed) {
        EXPECT_TRUE(shows_the_volume(path)) << "and nobody is told";
      }
      if (is_lost(path)) {
        EXPECT_NE(mount, nullptr) << "a container that lost it is not told";
      }
    }
    const AbnormalMount* stage = told(status, staging);
    EXPECT_TRUE(stage == nullptr || stage->reason == kMountLost) << "our own mount is taken for another's";
    ASSERT_NE(kernel.table().at(kReplaced), nullptr);
    EXPECT_EQ(kernel.table().at(kReplaced)->fs_type, "tmpfs") << "somebody else's mount was touched";
    const std::vector<std::string> images = kernel.attached();
    EXPECT_EQ(std::count(images.begin(), images.end(), kOtherImage),
              GetParam().gone == Gone::kAllAndDevice ? 1 : 0)
        << "somebody else's device was touched";
  }

  // As its pods are made anew, and then go.
  void the_ways_are_open() {
    if (GetParam().reboot) {
      ASSERT_TRUE(stage().ok());
    }
    for (const std::string path : {kKept, kLost, kReplaced, kNew}) {
      SCOPED_TRACE(path);
      EXPECT_TRUE(unpublish(path).ok());
      const absl::Status published = publish(path);
      ASSERT_TRUE(published.ok()) << published;
      EXPECT_TRUE(shows_the_volume(path));
    }
    EXPECT_TRUE(wait_status([](const NodeStatus& status) { return status.abnormal.empty(); }));
    for (const std::string path : {kKept, kLost, kReplaced, kNew}) EXPECT_TRUE(unpublish(path).ok());
    const absl::Status unstaged = unstage();
    EXPECT_TRUE(unstaged.ok()) << unstaged;
    EXPECT_THAT(kernel.mounted(), ::testing::IsEmpty());
    const std::vector<std::string> images = kernel.attached();
    EXPECT_EQ(std::count(images.begin(), images.end(), kImage), 0) << "its device stays";
    EXPECT_THAT(journal_files(), ::testing::IsEmpty());
  }
};

TEST_P(HealCrash, AtEveryInstant) {
  capability.mode = GetParam().mode;
  int crashes = 0;
  for (bool crashed = true; crashed; ++crashes) {
    const int point = crashes + 1;
    SCOPED_TRACE("point " + std::to_string(point));
    set_up();
    ASSERT_FALSE(HasFailure());
    heal_until(point);
    agent.reset();
    crashed = came_to(point);
    if (GetParam().reboot) reboot();
    start_again(false);
    if (!GetParam().reboot) nothing_is_double_or_forgotten();
    set_backends();
    ASSERT_TRUE(wait_ready(true));
    the_ways_are_open();
    if (HasFailure()) return;
  }
  std::set<std::string> expected{"create",          "write",  "fsync", "rename",
                                 "fsync directory", "unlink", "bind",  "after"};
  if (GetParam().mode == VolumeMode::kFilesystem && GetParam().gone != Gone::kPath)
    expected.insert({"attach", "mount"});
  if (GetParam().gone == Gone::kAllAndDevice) expected.insert("attach");
  EXPECT_EQ(steps(), expected) << "a step is not cut any more, or a new one is not listed here";
  EXPECT_GT(crashes, 10);
}

INSTANTIATE_TEST_SUITE_P(All, HealCrash, ::testing::ValuesIn(scripts()),
                         [](const auto& info) { return info.param.name(); });

}  // namespace
}  // namespace collage::node
