// A volume is taken from a holder that goes on writing: on a real file system that can clone, and on one that
// cannot.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/files.h"
#include "drivers/image/image_driver.h"
#include "drivers/image/ownership.h"
#include "drivers/store/image_store.h"
#include "unit/drivers/faults.h"
#include "unit/drivers/loop_share.h"
#include "unit/drivers/storage.h"

namespace collage::drivers {
namespace {

using absl::StatusCode;
using testing::Crash;
using testing::delayed_at;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::LoopShare;
using ::testing::SizeIs;
using ::testing::StartsWith;

constexpr int64_t kMi = 1 << 20;

// An open image, as a loop device has it: it stays open whatever becomes of the file's name.
class OldHolder {
 public:
  explicit OldHolder(const std::string& image) : fd_(open(image.c_str(), O_RDWR | O_CLOEXEC)) {}
  ~OldHolder() { close(fd_); }
  bool write(const std::string& text) {
    return pwrite(fd_, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()) && fsync(fd_) == 0;
  }
  std::string sees() const {
    char text[16] = {};
    return pread(fd_, text, sizeof text - 1, 0) > 0 ? text : "";
  }
  bool fill(int64_t bytes) {
    const std::string block(kMi, 'x');
    for (int64_t at = kMi; at < bytes; at += kMi) {
      if (pwrite(fd_, block.data(), block.size(), at) != kMi) return false;
    }
    return fsync(fd_) == 0;
  }
  nlink_t names() const {
    struct stat found {};
    return fstat(fd_, &found) == 0 ? found.st_nlink : 99;
  }

 private:
  const int fd_;
};

class Fence : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!share().mounted()) GTEST_SKIP() << "mounting is not permitted here";
    path_ = share() / absl::StrCat("pvc-", ++count_);
    ASSERT_EQ(mkdir(path_.c_str(), 0700), 0);
    ASSERT_TRUE(directory_->write_new(path_ + "/image.0", std::string(kMi, '\0')).ok());
  }
  // One for all tests: made in half a second.
  static LoopShare& share() {
    static LoopShare share("mkfs.xfs -q -m reflink=1", 320 * kMi);
    return share;
  }
  Ownership with(const StoreDirectory& directory) const { return Ownership(directory, "pvc", path_); }
  Ownership owners() const { return with(*directory_); }
  Owner now() const {
    const auto owner = owners().current();
    EXPECT_TRUE(owner.ok()) << owner.status();
    return owner.value_or(Owner{});
  }
  std::string content(const std::string& image) const {
    return base::read_file(path_ + "/" + image, 2 * kMi).value_or("").c_str();
  }
  std::vector<std::string> files(const std::string& stem) const {
    std::vector<std::string> found;
    const std::vector<std::string> all = base::list_directory(path_).value();
    for (const std::string& name : all) {
      if (absl::StartsWith(name, stem)) found.push_back(name);
    }
    return found;
  }

  static inline int count_ = 0;
  std::string path_;
  const std::unique_ptr<StoreDirectory> directory_ =
      std::make_unique<StoreDirectory>(share().path(), "node-b");
};

TEST_F(Fence, WhatTheOldHolderWritesLaterReachesNobody) {
  ASSERT_TRUE(owners().take("node-a", false).ok());
  OldHolder old(path_ + "/image.0");
  ASSERT_TRUE(old.write("before"));
  ASSERT_TRUE(owners().fence("node-a").ok());
  EXPECT_FALSE(now().held());
  ASSERT_TRUE(old.write("LATE!!"));
  const auto next = owners().take("node-b", false);
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(next->generation, 2);
  EXPECT_THAT(next->image, StartsWith("image.2-"));
  EXPECT_EQ(content(next->image), "before");
  ASSERT_TRUE(old.write("LATER!"));
  EXPECT_EQ(old.sees(), "LATER!") << "the old holder does write";
  EXPECT_EQ(content(next->image), "before");
  EXPECT_THAT(files("image."), ElementsAre(next->image));
  EXPECT_EQ(old.names(), 0u) << "its file has no name any more";
}

