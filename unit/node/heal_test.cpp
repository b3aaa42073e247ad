#include "unit/node/node_fixture.h"

namespace collage::node {
namespace {

using drivers::VolumeMode;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::StubProbe;

constexpr char kPod1[] = "/kubelet/pods/1/mount";
constexpr char kPod2[] = "/kubelet/pods/2/mount";

class Heal : public testing::NodeFixture {
 protected:
  void SetUp() override { restart(); }
  void restart() {
    start();
    ASSERT_TRUE(agent->recover({}).ok());
    set_backends();
    ASSERT_TRUE(wait_ready(true));
  }
  bool healed(int mounts) {
    return wait_status(
        [&](const NodeStatus& status) { return status.mounts_healed == mounts && status.mounts_stale == 0; });
  }
  // With one path at which something is wrong that is not healed.
  AbnormalMount wait_trouble() {
    const auto troubled = [](const AbnormalMount& mount) { return !mount.healed; };
    EXPECT_TRUE(wait_status([&](const NodeStatus& status) {
      return std::any_of(status.abnormal.begin(), status.abnormal.end(), troubled);
    }));
    for (const AbnormalMount& mount : agent->status().abnormal) {
      if (troubled(mount)) return mount;
    }
    return {};
  }
};

TEST_F(Heal, StagingAndTargetPathsAreMadeAgainAndThePodIsNamed) {
  ASSERT_TRUE(stage().ok());
  PublishRequest request = publish_request(kPod1);
  request.pod = {"team", "web-0", "uid-1"};
  ASSERT_TRUE(agent->publish({}, request).ok());
  ASSERT_TRUE(publish(kPod2, true).ok());
  EXPECT_THAT(agent->status().abnormal, IsEmpty());
  kernel.unmount_behind_the_back(kPod1);
  kernel.unmount_behind_the_back(staging);
  ASSERT_TRUE(healed(2));
  EXPECT_THAT(kernel.mounted(), ElementsAre(staging, kPod1, kPod2));
  EXPECT_EQ(kernel.table().at(kPod1)->device, kernel.table().at(staging)->device);
  // Whoever looked meanwhile must still be told, after a restart too, until the pod is gone.
  restart();
  const std::vector<AbnormalMount> abnormal = agent->status().abnormal;
  ASSERT_EQ(abnormal.size(), 1u);
  EXPECT_EQ(abnormal[0].volume, kVolume);
  EXPECT_EQ(abnormal[0].path, kPod1);
  EXPECT_EQ(abnormal[0].reason, "MountLost");
  EXPECT_TRUE(abnormal[0].healed);
  EXPECT_GT(abnormal[0].healed_at, base::Clock::Wall{});
  EXPECT_EQ(abnormal[0].pod, (PodRef{"team", "web-0", "uid-1"}));
  EXPECT_THAT(abnormal[0].message, HasSubstr("HostToContainer"));
  const auto stats = agent->stats({}, kVolume, kPod1);
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_TRUE(stats->abnormal);
  EXPECT_THAT(stats->message, HasSubstr("restart the pod"));
  EXPECT_FALSE(agent->stats({}, kVolume, kPod2)->abnormal);
  ASSERT_TRUE(unpublish(kPod1).ok());
  EXPECT_THAT(agent->status().abnormal, IsEmpty());
  ASSERT_TRUE(unpublish(kPod2).ok());
  ASSERT_TRUE(unstage().ok());
  EXPECT_THAT(kernel.mounted(), IsEmpty());
}

TEST_F(Heal, AMountThatIsLostWhileAnotherIsMadeAgainIsToldOnceItIsMadeAgainToo) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1).ok());
  ASSERT_TRUE(publish(kPod2).ok());
  int binds = 0;
  std::vector<AbnormalMount> told;
  kernel.on_step([&](const std::string& step) {
    if (step == "bind" && ++binds == 1) kernel.unmount_behind_the_back(kPod2);
    if (step == "bind" && binds == 2) told = agent->status().abnormal;
    return absl::OkStatus();
  });
  kernel.unmount_behind_the_back(kPod1);
  ASSERT_TRUE(healed(2));
  kernel.on_step({});
  EXPECT_EQ(binds, 2);
  ASSERT_FALSE(told.empty());
  EXPECT_THAT(told, Each(Field(&AbnormalMount::healed, true))) << told.back().message;
  EXPECT_THAT(kernel.mounted(), ElementsAre(staging, kPod1, kPod2));
}

TEST_F(Heal, AReadOnlyPublicationIsMadeAgainReadOnly) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1, true).ok());
  kernel.unmount_behind_the_back(kPod1);
  ASSERT_TRUE(healed(1));
  EXPECT_TRUE(kernel.table().at(kPod1)->read_only);
}

