#include "base/files.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "unit/base/test_child.h"
#include "unit/testing/temp_dir.h"

namespace collage::base {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::TempDir;

mode_t mode_of(const std::string& path) {
  struct stat status {};
  EXPECT_EQ(stat(path.c_str(), &status), 0) << path;
  return status.st_mode & 07777;
}

TEST(Files, WritesWhatIsReadBack) {
  TempDir dir;
  const std::string content("a\0b\n", 4);
  ASSERT_TRUE(write_file_atomic(dir / "f", content, 0600).ok());
  EXPECT_EQ(*read_file(dir / "f"), content);
  ASSERT_TRUE(write_file_atomic(dir / "f", "", 0600).ok());
  EXPECT_EQ(*read_file(dir / "f"), "");
}

TEST(Files, SetsTheModeWhateverTheUmask) {
  TempDir dir;
  const mode_t before = umask(0777);
  EXPECT_TRUE(write_file_atomic(dir / "f", "x", 0644).ok());
  EXPECT_TRUE(make_directories(dir / "a/b", 0750).ok());
  umask(before);
  EXPECT_EQ(mode_of(dir / "f"), 0644u);
  EXPECT_EQ(mode_of(dir / "a"), 0750u);
  EXPECT_EQ(mode_of(dir / "a/b"), 0750u);
  EXPECT_TRUE(write_file_atomic(dir / "f", "y", 0600).ok());
  EXPECT_EQ(mode_of(dir / "f"), 0600u);
}

// A reader sees the old or the new content, whole, at any time.
TEST(Files, ReplacesAtomically) {
  TempDir dir;
  const std::string path = dir / "f", one(100'000, '1'), two(100'000, '2');
  ASSERT_TRUE(write_file_atomic(path, one, 0600).ok());
  std::atomic<bool> stop = false;
  std::jthread writer([&] {
    for (int i = 0; i < 200; ++i) ASSERT_TRUE(write_file_atomic(path, i % 2 == 0 ? two : one, 0600).ok());
    stop = true;
  });
  while (!stop) {
    const auto content = read_file(path);
    ASSERT_TRUE(content.ok()) << content.status();
    ASSERT_TRUE(*content == one || *content == two);
  }
}

TEST(Files, LeavesNothingBehindWhenAWriteFails) {
  TempDir dir;
  ASSERT_TRUE(make_directories(dir / "taken/x", 0700).ok());
  EXPECT_FALSE(write_file_atomic(dir / "taken", "x", 0600).ok());  // a directory stands there
  EXPECT_EQ(write_file_atomic(dir / "none/f", "x", 0600).code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(*list_directory(dir.path()), ElementsAre("taken"));
}

TEST(Files, SaysWhatIsFull) {
  const auto status = write_file_atomic("/dev/full/x", "x", 0600);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/dev/full/x"));
}

TEST(Files, ReadsWithABound) {
  TempDir dir;
  ASSERT_TRUE(write_file_atomic(dir / "f", std::string(1000, 'x'), 0600).ok());
  EXPECT_TRUE(read_file(dir / "f", 1000).ok());
  EXPECT_EQ(read_file(dir / "f", 999).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(read_file("/dev/zero", 1 << 16).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(read_file(dir / "no").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(read_file(dir / "no").status().message()), HasSubstr(dir / "no"));
  EXPECT_FALSE(read_file(dir.path()).ok());
  EXPECT_TRUE(read_file("/proc/self/stat").ok());  // files that say they are empty
}

TEST(Files, MakesDirectoriesAndLeavesExistingOnes) {
  TempDir dir;
  ASSERT_TRUE(make_directories(dir / "a", 0700).ok());
  ASSERT_TRUE(make_directories(dir / "a/b/c//", 0755).ok());
  EXPECT_EQ(mode_of(dir / "a"), 0700u);
  EXPECT_EQ(mode_of(dir / "a/b/c"), 0755u);
  EXPECT_TRUE(make_directories(dir / "a/b/c", 0700).ok());
  EXPECT_EQ(mode_of(dir / "a/b/c"), 0755u);
  EXPECT_TRUE(make_directories("/", 0700).ok());
  ASSERT_TRUE(write_file_atomic(dir / "file", "x", 0600).ok());
  EXPECT_FALSE(make_directories(dir / "file", 0700).ok());
  EXPECT_FALSE(make_directories(dir / "file/sub", 0700).ok());
}

TEST(Files, RemovesAndListsAndSees) {
  TempDir dir;
  for (const char* name : {"b", "a", ".hidden"}) ASSERT_TRUE(write_file_atomic(dir / name, "", 0600).ok());
  EXPECT_THAT(*list_directory(dir.path()), ElementsAre(".hidden", "a", "b"));
  EXPECT_TRUE(exists(dir / "a"));
  EXPECT_TRUE(remove_file(dir / "a").ok());
  EXPECT_FALSE(exists(dir / "a"));
  EXPECT_TRUE(remove_file(dir / "a").ok());
  EXPECT_TRUE(remove_file(dir / "none/a").ok());
  EXPECT_FALSE(remove_file(dir.path()).ok());
  EXPECT_EQ(list_directory(dir / "none").status().code(), absl::StatusCode::kNotFound);
  ASSERT_EQ(symlink("nowhere", (dir / "dangling").c_str()), 0);
  EXPECT_TRUE(exists(dir / "dangling"));
}

TEST(UniqueFd, ClosesOnce) {
  int raw[2];
  ASSERT_EQ(pipe2(raw, O_CLOEXEC), 0);
  UniqueFd write(raw[1]);
  {
    UniqueFd read(raw[0]);
    UniqueFd moved(std::move(read));
    EXPECT_FALSE(read);  // NOLINT(bugprone-use-after-move)
    UniqueFd& self = moved;
    moved = std::move(self);
    EXPECT_EQ(moved.get(), raw[0]);
  }
  EXPECT_EQ(fcntl(raw[0], F_GETFD), -1);
  EXPECT_EQ(write.release(), raw[1]);
  EXPECT_FALSE(write);
  EXPECT_EQ(close(raw[1]), 0);
}

TEST(FileLock, IsHeldByOneAndFreedWithIt) {
  TempDir dir;
  const std::string path = dir / "lock";
  {
    auto first = FileLock::acquire(path);
    ASSERT_TRUE(first.ok()) << first.status();
    EXPECT_EQ(mode_of(path), 0600u);
    // A lock belongs to the open file, so that a second one in the same process is refused like any other.
    const auto second = FileLock::acquire(path);
    EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(second.status().message(),
              path + " is held by another process (pid " + std::to_string(getpid()) + ")");
    const FileLock moved = *std::move(first);
    EXPECT_FALSE(FileLock::acquire(path).ok());
  }
  EXPECT_TRUE(FileLock::acquire(path).ok());
}

TEST(FileLockChild, DISABLED_Hold) {
  const auto lock = FileLock::acquire(getenv("LOCK"));
  TestChild::say(lock.ok() ? "held" : "refused");
  pause();
}

TEST(FileLock, IsFreeAfterItsHolderWasKilled) {
  TempDir dir;
  const std::string path = dir / "lock";
  TestChild child("FileLockChild.DISABLED_Hold", {{"LOCK", path}});
  ASSERT_EQ(child.line(), "held");
  EXPECT_THAT(std::string(FileLock::acquire(path).status().message()),
              HasSubstr("pid " + std::to_string(child.pid())));
  child.signal(SIGKILL);
  child.wait();
  EXPECT_TRUE(FileLock::acquire(path).ok());
}

TEST(FileLock, FollowsNoLink) {
  TempDir dir;
  ASSERT_EQ(symlink("/etc/passwd", (dir / "lock").c_str()), 0);
  EXPECT_FALSE(FileLock::acquire(dir / "lock").ok());
}

}  // namespace
}  // namespace collage::base