TEST_F(Fence, TheOldHoldersRoomIsFreeOnceItLetsGo) {
  const auto room = [&] { return directory_->room()->available_bytes; };
  ASSERT_TRUE(owners().take("node-a", false).ok());
  const int64_t before = room();
  {
    OldHolder old(path_ + "/image.0");
    ASSERT_TRUE(owners().fence("node-a").ok());
    ASSERT_TRUE(old.fill(32 * kMi));
    EXPECT_LT(room(), before - 16 * kMi);
  }
  // XFS frees it in the background.
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (room() <= before - 4 * kMi && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_GT(room(), before - 4 * kMi);
}

// The decision is one record: before it nothing has happened, after it the copy is the volume.
TEST_F(Fence, CutShortAnywhereItIsDoneOrNotDone) {
  for (int at = 0;; ++at) {
    ASSERT_TRUE(owners().take("node-a", false).ok());
    const std::string image = now().image;
    OldHolder old(path_ + "/" + image);
    ASSERT_TRUE(old.write("before"));
    Crash crash(at);
    const StoreDirectory doomed(share().path(), "node-x", crash.hook());
    with(doomed).fence("node-a").IgnoreError();
    SCOPED_TRACE(absl::StrCat("died before: ", crash.step()));
    const bool crashed = crash.happened();
    const bool taken = !now().held();
    ASSERT_TRUE(old.write("after!"));
    if (!taken) {
      EXPECT_EQ(now().image, image);
      EXPECT_EQ(now().node, "node-a");
      EXPECT_EQ(content(image), "after!") << "it is still the holder's own";
    }
    ASSERT_TRUE(owners().fence("node-a").ok());
    EXPECT_FALSE(now().held());
    EXPECT_THAT(files("image."), ElementsAre(now().image));
    EXPECT_THAT(files("clone."), IsEmpty());
    EXPECT_EQ(content(now().image), taken ? "before" : "after!");
    ASSERT_TRUE(old.write("last!!"));
    EXPECT_EQ(content(now().image), taken ? "before" : "after!");
    ASSERT_TRUE(owners().take("node-b", false).ok());
    ASSERT_TRUE(owners().release("node-b").ok());
    if (!crashed) break;
    ASSERT_LT(at, 50);
  }
}

// The same, and the next call is not a retry but the node's own clean detach, or another node's attach.
TEST_F(Fence, WhatACutLeavesIsTidiedByTheNextHolder) {
  for (int at = 0;; ++at) {
    ASSERT_TRUE(owners().take("node-a", false).ok());
    Crash crash(at);
    const StoreDirectory doomed(share().path(), "node-x", crash.hook());
    with(doomed).fence("node-a").IgnoreError();
    SCOPED_TRACE(absl::StrCat("died before: ", crash.step()));
    ASSERT_TRUE(owners().release("node-a").ok());
    const auto next = owners().take("node-b", false);
    ASSERT_TRUE(next.ok()) << next.status();
    EXPECT_THAT(files("image."), ElementsAre(next->image));
    EXPECT_THAT(files("clone."), IsEmpty());
    ASSERT_TRUE(owners().release("node-b").ok());
    if (!crash.happened()) break;
    ASSERT_LT(at, 50);
  }
}

// Stopped for however long, it never ends a later hold, nor takes away an image that somebody uses.
TEST_F(Fence, ADelayedFenceSpeaksOfItsOwnGenerationOnly) {
  for (const char* at : {"create", "clone", "rename", "note", "flush", "unlink"}) {
    for (const char* later : {"node-a", "node-b"}) {
      for (int rounds : {0, 1, 3}) {
        SCOPED_TRACE(absl::StrCat(at, ", then held by ", later, " after ", rounds));
        ASSERT_TRUE(owners().take("node-a", false).ok());
        const StoreDirectory slow(
            share().path(), "node-x", delayed_at(at, [&] {
              ASSERT_TRUE(owners().release("node-a").ok());
              for (int i = 0; i < rounds; ++i) {
                ASSERT_TRUE(owners().take("node-c", false).ok());
                ASSERT_TRUE(i % 2 == 0 ? owners().fence("node-c").ok() : owners().release("node-c").ok());
              }
              ASSERT_TRUE(owners().take(later, false).ok());
            }));
        EXPECT_TRUE(with(slow).fence("node-a").ok());
        EXPECT_EQ(now().node, later);
        EXPECT_TRUE(now().held());
        EXPECT_THAT(files("image."), ::testing::Contains(now().image));
        ASSERT_TRUE(owners().release(later).ok());
      }
    }
  }
  ASSERT_TRUE(owners().take("node-z", false).ok());
  EXPECT_THAT(files("image."), SizeIs(1));
  EXPECT_THAT(files("clone."), IsEmpty());
}

TEST_F(Fence, SeveralAtOnceMakeOneCopy) {
  for (int round = 0; round < 10; ++round) {
    ASSERT_TRUE(owners().take("node-a", false).ok());
    {
      std::vector<std::jthread> threads;
      for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
          const absl::Status fenced = owners().fence("node-a");
          EXPECT_TRUE(fenced.ok() || absl::IsAborted(fenced)) << fenced;
        });
      }
    }
    ASSERT_TRUE(owners().fence("node-a").ok());
    EXPECT_FALSE(now().held());
    const auto next = owners().take("node-b", false);
    ASSERT_TRUE(next.ok()) << next.status();
    EXPECT_THAT(files("image."), ElementsAre(next->image));
    ASSERT_TRUE(owners().release("node-b").ok());
  }
}

TEST_F(Fence, OnlyTheHolderIsFenced) {
  ASSERT_TRUE(owners().fence("node-a").ok()) << "nobody holds it";
  ASSERT_TRUE(owners().take("node-a", false).ok());
  ASSERT_TRUE(owners().fence("node-b").ok());
  EXPECT_EQ(now().node, "node-a");
  EXPECT_TRUE(now().held());
  EXPECT_THAT(files("image."), ElementsAre("image.0"));
}

