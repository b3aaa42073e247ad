#include "drivers/store/store_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/cleanup/cleanup.h"
#include "drivers/store/block.h"
#include "drivers/store/image_file.h"
#include "unit/drivers/scratch.h"

namespace collage::drivers {

namespace {

using absl::StatusCode;
using base::Json;
using ::testing::HasSubstr;
using testing::Scratch;
using Need = StoreDirectory::Need;

void expect_refusal(const absl::Status& status, const std::string& path, const char* message) {
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(path));
  EXPECT_THAT(std::string(status.message()), HasSubstr("node-b"));
  EXPECT_THAT(std::string(status.message()), HasSubstr(message));
}

TEST(StoreDirectory, AMissingDirectoryIsSaidSo) {
  testing::TempDir temp;
  expect_refusal(StoreDirectory(temp / "none", "node-b").check(Need::kRead), temp / "none", "does not exist");
}

TEST(StoreDirectory, AFileIsNoDirectory) {
  testing::TempDir temp;
  std::ofstream(temp / "file") << "x";
  expect_refusal(StoreDirectory(temp / "file", "node-b").check(Need::kRead), temp / "file",
                 "is not a directory");
  expect_refusal(StoreDirectory(temp / "file/below", "node-b").check(Need::kRead), temp / "file/below",
                 "is not a directory");
}

TEST(StoreDirectory, AReadOnlyFileSystemCanBeReadOnly) {
  Scratch scratch(1 << 20);
  if (!scratch.set_read_only(true)) GTEST_SKIP() << "mounting is not permitted here";
  const StoreDirectory directory(scratch.path(), "node-b");
  EXPECT_TRUE(directory.check(Need::kRead).ok());
  expect_refusal(directory.check(Need::kWrite), scratch.path(), "is read-only: mount it read-write");
  expect_refusal(directory.make_directory(scratch / "x"), scratch.path(), "is read-only");
}

TEST(StoreDirectory, AnotherUsersDirectoryIsNotWritable) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to become another user";
  testing::TempDir temp;
  ASSERT_EQ(chmod(temp.path().c_str(), 0755), 0);
  constexpr uid_t kNobody = 65534;
  // The system call itself, since the library's function would change all threads.
  ASSERT_EQ(syscall(SYS_setresuid, -1, kNobody, -1), 0);
  absl::Cleanup back = [] { syscall(SYS_setresuid, -1, 0, -1); };
  const StoreDirectory directory(temp.path(), "node-b");
  EXPECT_TRUE(directory.check(Need::kRead).ok());
  expect_refusal(directory.check(Need::kWrite), temp.path(), "is not writable for user id 65534");
  expect_refusal(directory.make_directory(temp / "x"), temp.path(), "is not writable");
}

TEST(StoreDirectory, AFullFileSystemIsSaidSo) {
  Scratch scratch(1 << 20);
  if (!scratch.mounted()) GTEST_SKIP() << "mounting is not permitted here";
  const StoreDirectory directory(scratch.path(), "node-b");
  const absl::Status full = directory.write_new(scratch / "large", std::string(2 << 20, 'x'));
  EXPECT_EQ(full.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()), HasSubstr("directory " + scratch.path() + " on node-b is full"));
}

