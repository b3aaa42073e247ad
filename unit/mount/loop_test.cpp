// Loop devices, on the real kernel.
#include <gmock/gmock.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "base/files.h"
#include "unit/mount/kernel_sandbox.h"

namespace collage::mount {
namespace {

using base::Context;
using drivers::LoopFile;
using ::testing::HasSubstr;

class Loop : public testing::KernelSandbox {
 protected:
  void SetUp() override { mounter_ = *make_kernel_mounter(testing::kMountHelper, path("locks")); }

  absl::StatusOr<Reached> attach(const std::string& image, Writing writing = Writing::kAllowed) {
    return mounter_->attach(Context(), "b/v", LoopFile{image}, writing);
  }
  absl::Status detach(const std::string& image, const Reached& reached = {}) {
    return mounter_->detach(Context(), "b/v", LoopFile{image}, reached);
  }
  static uint64_t size_of(const std::string& device) {
    const base::UniqueFd fd(open(device.c_str(), O_RDONLY | O_CLOEXEC));
    uint64_t size = 0;
    EXPECT_EQ(ioctl(fd.get(), BLKGETSIZE64, &size), 0);
    return size;
  }

  std::unique_ptr<Mounter> mounter_;
};

TEST_F(Loop, AttachTwiceIsOneDevice) {
  const std::string image = make_image("v1", 8 << 20);
  const auto first = attach(image), second = attach(image);
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(*first, *second);
  EXPECT_EQ(loops(), std::vector<std::string>{first->path});
  EXPECT_EQ(size_of(first->path), 8u << 20);
  EXPECT_NE(first->file_inode, 0u);
}

// A volume that was taken from its holder is a clone on a share that can clone.
TEST_F(Loop, ACloneHasTheBlockSizeThatItsFileSystemWasMadeFor) {
  const std::string disk = make_image("disk", 320 << 20), share = make_directory("share");
  ASSERT_EQ(
      std::system(("mkfs.xfs -q -m reflink=1 " + disk + " && mount -o loop " + disk + " " + share).c_str()),
      0);
  const std::string image = make_image("share/v1", 16 << 20), clone = make_directory("share/v2") + "/image.0";
  const auto first = attach(image);
  ASSERT_TRUE(first.ok()) << first.status();
  const FileSystem ext4{.type = "ext4"};  // so small a one has blocks of 1 KiB
  const std::string before = make_directory("before"), after = make_directory("after");
  ASSERT_TRUE(mounter_->mount({}, "fast/v1", *first, ext4, before).ok());
  std::ofstream(before + "/file") << "kept";
  sync();
  ASSERT_EQ(std::system(("cp --reflink=always " + image + " " + clone).c_str()), 0);
  const auto second = attach(clone);
  ASSERT_TRUE(second.ok()) << second.status();
  const absl::Status mounted = mounter_->mount({}, "fast/v2", *second, ext4, after);
  ASSERT_TRUE(mounted.ok()) << mounted;
  EXPECT_TRUE(std::filesystem::exists(after + "/file"));
  for (const auto& reached : {first, second}) {
    const base::UniqueFd fd(open(reached->path.c_str(), O_RDONLY | O_CLOEXEC));
    int bytes = 0;
    EXPECT_EQ(ioctl(fd.get(), BLKSSZGET, &bytes), 0);
    EXPECT_EQ(bytes, 512);
  }
  EXPECT_EQ(umount2(after.c_str(), 0), 0);
  EXPECT_EQ(umount2(before.c_str(), 0), 0);
  EXPECT_TRUE(detach(clone).ok());
  EXPECT_TRUE(detach(image).ok());
  EXPECT_EQ(run("umount " + share), 0);  // its loop device goes with it
}

TEST_F(Loop, EachVolumeHasItsOwnDeviceThoughTheFilesHaveOneName) {
  const auto one = attach(make_image("v1", 8 << 20)), other = attach(make_image("v2", 8 << 20));
  ASSERT_TRUE(one.ok() && other.ok());
  EXPECT_NE(one->path, other->path);
}

TEST_F(Loop, AFileThatReplacedAnotherOfItsNameGetsANewDevice) {
  const std::string image = make_image("v1", 8 << 20);
  const auto before = attach(image);
  ASSERT_TRUE(before.ok());
  // Both exist for a moment, so that the file system cannot give the new file the old one's inode.
  const std::string next = make_image("next", 16 << 20);
  std::filesystem::rename(next, image);
  const auto after = attach(image);
  ASSERT_TRUE(after.ok());
  EXPECT_NE(after->path, before->path);
  EXPECT_EQ(size_of(after->path), 16u << 20);
  // The old device is found by what attach() answered, not by the name.
  ASSERT_TRUE(detach(image, *before).ok());
  EXPECT_EQ(loops(), std::vector<std::string>{after->path});
}

TEST_F(Loop, DetachTwiceIsFine) {
  const std::string image = make_image("v1", 8 << 20);
  ASSERT_TRUE(attach(image).ok());
  EXPECT_TRUE(detach(image).ok());
  EXPECT_TRUE(detach(image).ok());
  EXPECT_TRUE(loops().empty());
  std::filesystem::remove(image);
  EXPECT_TRUE(detach(image).ok());
}

TEST_F(Loop, DetachByTheDeviceAlone) {
  const auto reached = attach(make_image("v1", 8 << 20));
  ASSERT_TRUE(reached.ok());
  EXPECT_TRUE(mounter_->detach(Context(), "b/v", LoopFile{}, {.path = reached->path}).ok());
  EXPECT_TRUE(loops().empty());
}

TEST_F(Loop, DetachRefusesWhileMounted) {
  const std::string image = make_image("v1", 64 << 20), target = make_directory("t");
  const auto reached = attach(image);
  ASSERT_TRUE(reached.ok());
  ASSERT_TRUE(mounter_->mount(Context(), "b/v", *reached, {"ext4", "", Writing::kAllowed}, target).ok());
  const absl::Status refused = detach(image);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr(reached->path + " is still mounted"));
  EXPECT_EQ(loops().size(), 1u);
  EXPECT_EQ(mounts_at(target), 1);
}

TEST_F(Loop, DetachOfAnOpenDeviceSaysSoAndASecondAttachKeepsIt) {
  const std::string image = make_image("v1", 8 << 20);
  const auto reached = attach(image);
  ASSERT_TRUE(reached.ok());
  base::UniqueFd open_by_somebody(open(reached->path.c_str(), O_RDONLY | O_CLOEXEC));
  const absl::Status busy = detach(image);
  EXPECT_EQ(busy.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(busy.message()), HasSubstr("still open"));
  // The kernel would now detach it with the last close; who attaches it again wants it to stay.
  ASSERT_TRUE(attach(image).ok());
  open_by_somebody.reset();
  EXPECT_EQ(loops(), std::vector<std::string>{reached->path});
}

TEST_F(Loop, AGrownFileGivesAGrownDevice) {
  const std::string image = make_image("v1", 8 << 20);
  const auto reached = attach(image);
  ASSERT_TRUE(reached.ok());
  std::filesystem::resize_file(image, 16 << 20);
  ASSERT_TRUE(attach(image).ok());
  EXPECT_EQ(size_of(reached->path), 16u << 20);
}

TEST_F(Loop, AReadOnlyDeviceCannotBeWritten) {
  const std::string image = make_image("v1", 8 << 20);
  const auto reached = attach(image, Writing::kReadOnly);
  ASSERT_TRUE(reached.ok()) << reached.status();
  base::UniqueFd fd(open(reached->path.c_str(), O_RDWR | O_CLOEXEC));
  EXPECT_TRUE(!fd || pwrite(fd.get(), "x", 1, 0) < 0);
  fd.reset();
  const auto writable = attach(image);
  EXPECT_EQ(writable.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(writable.status().message()), HasSubstr("read-only"));
}

TEST_F(Loop, WhatIsNoImageIsRefused) {
  EXPECT_EQ(attach(path("missing/image.0")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(attach(make_directory("v1")).status().code(), absl::StatusCode::kFailedPrecondition);
  std::filesystem::create_symlink(make_image("v2", 8 << 20), path("link"));
  EXPECT_EQ(attach(path("link")).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(loops().empty());
}

TEST_F(Loop, AFileSystemWithoutDirectIoWillDo) {
  const std::string memory = make_directory("memory");
  ASSERT_EQ(::mount("none", memory.c_str(), "tmpfs", 0, "size=32m"), 0);
  const auto reached = attach(make_image("memory/v1", 8 << 20));
  ASSERT_TRUE(reached.ok()) << reached.status();
  EXPECT_TRUE(detach(path("memory/v1/image.0"), *reached).ok());
}

}  // namespace
}  // namespace collage::mount