TEST_F(Fence, ADamagedRecordIsNotGuessedAt) {
  ASSERT_TRUE(owners().take("node-a", false).ok());
  for (const char* note : {"image.0", "image.3-ab", "../x/image.2-ab", "image.2-", "x"}) {
    ASSERT_EQ(symlink(note, (path_ + "/released.1").c_str()), 0);
    EXPECT_EQ(owners().current().status().code(), StatusCode::kDataLoss) << note;
    EXPECT_EQ(owners().take("node-b", false).status().code(), StatusCode::kDataLoss) << note;
    EXPECT_THAT(std::string(owners().current().status().message()), HasSubstr("released.1"));
    ASSERT_EQ(unlink((path_ + "/released.1").c_str()), 0);
  }
}

TEST(FenceOnExt4, WithoutClonesTheHolderStaysUntilThereIsOtherProof) {
  LoopShare share("mkfs.ext4 -q", 8 * kMi);
  if (!share.mounted()) GTEST_SKIP() << "mounting is not permitted here";
  const std::string path = share / "pvc";
  ASSERT_EQ(mkdir(path.c_str(), 0700), 0);
  const StoreDirectory directory(share.path(), "node-b");
  ASSERT_TRUE(directory.write_new(path + "/image.0", "x").ok());
  const Ownership owners(directory, "pvc-1", path);
  ASSERT_TRUE(owners.take("node-a", false).ok());
  const absl::Status refused = owners.fence("node-a");
  EXPECT_EQ(refused.code(), StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("volume pvc-1 is attached to node-a, and directory"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("cannot clone files"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("other proof that the node writes no more"));
  EXPECT_TRUE(owners.current()->held());
  EXPECT_THAT(base::list_directory(path).value(), ElementsAre("image.0", "owner.1"));
  EXPECT_TRUE(owners.release("node-a").ok()) << "that proof is there";
}

TEST(ImageName, Table) {
  for (const auto& [name, generation] :
       std::vector<std::pair<std::string, std::optional<int64_t>>>{{"image.0", 0},
                                                                   {"image.12", 12},
                                                                   {"image.2-0a1b", 2},
                                                                   {image_name(7, "ab12"), 7},
                                                                   {"image.", std::nullopt},
                                                                   {"image.-1", std::nullopt},
                                                                   {"image.2-", std::nullopt},
                                                                   {"image.2-A", std::nullopt},
                                                                   {"image.2-a/b", std::nullopt},
                                                                   {"image.2-a-b", std::nullopt},
                                                                   {"image.02-ab", std::nullopt},
                                                                   {"clone.2", std::nullopt}}) {
    EXPECT_EQ(image_generation(name), generation) << name;
  }
}

// The whole driver, on both nodes.
TEST_F(Fence, ADriversVolumeMovesWithoutItsLateWrites) {
  const std::string root = path_ + "/share";
  ASSERT_EQ(mkdir(root.c_str(), 0700), 0);
  const base::Json block = {{"directory", root}};
  const auto on = [&](const std::string& node) {
    return image_kind().make({.backend = "fast", .block = &block, .node = node}).value();
  };
  const auto a = on("node-a"), b = on("node-b");
  const base::Context context;
  ASSERT_TRUE(a->probe(context, {.initialize = true}).ok());
  ASSERT_TRUE(a->create(context, testing::a_request(image_kind().info, "pvc-1")).ok());
  const StringMap first = a->attacher()->attach(context, "pvc-1", "node-a", {}, false).value();
  OldHolder old(root + "/" + first.at("image"));
  ASSERT_TRUE(old.write("before"));

  EXPECT_EQ(b->attacher()->attach(context, "pvc-1", "node-b", {}, false).status().code(),
            StatusCode::kFailedPrecondition);
  ASSERT_TRUE(b->attacher()->fence(context, "pvc-1", "node-a").ok());
  ASSERT_TRUE(b->attacher()->fence(context, "pvc-1", "node-a").ok()) << "again";
  const auto second = b->attacher()->attach(context, "pvc-1", "node-b", {}, false);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_NE(second->at("image"), first.at("image"));
  ASSERT_TRUE(old.write("LATE!!"));
  const Access access = b->access("pvc-1", {}, *second).value();
  EXPECT_STREQ(base::read_file(std::get<LoopFile>(access).path, 64 * kMi).value().c_str(), "before");
  EXPECT_EQ(b->inspect(context, "pvc-1")->attached_to, "node-b");

  // The old node is back: its agent's detach is late, and what it was told to stage is not there.
  EXPECT_TRUE(a->attacher()->detach(context, "pvc-1", "node-a").ok());
  EXPECT_EQ(b->inspect(context, "pvc-1")->attached_to, "node-b");
  const Access stale = a->access("pvc-1", {}, first).value();
  EXPECT_TRUE(absl::IsNotFound(base::read_file(std::get<LoopFile>(stale).path).status()));

  ASSERT_TRUE(b->attacher()->detach(context, "pvc-1", "node-b").ok());
  ASSERT_TRUE(a->remove(context, "pvc-1").ok());
  EXPECT_THAT(base::list_directory(root).value(), ElementsAre(StartsWith(".collage")));
  EXPECT_TRUE(a->attacher()->fence(context, "pvc-1", "node-a").ok()) << "a volume that is gone";
}

}  // namespace
}  // namespace collage::drivers
