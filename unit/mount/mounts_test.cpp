// mount, bind, unmount and inspect, on the real kernel.
#include <gmock/gmock.h>
#include <sys/file.h>
#include <sys/syscall.h>

#include "base/files.h"
#include "base/random.h"
#include "base/subprocess.h"
#include "unit/mount/dead_share.h"
#include "unit/mount/kernel_sandbox.h"

namespace collage::mount {
namespace {

using base::Context;
using drivers::LoopFile;
using ::testing::HasSubstr;

class Mounts : public testing::KernelSandbox {
 protected:
  void SetUp() override {
    mounter_ = *make_kernel_mounter(testing::kMountHelper, path("locks"));
    staging_ = make_directory("staging");
    make_directory("pods");
  }

  absl::Status stage(const std::string& options = "", Writing writing = Writing::kAllowed,
                     const std::string& type = "ext4") {
    image_ = std::filesystem::exists(path("v/image.0")) ? path("v/image.0") : make_image("v", 320 << 20);
    const absl::StatusOr<Reached> reached =
        mounter_->attach(Context(), "b/v", LoopFile{image_}, Writing::kAllowed);
    if (!reached.ok()) return reached.status();
    reached_ = *reached;
    return mounter_->mount(Context(), "b/v", reached_, {type, options, writing}, staging_);
  }
  absl::Status bind(const std::string& source, const std::string& target,
                    Writing writing = Writing::kAllowed) {
    return mounter_->bind(Context(), "b/v", source, target, writing);
  }
  absl::Status unmount(const std::string& target, Leftover leftover = Leftover::kRemove) {
    return mounter_->unmount(Context(), "b/v", target, leftover);
  }
  static bool can_write(const std::string& directory) {
    return std::ofstream(directory + "/probe").is_open();
  }

  std::unique_ptr<Mounter> mounter_;
  std::string image_, staging_;
  Reached reached_;
};

TEST_F(Mounts, MountTwiceIsOneMount) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(stage().ok());
  EXPECT_EQ(mounts_at(staging_), 1);
  EXPECT_EQ(read_mount_table()->at(staging_)->device, reached_.number);
}

TEST_F(Mounts, NothingIsMountedOverAnotherMount) {
  ASSERT_EQ(::mount("none", staging_.c_str(), "tmpfs", 0, nullptr), 0);
  const absl::Status refused = stage();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("is a mount point already"));
  EXPECT_EQ(mounts_at(staging_), 1);
}

TEST_F(Mounts, OptionsReachTheKernel) {
  ASSERT_TRUE(stage("noatime,nosuid,commit=17").ok());
  EXPECT_EQ(run("grep -q '" + staging_ + " rw,nosuid,noatime .*commit=17' /proc/self/mountinfo"), 0);
}

TEST_F(Mounts, AnUnknownOptionIsNamed) {
  const absl::Status refused = stage("frobnicate=yes");
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("frobnicate=yes"));
  EXPECT_EQ(mounts_at(staging_), 0);
}

TEST_F(Mounts, AReadOnlyMountIsReadOnly) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(unmount(staging_, Leftover::kKeep).ok());
  ASSERT_TRUE(stage("", Writing::kReadOnly).ok());
  EXPECT_FALSE(can_write(staging_));
}

TEST_F(Mounts, ACloneOfAnXfsVolumeMountsBesideIt) {
  ASSERT_TRUE(stage("nouuid", Writing::kAllowed, "xfs").ok());
  ASSERT_TRUE(unmount(staging_, Leftover::kKeep).ok());
  make_directory("clone");
  std::filesystem::copy_file(image_, path("clone/image.0"));
  ASSERT_TRUE(stage("nouuid", Writing::kAllowed, "xfs").ok());
  const auto clone =
      mounter_->attach(Context(), "b/clone", LoopFile{path("clone/image.0")}, Writing::kAllowed);
  ASSERT_TRUE(clone.ok());
  const absl::Status mounted = mounter_->mount(Context(), "b/clone", *clone,
                                               {"xfs", "nouuid", Writing::kAllowed}, make_directory("other"));
  EXPECT_TRUE(mounted.ok()) << mounted;
}

