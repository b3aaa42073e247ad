#include "operator/node/recovery.h"

#include <gtest/gtest.h>

namespace collage::node {
namespace {

TEST(Recovery, DecidesEveryCombinationOfAStage) {
  using S = StageState;
  using D = StageDecision;
  struct Case {
    S state;
    Boot boot;
    Seen seen;
    D expected;
  };
  const Case cases[] = {
      {S::kStaging, Boot::kSame, Seen::kNothing, D::kRollBack},
      {S::kStaging, Boot::kSame, Seen::kOurs, D::kMarkStaged},
      {S::kStaging, Boot::kSame, Seen::kOther, D::kReportStale},
      {S::kStaging, Boot::kOther, Seen::kNothing, D::kForget},
      {S::kStaging, Boot::kOther, Seen::kOurs, D::kReportStale},
      {S::kStaging, Boot::kOther, Seen::kOther, D::kReportStale},
      {S::kStaged, Boot::kSame, Seen::kNothing, D::kReportStale},
      {S::kStaged, Boot::kSame, Seen::kOurs, D::kKeep},
      {S::kStaged, Boot::kSame, Seen::kOther, D::kReportStale},
      {S::kStaged, Boot::kOther, Seen::kNothing, D::kForget},
      {S::kStaged, Boot::kOther, Seen::kOurs, D::kReportStale},
      {S::kStaged, Boot::kOther, Seen::kOther, D::kReportStale},
      {S::kUnstaging, Boot::kSame, Seen::kNothing, D::kFinish},
      {S::kUnstaging, Boot::kSame, Seen::kOurs, D::kFinish},
      {S::kUnstaging, Boot::kSame, Seen::kOther, D::kReportStale},
      {S::kUnstaging, Boot::kOther, Seen::kNothing, D::kForget},
      {S::kUnstaging, Boot::kOther, Seen::kOurs, D::kReportStale},
      {S::kUnstaging, Boot::kOther, Seen::kOther, D::kReportStale},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(decide(c.state, c.boot, c.seen), c.expected)
        << static_cast<int>(c.state) << static_cast<int>(c.boot) << static_cast<int>(c.seen);
  }
}

TEST(Recovery, DecidesEveryCombinationOfAPublication) {
  using S = PublishState;
  using D = PublishDecision;
  struct Case {
    S state;
    Boot boot;
    Seen seen;
    D expected;
  };
  const Case cases[] = {
      {S::kPublishing, Boot::kSame, Seen::kNothing, D::kDrop},
      {S::kPublishing, Boot::kSame, Seen::kOurs, D::kMarkPublished},
      {S::kPublishing, Boot::kSame, Seen::kOther, D::kReportStale},
      {S::kPublishing, Boot::kOther, Seen::kNothing, D::kDrop},
      {S::kPublishing, Boot::kOther, Seen::kOurs, D::kReportStale},
      {S::kPublishing, Boot::kOther, Seen::kOther, D::kReportStale},
      {S::kPublished, Boot::kSame, Seen::kNothing, D::kReportStale},
      {S::kPublished, Boot::kSame, Seen::kOurs, D::kKeep},
      {S::kPublished, Boot::kSame, Seen::kOther, D::kReportStale},
      {S::kPublished, Boot::kOther, Seen::kNothing, D::kDrop},
      {S::kPublished, Boot::kOther, Seen::kOurs, D::kReportStale},
      {S::kPublished, Boot::kOther, Seen::kOther, D::kReportStale},
      {S::kUnpublishing, Boot::kSame, Seen::kNothing, D::kFinish},
      {S::kUnpublishing, Boot::kSame, Seen::kOurs, D::kFinish},
      {S::kUnpublishing, Boot::kSame, Seen::kOther, D::kReportStale},
      {S::kUnpublishing, Boot::kOther, Seen::kNothing, D::kDrop},
      {S::kUnpublishing, Boot::kOther, Seen::kOurs, D::kReportStale},
      {S::kUnpublishing, Boot::kOther, Seen::kOther, D::kReportStale},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(decide(c.state, c.boot, c.seen), c.expected)
        << static_cast<int>(c.state) << static_cast<int>(c.boot) << static_cast<int>(c.seen);
  }
}

VolumeRecord record() {
  VolumeRecord record;
  record.handle = "b/v";
  record.state = StageState::kStaged;
  record.staging_path = "/stage";
  record.reached = {"/dev/loop3", "7:3", 1, 2};
  return record;
}

mount::MountTable table(std::vector<mount::MountEntry> entries) {
  return mount::MountTable(std::move(entries));
}

TEST(Recovery, SeesWhetherAFileSystemIsOurs) {
  const VolumeRecord volume = record();
  EXPECT_EQ(staging_seen(volume, Boot::kSame, table({})), Seen::kNothing);
  EXPECT_EQ(staging_seen(volume, Boot::kSame, table({{"/stage", "/", "7:3", "ext4", "/dev/loop3"}})),
            Seen::kOurs);
  EXPECT_EQ(staging_seen(volume, Boot::kSame, table({{"/stage", "/", "7:4", "ext4", "/dev/loop4"}})),
            Seen::kOther);
  // What counts is the topmost: it is what a pod would get.
  EXPECT_EQ(staging_seen(volume, Boot::kSame,
                         table({{"/stage", "/", "7:3", "ext4", "x"}, {"/stage", "/", "0:9", "tmpfs", "x"}})),
            Seen::kOther);
  EXPECT_EQ(target_seen(volume, "/pod", table({{"/pod", "/", "7:3", "ext4", "/dev/loop3"}})), Seen::kOurs);
  EXPECT_EQ(target_seen(volume, "/pod", table({{"/pod", "/", "7:4", "ext4", "/dev/loop4"}})), Seen::kOther);
}

TEST(Recovery, SeesWhetherADeviceNodeIsOurs) {
  VolumeRecord volume = record();
  volume.mode = drivers::VolumeMode::kBlock;
  volume.access = drivers::LoopFile{"/srv/v/image.0"};
  const auto table = [](std::vector<mount::MountEntry> entries) {
    return mount::MountTable(std::move(entries), {{"/dev/loop3", "/elsewhere/v/image.0"}});
  };
  EXPECT_EQ(target_seen(volume, "/pod", table({{"/pod", "/loop3", "0:6", "devtmpfs", "udev"}})), Seen::kOurs);
  EXPECT_EQ(target_seen(volume, "/pod", table({{"/pod", "/loop33", "0:6", "devtmpfs", "udev"}})),
            Seen::kOther);
  EXPECT_EQ(staging_seen(volume, Boot::kSame, table({})), Seen::kOurs);
  EXPECT_EQ(staging_seen(volume, Boot::kOther, table({})), Seen::kNothing);
  EXPECT_EQ(target_seen(volume, "/pod", table({{"/pod", "/xloop3", "0:6", "devtmpfs", "udev"}})),
            Seen::kOther);
  // The device has another image now.
  const mount::MountTable reused({{"/pod", "/loop3", "0:6", "devtmpfs", "udev"}},
                                 {{"/dev/loop3", "/srv/w/image.0"}});
  EXPECT_EQ(staging_seen(volume, Boot::kSame, reused), Seen::kNothing);
  EXPECT_EQ(target_seen(volume, "/pod", reused), Seen::kOther);
}

}  // namespace
}  // namespace collage::node