TEST(StoreDirectory, ErrorsBecomeCanonicalCodes) {
  const StoreDirectory directory("/srv/share", "");
  struct Case {
    int error;
    StatusCode code;
    const char* message;
  };
  const Case cases[] = {
      {0, StatusCode::kOk, ""},
      {ENOSPC, StatusCode::kResourceExhausted, "directory /srv/share on this machine is full"},
      {EDQUOT, StatusCode::kResourceExhausted, "over its quota"},
      {EROFS, StatusCode::kFailedPrecondition, "read-only"},
      {EACCES, StatusCode::kFailedPrecondition, "not writable"},
      {EPERM, StatusCode::kFailedPrecondition, "not writable"},
      {EFBIG, StatusCode::kOutOfRange, "so large"},
      {ESTALE, StatusCode::kUnavailable, "does not answer"},
      {EIO, StatusCode::kUnavailable, "does not answer"},
      {ETIMEDOUT, StatusCode::kUnavailable, "does not answer"},
      {EINTR, StatusCode::kAborted, "busy"},
      {ENOENT, StatusCode::kNotFound, "do it"},
      {EEXIST, StatusCode::kAlreadyExists, "do it"},
      {ENOTEMPTY, StatusCode::kAlreadyExists, "do it"},
      {ENOMEM, StatusCode::kInternal, "do it"},
  };
  for (const Case& c : cases) {
    const absl::Status status = directory.error(c.error, "do it");
    EXPECT_EQ(status.code(), c.code) << strerror(c.error);
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
}

TEST(StoreDirectory, NotesAndLinksAreExclusive) {
  testing::TempDir temp;
  const StoreDirectory directory(temp.path(), "node-b");
  ASSERT_TRUE(directory.write_note(temp / "note", "first").ok());
  EXPECT_EQ(directory.write_note(temp / "note", "second").code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(directory.read_note(temp / "note").value(), "first");
  ASSERT_TRUE(directory.write_new(temp / "file", "text").ok());
  ASSERT_TRUE(directory.link(temp / "file", temp / "linked").ok());
  EXPECT_EQ(directory.link(temp / "file", temp / "linked").code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(directory.write_new(temp / "file", "text").code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(directory.make_empty(temp / "file").code(), StatusCode::kAlreadyExists);
}

TEST(ImageFile, WithoutFallocateTheZerosAreWritten) {
  testing::TempDir temp;
  Scratch makes_a_namespace(1 << 20);
  // ramfs knows no fallocate, and does not tell its size.
  if (!makes_a_namespace.mounted() || mount("scratch", temp.path().c_str(), "ramfs", 0, nullptr) != 0) {
    GTEST_SKIP() << "mounting is not permitted here";
  }
  absl::Cleanup unmount = [&] { umount2(temp.path().c_str(), MNT_DETACH); };
  const StoreDirectory directory(temp.path(), "node-b");
  ASSERT_EQ(directory.room()->total_bytes, 0);
  constexpr int64_t kBytes = (3 << 20) + 4096;
  const absl::Status made =
      make_image_file(base::Context(), directory, temp / "image", kBytes, Allocation::kFull);
  ASSERT_TRUE(made.ok()) << made;
  struct stat found {};
  ASSERT_EQ(stat((temp / "image").c_str(), &found), 0);
  EXPECT_EQ(found.st_size, kBytes);

  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(
      make_image_file(base::Context(stop.get_token()), directory, temp / "other", kBytes, Allocation::kFull)
          .code(),
      StatusCode::kCancelled);
}

TEST(VolumeName, IsAPlainFileName) {
  for (const char* good : {"a", "pvc-0c2f6b1e-8a1b-4a3e-9a51-000000000000", "A.b_c-9", "9"}) {
    EXPECT_TRUE(validate_volume_name(good).ok()) << good;
  }
  EXPECT_TRUE(validate_volume_name(std::string(128, 'a')).ok());
  for (const std::string& bad :
       {std::string(""), std::string("."), std::string(".."), std::string("../x"), std::string("a/b"),
        std::string("/a"), std::string(".hidden"), std::string("-rf"), std::string("a b"),
        std::string("a\nb"), std::string("a\0b", 3), std::string("\xc3\xa4"), std::string(129, 'a')}) {
    const absl::Status status = validate_volume_name(bad);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(status.message()), HasSubstr("name")) << bad;
  }
}

TEST(DirectoryBlock, WrongBlocksAreRefusedByTheFieldsName) {
  struct Case {
    const char* name;
    Json block;
    const char* message;
  };
  const Case cases[] = {
      {"no object", "text", "spec.image: must be an object, such as {directory: /srv/share}"},
      {"null", nullptr, "spec.image: must be an object"},
      {"empty", Json::object(), "spec.image.directory: is required"},
      {"unknown field", {{"directory", "/srv/share"}, {"path", "/x"}}, "spec.image.path: unknown field"},
      {"wrong case", {{"Directory", "/srv/share"}}, "spec.image.Directory: unknown field"},
      {"a number", {{"directory", 7}}, "spec.image.directory: must be a string"},
      {"empty text",
       {{"directory", ""}},
       "spec.image.directory: must be an absolute path, such as /srv/share"},
      {"relative",
       {{"directory", "srv/share"}},
       "spec.image.directory: must be an absolute path, such as /srv/share"},
      {"root", {{"directory", "/"}}, "must not be the root directory"},
      {"parent", {{"directory", "/srv/../etc"}}, "must not hold the part \"..\""},
      {"dot", {{"directory", "/srv/./share"}}, "must not hold the part \".\""},
      {"double slash", {{"directory", "/srv//share"}}, "must not hold \"//\""},
      {"final slash", {{"directory", "/srv/share/"}}, "nor end in \"/\""},
      {"newline", {{"directory", "/srv/a\nb"}}, "control characters"},
      {"too long", {{"directory", "/" + std::string(1024, 'a')}}, "longer than"},
  };
  for (const Case& c : cases) {
    const auto answer = directory_of_block("image", "/srv/share", c.block);
    EXPECT_EQ(answer.status().code(), StatusCode::kInvalidArgument) << c.name;
    EXPECT_THAT(std::string(answer.status().message()), HasSubstr(c.message)) << c.name;
  }
  EXPECT_EQ(directory_of_block("image", "/srv/share", {{"directory", "/srv/a b/.c..d"}}).value(),
            "/srv/a b/.c..d");
}

}  // namespace

}  // namespace collage::drivers
