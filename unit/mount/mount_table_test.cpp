#include "operator/mount/mount_table.h"

#include <gtest/gtest.h>

#include "base/files.h"
#include "unit/testing/temp_dir.h"

namespace collage::mount {
namespace {

TEST(MountTable, ReadsEveryField) {
  const MountTable table = parse_mount_table(
      "69 44 7:0 / /var/lib/kubelet/stage rw,noatime - ext4 /dev/loop0 rw,discard\n"
      "70 44 0:6 /loop3 /target ro,relatime shared:5 master:2 - devtmpfs devtmpfs ro,size=1k\n");
  ASSERT_EQ(table.entries().size(), 2u);
  EXPECT_EQ(table.entries()[0],
            (MountEntry{"/var/lib/kubelet/stage", "/", "7:0", "ext4", "/dev/loop0", false, false}));
  EXPECT_EQ(table.entries()[1], (MountEntry{"/target", "/loop3", "0:6", "devtmpfs", "devtmpfs", true, true}));
}

TEST(MountTable, UnescapesWhatTheKernelEscapes) {
  const MountTable table =
      parse_mount_table("1 0 8:1 /a\\040b /with\\040space\\134and\\011tab rw - fuse host:/x\\040y rw\n");
  ASSERT_EQ(table.entries().size(), 1u);
  EXPECT_EQ(table.entries()[0].mount_point, "/with space\\and\ttab");
  EXPECT_EQ(table.entries()[0].root, "/a b");
  EXPECT_EQ(table.entries()[0].source, "host:/x y");
}

TEST(MountTable, AnswersTheTopmostMount) {
  const MountTable table = parse_mount_table(
      "1 0 8:1 / /mnt rw - ext4 /dev/a rw\n"
      "2 1 8:2 / /mnt rw - ext4 /dev/b rw\n"
      "3 1 8:3 / /mnt/below rw - ext4 /dev/c rw\n");
  ASSERT_NE(table.at("/mnt"), nullptr);
  EXPECT_EQ(table.at("/mnt")->source, "/dev/b");
  EXPECT_EQ(table.at("/mn"), nullptr);
  EXPECT_EQ(table.at("/mnt/"), nullptr);
}

TEST(MountTable, LeavesOutLinesThatAreNone) {
  EXPECT_EQ(parse_mount_table("\n\nhello\n1 2 3:4 / /x rw\n1 2 3:4 / /x rw -\n").entries().size(), 0u);
  EXPECT_EQ(parse_mount_table("").entries().size(), 0u);
}

TEST(MountTable, TellsLoopDevicesByTheEndOfTheirImagesPath) {
  testing::TempDir block;
  const auto backed_by = [&](const std::string& name, const std::string& file) {
    ASSERT_TRUE(base::make_directories(block / (name + "/loop"), 0700).ok());
    ASSERT_TRUE(base::write_file_atomic(block / (name + "/loop/backing_file"), file + "\n", 0600).ok());
  };
  backed_by("loop1", "/srv/share/pvc-1/image.0");
  backed_by("loop2", "/pvc-2/image.3 (deleted)");
  backed_by("sda", "/srv/share/pvc-1/image.0");
  ASSERT_TRUE(base::make_directories(block / "loop4", 0700).ok());  // not set up
  const MountTable table({}, read_loops(block.path()));
  EXPECT_EQ(table.loops(), (std::vector<LoopEntry>{{"/dev/loop1", "/srv/share/pvc-1/image.0"},
                                                   {"/dev/loop2", "/pvc-2/image.3"}}));
  EXPECT_TRUE(table.backs("/dev/loop1", "/elsewhere/pvc-1/image.0"));
  EXPECT_FALSE(table.backs("/dev/loop1", "/srv/share/pvc-1/image.1"));
  EXPECT_FALSE(table.backs("/dev/loop2", "/srv/share/pvc-1/image.0"));
  EXPECT_FALSE(table.backs("/dev/loop4", "/srv/share/pvc-1/image.0"));
  EXPECT_EQ(table.loops_in("pvc-2"), std::vector<std::string>{"/dev/loop2"});
  EXPECT_EQ(table.loops_in("vc-2"), std::vector<std::string>{});
  EXPECT_EQ(table.loops_in(""), std::vector<std::string>{});
}

TEST(MountTable, ReadsTheRealOne) {
  const absl::StatusOr<MountTable> table = read_mount_table();
  ASSERT_TRUE(table.ok());
  ASSERT_NE(table->at("/proc"), nullptr);
  EXPECT_EQ(table->at("/proc")->fs_type, "proc");
}

TEST(MountTable, ResolvesTheParentOfAMountPointOnly) {
  testing::TempDir directory;
  std::filesystem::create_directory(directory / "real");
  std::filesystem::create_directory_symlink(directory / "real", directory / "link");
  std::filesystem::create_directory_symlink(directory / "nowhere", directory / "real/target");
  const std::string real = std::filesystem::canonical(directory / "real");
  EXPECT_EQ(canonical_mount_point(directory / "link/target"), real + "/target");
  EXPECT_EQ(canonical_mount_point(directory / "link/new"), real + "/new");
  EXPECT_EQ(canonical_mount_point(directory / "missing/new"), directory / "missing/new");
}

}  // namespace
}  // namespace collage::mount