TEST_F(Mounts, ABindShowsTheSameFilesAndMayBeReadOnly) {
  ASSERT_TRUE(stage("nosuid,nodev").ok());
  const std::string writable = path("pods/rw"), read_only = path("pods/ro");
  ASSERT_TRUE(bind(staging_, writable).ok());
  ASSERT_TRUE(bind(staging_, read_only, Writing::kReadOnly).ok());
  std::ofstream(writable + "/data") << "here";
  EXPECT_TRUE(std::filesystem::exists(read_only + "/data"));
  EXPECT_TRUE(can_write(writable));
  EXPECT_FALSE(can_write(read_only));
  // What the staging mount forbids, no publication allows again.
  EXPECT_EQ(run("grep -q '" + read_only + " ro,nosuid,nodev' /proc/self/mountinfo"), 0);
}

TEST_F(Mounts, ABindNeedsATargetThatIsFree) {
  ASSERT_TRUE(stage().ok());
  ASSERT_TRUE(bind(staging_, path("pods/a")).ok());
  EXPECT_EQ(bind(staging_, path("pods/a")).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(mounts_at(path("pods/a")), 1);
  EXPECT_EQ(bind(staging_, path("nowhere/a")).code(), absl::StatusCode::kFailedPrecondition);
  std::ofstream(path("pods/file")).close();
  EXPECT_EQ(bind(staging_, path("pods/file")).code(), absl::StatusCode::kFailedPrecondition);
  std::filesystem::create_directory_symlink(staging_, path("pods/link"));
  EXPECT_EQ(bind(staging_, path("pods/link")).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(Mounts, ARawBlockVolumeIsADeviceNode) {
  const std::string image = make_image("raw", 8 << 20), target = path("pods/device");
  const auto reached = mounter_->attach(Context(), "b/raw", LoopFile{image}, Writing::kAllowed);
  ASSERT_TRUE(reached.ok());
  ASSERT_TRUE(bind(reached->path, target).ok());
  ASSERT_TRUE(std::filesystem::is_block_file(target));
  write_at(target, 4096, "raw data");
  const auto info = mounter_->inspect(Context(), "b/raw", target);
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->type, PathInfo::Type::kBlock);
  EXPECT_EQ(info->total_bytes, 8 << 20);
  EXPECT_EQ(info->number, reached->number);
  ASSERT_TRUE(unmount(target).ok());
  EXPECT_FALSE(std::filesystem::exists(target));
  ASSERT_TRUE(mounter_->detach(Context(), "b/raw", LoopFile{image}, *reached).ok());
  EXPECT_EQ(read_at(image, 4096, 8), "raw data");
}

TEST_F(Mounts, AReadOnlyRawBlockVolumeRefusesWritesAndIsWritableAgainLater) {
  const std::string image = make_image("raw", 8 << 20), target = path("pods/device");
  const auto reached = mounter_->attach(Context(), "b/raw", LoopFile{image}, Writing::kAllowed);
  ASSERT_TRUE(reached.ok());
  ASSERT_TRUE(bind(reached->path, target, Writing::kReadOnly).ok());
  base::UniqueFd fd(open(target.c_str(), O_WRONLY | O_CLOEXEC));
  EXPECT_TRUE(!fd || pwrite(fd.get(), "x", 1, 0) < 0 || fsync(fd.get()) != 0);
  fd.reset();
  ASSERT_TRUE(unmount(target).ok());
  ASSERT_TRUE(bind(reached->path, target).ok());
  write_at(target, 0, "x");
  ASSERT_TRUE(unmount(target).ok());
  ASSERT_TRUE(bind(reached->path, target, Writing::kReadOnly).ok());
  ASSERT_TRUE(unmount(target).ok());
  ASSERT_TRUE(mounter_->detach(Context(), "b/raw", LoopFile{image}, *reached).ok());
  // The flag stays with the device number: whoever gets it next must not find it read-only.
  const auto again =
      mounter_->attach(Context(), "b/other", LoopFile{make_image("other", 320 << 20)}, Writing::kAllowed);
  ASSERT_TRUE(again.ok());
  const absl::Status mounted =
      mounter_->mount(Context(), "b/other", *again, {"ext4", "", Writing::kAllowed}, staging_);
  EXPECT_TRUE(mounted.ok()) << mounted;
}

TEST_F(Mounts, UnmountIsIdempotentAndRemovesOnlyWhatIsEmpty) {
  ASSERT_TRUE(stage().ok());
  const std::string target = path("pods/a");
  ASSERT_TRUE(bind(staging_, target).ok());
  ASSERT_TRUE(unmount(target).ok());
  ASSERT_TRUE(unmount(target).ok());
  EXPECT_FALSE(std::filesystem::exists(target));
  EXPECT_EQ(mounts_at(staging_), 1);
  make_directory("pods/full/of/things");
  EXPECT_EQ(unmount(path("pods/full")).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(std::filesystem::exists(path("pods/full/of/things")));
  std::ofstream(path("pods/file")) << "data";
  EXPECT_EQ(unmount(path("pods/file")).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(std::filesystem::exists(path("pods/file")));
}

TEST_F(Mounts, UnmountTakesAwayMountsThatOthersStacked) {
  ASSERT_TRUE(stage().ok());
  ASSERT_EQ(::mount(staging_.c_str(), staging_.c_str(), nullptr, MS_BIND, nullptr), 0);
  ASSERT_EQ(mounts_at(staging_), 2);
  ASSERT_TRUE(unmount(staging_, Leftover::kKeep).ok());
  EXPECT_EQ(mounts_at(staging_), 0);
  EXPECT_TRUE(std::filesystem::exists(staging_));
}

TEST_F(Mounts, UnmountOfWhatIsInUseSaysSo) {
  ASSERT_TRUE(stage().ok());
  const base::UniqueFd busy(open(staging_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const absl::Status refused = unmount(staging_, Leftover::kKeep);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("a process still uses it"));
  EXPECT_EQ(mounts_at(staging_), 1);
}

TEST_F(Mounts, ADirectoryVolumeIsBound) {
  const std::string source = make_directory("volume");
  const auto reached = mounter_->attach(Context(), "b/d", drivers::Directory{source}, Writing::kAllowed);
  ASSERT_TRUE(reached.ok());
  ASSERT_TRUE(mounter_->mount(Context(), "b/d", *reached, {}, staging_).ok());
  std::ofstream(staging_ + "/x").close();
  EXPECT_TRUE(std::filesystem::exists(source + "/x"));
  EXPECT_EQ(mounter_->attach(Context(), "b/d", drivers::Directory{path("missing")}, Writing::kAllowed)
                .status()
                .code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(Mounts, AnAccessWithoutAMounterSaysWhichItIs) {
  const auto nfs = mounter_->attach(Context(), "b/n", drivers::NfsExport{}, Writing::kAllowed);
  EXPECT_EQ(nfs.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(nfs.status().message()), HasSubstr("NFS"));
  const auto fuse = mounter_->attach(Context(), "b/n", drivers::FuseProcess{}, Writing::kAllowed);
  EXPECT_EQ(fuse.status().code(), absl::StatusCode::kUnimplemented);
}

TEST_F(Mounts, ADeviceThatDoesNotShowUpIsWaitedForAndThenNotFinal) {
  const auto missing =
      mounter_->attach(Context().with_timeout(std::chrono::milliseconds(600)), "b/d",
                       drivers::BlockDevice{"no-such-serial", {"no-such-name"}}, Writing::kAllowed);
  EXPECT_TRUE(absl::IsUnavailable(missing.status()) || absl::IsDeadlineExceeded(missing.status()))
      << missing.status();
}

TEST_F(Mounts, InspectTellsHowFullItIs) {
  ASSERT_TRUE(stage().ok());
  const auto info = mounter_->inspect(Context(), "b/v", staging_);
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->type, PathInfo::Type::kDirectory);
  EXPECT_GT(info->total_bytes, 250 << 20);
  EXPECT_LT(info->total_bytes, 320 << 20);
  EXPECT_EQ(info->total_inodes, info->used_inodes + info->available_inodes);
  EXPECT_EQ(mounter_->inspect(Context(), "b/v", path("missing"))->type, PathInfo::Type::kMissing);
}

// What a step in uninterruptible sleep leaves behind: its lock. Here the test holds it.
TEST_F(Mounts, AStepThatHangsBlocksItsOwnVolumeAlone) {
  const std::string lock = path("locks") + "/" + base::sha256_hex("b/v").substr(0, 32) + ".lock";
  base::UniqueFd held(open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_EQ(flock(held.get(), LOCK_EX), 0);
  const absl::Status refused = stage();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("hangs in the kernel"));
  EXPECT_TRUE(mounter_->inspect(Context(), "b/other", staging_).ok());
  held.reset();
  EXPECT_TRUE(stage().ok());
}

// A helper that not even SIGKILL ends.
TEST_F(Mounts, AHelperThatHangsInTheKernelIsGivenUpOnceAndReapedWhenItEnds) {
  testing::DeadShare share(make_directory("share"));
  const int before = base::abandoned_children();
  const auto hung =
      mounter_->inspect(Context().with_timeout(std::chrono::milliseconds(300)), "b/v", path("share/x"));
  EXPECT_EQ(hung.status().code(), absl::StatusCode::kDeadlineExceeded) << hung.status();
  EXPECT_THAT(std::string(hung.status().message()), HasSubstr("does not even end when killed"));
  EXPECT_EQ(base::abandoned_children(), before + 1);
  for (int i = 0; i < 2; ++i) {
    const auto next = mounter_->inspect(Context(), "b/v", path("share/x"));
    EXPECT_EQ(next.status().code(), absl::StatusCode::kUnavailable) << next.status();
    EXPECT_THAT(std::string(next.status().message()), HasSubstr("hangs in the kernel"));
  }
  EXPECT_EQ(base::abandoned_children(), before + 1) << "at most one a volume";
  EXPECT_TRUE(mounter_->inspect(Context(), "b/other", staging_).ok()) << "another volume goes on";
  EXPECT_NE(mounter_->table()->at(path("share")), nullptr) << "the table touches no mount";
  share.end();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (base::abandoned_children() > before && std::chrono::steady_clock::now() < deadline) usleep(1000);
  EXPECT_EQ(base::abandoned_children(), before) << "reaped when it ends";
  const auto ended = mounter_->inspect(Context(), "b/v", path("share/x"));
  EXPECT_FALSE(ended.ok());
  EXPECT_THAT(std::string(ended.status().message()), ::testing::Not(HasSubstr("hangs in the kernel")));
  EXPECT_TRUE(unmount(path("share")).ok()) << "a dead mount is unmounted without being looked into";
}

TEST_F(Mounts, ADeadMountIsUnmountedWithoutBeingLookedInto) {
  testing::DeadShare share(make_directory("share"));
  const absl::Status unmounted = unmount(path("share"), Leftover::kKeep);
  EXPECT_TRUE(unmounted.ok()) << unmounted;
  EXPECT_EQ(mounts_at(path("share")), 0);
}

TEST_F(Mounts, AChangeOfTheMountTableIsNoticedAndNothingElse) {
  mounter_->wait_for_change(Context().with_timeout(std::chrono::seconds(0)));
  ASSERT_EQ(::mount("none", staging_.c_str(), "tmpfs", 0, nullptr), 0);
  const auto begun = std::chrono::steady_clock::now();
  mounter_->wait_for_change(Context().with_timeout(std::chrono::seconds(30)));
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(20));
  const auto unchanged = std::chrono::steady_clock::now();
  mounter_->wait_for_change(Context().with_timeout(std::chrono::milliseconds(50)));
  EXPECT_GE(std::chrono::steady_clock::now() - unchanged, std::chrono::milliseconds(50));
}

// A container of a pod has a mount of its own, which nobody else sees and which keeps the file system alive.
TEST_F(Mounts, AMountIsMadeAgainWhileAContainerStillHasItsOwn) {
  ASSERT_TRUE(stage().ok());
  const base::UniqueFd container(static_cast<int>(
      syscall(SYS_open_tree, AT_FDCWD, staging_.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)));
  ASSERT_TRUE(container) << std::strerror(errno);
  ASSERT_EQ(umount2(staging_.c_str(), MNT_DETACH), 0);
  const FileSystem wanted{"ext4", "", Writing::kAllowed, Blank::kRefuse};
  const absl::Status again = mounter_->mount(Context(), "b/v", reached_, wanted, staging_);
  EXPECT_TRUE(again.ok()) << again;
  EXPECT_EQ(mounts_at(staging_), 1);
}

TEST_F(Mounts, ABlankDeviceIsNotFormattedWhereAFileSystemWas) {
  const auto reached =
      mounter_->attach(Context(), "b/v", LoopFile{make_image("v", 64 << 20)}, Writing::kAllowed);
  ASSERT_TRUE(reached.ok()) << reached.status();
  const absl::Status refused =
      mounter_->mount(Context(), "b/v", *reached, {"ext4", "", Writing::kAllowed, Blank::kRefuse}, staging_);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("is blank and was not before"));
  EXPECT_EQ(read_at(path("v/image.0"), 0, 4096), std::string(4096, '\0'));
}

// The way back goes on with a state directory that is full or read-only.
TEST_F(Mounts, AStateDirectoryThatCannotBeWrittenKeepsNothingMounted) {
  struct Case {
    const char* name;
    const char* options;
  };
  for (const Case& c : {Case{"full", "size=16k,nr_inodes=1"}, Case{"read-only", "ro"}}) {
    SCOPED_TRACE(c.name);
    const std::string state = make_directory(std::string("state-") + c.name);
    ASSERT_EQ(::mount("none", state.c_str(), "tmpfs", std::string(c.options) == "ro" ? MS_RDONLY : 0,
                      std::string(c.options) == "ro" ? nullptr : c.options),
              0);
    const auto mounter = *make_kernel_mounter(testing::kMountHelper, state);
    ASSERT_EQ(::mount("none", staging_.c_str(), "tmpfs", 0, nullptr), 0);
    const absl::Status bound = mounter->bind(Context(), "b/v", staging_, path("pods/x"), Writing::kAllowed);
    EXPECT_FALSE(bound.ok()) << "the way forward needs its lock";
    const absl::Status unmounted = mounter->unmount(Context(), "b/v", staging_, Leftover::kKeep);
    EXPECT_TRUE(unmounted.ok()) << unmounted;
    EXPECT_EQ(mounts_at(staging_), 0);
  }
}

TEST_F(Mounts, AHelperThatDoesNotEndIsKilledWithAllItStarted) {
  const std::string script = path("stand-in");
  std::ofstream(script) << "#!/bin/sh\ntrap '' TERM INT\necho $$ > " << path("pid")
                        << "\nsleep 1000 & wait; sleep 1000\n";
  std::filesystem::permissions(script, std::filesystem::perms::owner_all);
  const auto mounter = *make_kernel_mounter(script, path("locks"));
  const auto info = mounter->inspect(Context().with_timeout(std::chrono::milliseconds(500)), "b/v", staging_);
  EXPECT_EQ(info.status().code(), absl::StatusCode::kDeadlineExceeded) << info.status();
  std::ifstream file(path("pid"));
  pid_t pid = 0;
  ASSERT_TRUE(file >> pid);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (kill(-pid, 0) == 0 && std::chrono::steady_clock::now() < deadline) usleep(1000);
  EXPECT_EQ(kill(-pid, 0), -1) << "its process group still lives";
}

TEST_F(Mounts, AHelperThatAnswersNonsenseIsAnInternalError) {
  const auto mounter = *make_kernel_mounter("/bin/true", path("locks"));
  EXPECT_EQ(mounter->inspect(Context(), "b/v", staging_).status().code(), absl::StatusCode::kInternal);
  const auto missing = *make_kernel_mounter(path("no-such-program"), path("locks"));
  EXPECT_FALSE(missing->inspect(Context(), "b/v", staging_).ok());
}

}  // namespace
}  // namespace collage::mount