TEST_F(Heal, NothingIsMountedThatAnotherNodeMayHold) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1).ok());
  StubProbe::instance().hold("v1", "node-b");
  kernel.unmount_behind_the_back(kPod1);
  EXPECT_THAT(wait_trouble().message,
              AllOf(HasSubstr(kPod1), HasSubstr("is not attached to node node-a any more, but to node-b")));
  EXPECT_THAT(kernel.mounted(), ElementsAre(staging));
  // It is ours again.
  StubProbe::instance().hold("v1", "node-a");
  ASSERT_TRUE(healed(1));
  EXPECT_THAT(kernel.mounted(), ElementsAre(staging, kPod1));
}

TEST_F(Heal, NothingIsMountedWhileTheStorageDoesNotAnswer) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1).ok());
  StubProbe::instance().answer(absl::UnavailableError("the share is away"));
  ASSERT_TRUE(wait_ready(false));
  kernel.unmount_behind_the_back(kPod1);
  EXPECT_THAT(wait_trouble().message, HasSubstr("the share is away"));
  EXPECT_THAT(kernel.mounted(), ElementsAre(staging));
  StubProbe::instance().answer(absl::OkStatus());
  ASSERT_TRUE(healed(1));
}

TEST_F(Heal, AForeignMountIsLeftAloneAndTold) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1).ok());
  kernel.mount_foreign(kPod1);
  const AbnormalMount trouble = wait_trouble();
  EXPECT_EQ(trouble.reason, "MountReplaced");
  EXPECT_THAT(trouble.message, HasSubstr(kPod1));
  EXPECT_THAT(kernel.mounted(), ElementsAre(staging, kPod1, kPod1));
}

TEST_F(Heal, AVanishedDeviceOfARawBlockVolumeIsToldAndFoundAgain) {
  capability.mode = VolumeMode::kBlock;
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1).ok());
  kernel.detach_behind_the_back(testing::NodeFixture::kImage);
  kernel.attach_foreign("/images/other/image.0", 0);
  const AbnormalMount trouble = wait_trouble();
  EXPECT_EQ(trouble.path, kPod1) << "the pod's path shows a device that is another's now";
  EXPECT_EQ(trouble.reason, "MountLost");
  ASSERT_TRUE(publish(kPod2).code() == absl::StatusCode::kOk);
  EXPECT_EQ(kernel.table().at(kPod2)->root, "/loop1");
  ASSERT_TRUE(unpublish(kPod1).ok());
  ASSERT_TRUE(unpublish(kPod2).ok());
  ASSERT_TRUE(unstage().ok());
  EXPECT_THAT(kernel.attached(), ElementsAre("/images/other/image.0"));
}

TEST_F(Heal, AFileSystemThatWentReadOnlyIsToldBeforeAnybodyAsks) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1).ok());
  kernel.make_super_read_only(kPod1);
  EXPECT_EQ(wait_trouble().reason, "ReadOnly");
}

TEST_F(Heal, AHungPathIsToldUntilItAnswersAgain) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1).ok());
  kernel.on_step([](const std::string& step) {
    return step == "inspect" ? absl::DeadlineExceededError("it hangs") : absl::OkStatus();
  });
  EXPECT_TRUE(agent->stats({}, kVolume, kPod1)->abnormal);
  EXPECT_EQ(wait_trouble().reason, "NotResponding");
  kernel.on_step({});
  EXPECT_FALSE(agent->stats({}, kVolume, kPod1)->abnormal);
  EXPECT_THAT(agent->status().abnormal, IsEmpty());
  EXPECT_EQ(kernel.calls("mount") + kernel.calls("bind"), 2) << "a server that returns needs no healing";
}

TEST_F(Heal, HealingGoesOnWithAFullDisk) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(publish(kPod1).ok());
  journal_hook = [](const std::string&) { return absl::ResourceExhaustedError("no space left on device"); };
  kernel.unmount_behind_the_back(kPod1);
  ASSERT_TRUE(healed(1));
}

TEST_F(Heal, WhatIsToldIsBounded) {
  ASSERT_TRUE(stage().ok());
  for (size_t i = 0; i < NodeStatus::kMostAbnormal + 5; ++i) {
    const std::string target = "/kubelet/pods/x" + std::to_string(i) + "/mount";
    ASSERT_TRUE(publish(target).ok());
    kernel.unmount_behind_the_back(target);
  }
  EXPECT_TRUE(healed(static_cast<int>(NodeStatus::kMostAbnormal) + 5));
  EXPECT_TRUE(wait_status(
      [](const NodeStatus& status) { return status.abnormal.size() == NodeStatus::kMostAbnormal; }));
  restart();
  EXPECT_EQ(agent->status().abnormal.size(), NodeStatus::kMostAbnormal);
}

}  // namespace
}  // namespace collage::node
