#include "drivers/store/image_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/files.h"
#include "drivers/store/name_locks.h"
#include "unit/drivers/faults.h"
#include "unit/drivers/scratch.h"

namespace collage::drivers {

namespace {

using absl::StatusCode;
using base::Context;
using testing::Crash;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::Scratch;

constexpr int64_t kMiB = 1 << 20;

NewVolume a_volume(const std::string& name, int64_t bytes = kMiB) {
  return {.name = name, .bytes = bytes, .required_bytes = bytes, .tags = {{"collage/claim", "default/data"}}};
}

std::vector<std::string> entries(const std::string& path) {
  return base::list_directory(path).value_or(std::vector<std::string>{"?"});
}

void write(const std::string& path, const std::string& text) {
  std::ofstream(path) << text;
}

int64_t blocks_of(const std::string& path) {
  struct stat found {};
  return stat(path.c_str(), &found) == 0 ? found.st_blocks * 512 : -1;
}

class ImageStoreTest : public ::testing::Test {
 protected:
  // Runs `call` on a store whose program dies at each change to the disk in turn, each time on a new
  // directory that `before` has prepared; then `after` looks at what a new program finds.
  void at_every_crash(const std::function<void(ImageStore&)>& before,
                      const std::function<void(ImageStore&)>& call,
                      const std::function<void(ImageStore&)>& after) {
    int crashes = 0;
    for (int at = 0;; ++at) {
      Scratch scratch(64 * kMiB);
      const StoreDirectory directory(scratch.path(), "node-a");
      ImageStore healthy(directory);
      before(healthy);
      Crash crash(at);
      const StoreDirectory doomed(scratch.path(), "node-a", crash.hook());
      ImageStore store(doomed);
      call(store);
      if (!crash.happened()) break;
      ++crashes;
      SCOPED_TRACE(absl::StrCat("died before: ", crash.step()));
      after(healthy);
      const auto left = entries(scratch.path());
      for (const std::string& entry : left) EXPECT_NE(entry.front(), '.') << "left behind";
      if (HasFailure()) return;
    }
    EXPECT_GE(crashes, 3) << "the crash windows were not walked through";
  }

  Scratch scratch_{64 * kMiB};
  const StoreDirectory directory_{scratch_.path(), "node-a"};
  ImageStore store_{directory_};
  Context context_;
};

TEST_F(ImageStoreTest, AVolumeIsADirectoryOfItsName) {
  ASSERT_TRUE(store_.create(context_, a_volume("pvc-1")).ok());
  EXPECT_THAT(entries(scratch_.path()), ElementsAre("pvc-1"));
  EXPECT_THAT(entries(scratch_ / "pvc-1"), ElementsAre("image.0", "volume.json"));
  EXPECT_THAT(base::read_file(scratch_ / "pvc-1/volume.json").value(),
              HasSubstr("\"collage/claim\": \"default/data\""));
  struct stat found {};
  ASSERT_EQ(stat((scratch_ / "pvc-1/image.0").c_str(), &found), 0);
  EXPECT_EQ(found.st_size, kMiB);
  EXPECT_EQ(found.st_mode & 0777, 0600u);
}

TEST_F(ImageStoreTest, FullVolumesHaveTheirBlocksAndSparseOnesNone) {
  NewVolume sparse = a_volume("sparse", 4 * kMiB);
  sparse.allocation = Allocation::kSparse;
  ASSERT_TRUE(store_.create(context_, sparse).ok());
  ASSERT_TRUE(store_.create(context_, a_volume("full", 4 * kMiB)).ok());
  EXPECT_LT(blocks_of(scratch_ / "sparse/image.0"), kMiB);
  EXPECT_GE(blocks_of(scratch_ / "full/image.0"), 4 * kMiB);
}

TEST_F(ImageStoreTest, ACreateCutShortThenARetryIsOneVolume) {
  at_every_crash([](ImageStore&) {},
                 [&](ImageStore& store) { store.create(context_, a_volume("pvc-1")).IgnoreError(); },
                 [&](ImageStore& store) {
                   const auto volume = store.create(context_, a_volume("pvc-1"));
                   ASSERT_TRUE(volume.ok()) << volume.status();
                   EXPECT_EQ(store.list(context_, "", 0)->volumes.size(), 1u);
                   EXPECT_THAT(entries(store.volume_path("pvc-1")), ElementsAre("image.0", "volume.json"));
                 });
}

TEST_F(ImageStoreTest, ACreateCutShortThenARemoveIsNoVolume) {
  at_every_crash([](ImageStore&) {},
                 [&](ImageStore& store) { store.create(context_, a_volume("pvc-1")).IgnoreError(); },
                 [&](ImageStore& store) {
                   ASSERT_TRUE(store.remove(context_, "pvc-1", nullptr).ok());
                   EXPECT_THAT(store.list(context_, "", 0)->volumes, IsEmpty());
                 });
}

TEST_F(ImageStoreTest, ACreateCutShortIsAWholeVolumeOrNoneAndIsTidiedAway) {
  at_every_crash([](ImageStore&) {},
                 [&](ImageStore& store) { store.create(context_, a_volume("pvc-1")).IgnoreError(); },
                 [&](ImageStore& store) {
                   const auto found = store.find("pvc-1");
                   ASSERT_TRUE(found.ok()) << found.status();
                   EXPECT_TRUE(store.tidy(context_, 0).ok());
                   const auto again = store.find("pvc-1");
                   ASSERT_TRUE(again.ok()) << again.status();
                   EXPECT_EQ(again->has_value(), found->has_value()) << "tidying up changed what exists";
                 });
}

TEST_F(ImageStoreTest, ARemoveCutShortThenARetryIsNoVolume) {
  at_every_crash([&](ImageStore& store) { ASSERT_TRUE(store.create(context_, a_volume("pvc-1")).ok()); },
                 [&](ImageStore& store) { store.remove(context_, "pvc-1", nullptr).IgnoreError(); },
                 [&](ImageStore& store) {
                   ASSERT_TRUE(store.remove(context_, "pvc-1", nullptr).ok());
                   EXPECT_THAT(store.list(context_, "", 0)->volumes, IsEmpty());
                 });
}

TEST_F(ImageStoreTest, ARemoveCutShortThenACreateIsOneVolume) {
  at_every_crash([&](ImageStore& store) { ASSERT_TRUE(store.create(context_, a_volume("pvc-1")).ok()); },
                 [&](ImageStore& store) { store.remove(context_, "pvc-1", nullptr).IgnoreError(); },
                 [&](ImageStore& store) {
                   ASSERT_TRUE(store.create(context_, a_volume("pvc-1")).ok());
                   EXPECT_EQ(store.list(context_, "", 0)->volumes.size(), 1u);
                 });
}

TEST_F(ImageStoreTest, ABuilderThatWasOvertakenFindsTheOthersVolume) {
  for (const char* step : {"make directory", "create", "allocate", "write", "flush", "rename"}) {
    Scratch scratch(64 * kMiB);
    const StoreDirectory plain(scratch.path(), "node-b");
    ImageStore other(plain);
    const StoreDirectory slow(scratch.path(), "node-a", testing::delayed_at(step, [&] {
                                NewVolume theirs = a_volume("pvc-1", 2 * kMiB);
                                EXPECT_TRUE(other.create(context_, theirs).ok()) << step;
                              }));
    ImageStore store(slow);
    const auto volume = store.create(context_, a_volume("pvc-1"));
    ASSERT_TRUE(volume.ok()) << step << ": " << volume.status();
    EXPECT_EQ(volume->capacity_bytes, 2 * kMiB) << step;
    EXPECT_THAT(entries(scratch.path()), ElementsAre("pvc-1")) << step;
  }
}

TEST_F(ImageStoreTest, ABuilderWhoseWorkWasTidiedAwayBuildsAnew) {
  for (const char* step : {"make directory", "create", "allocate", "write", "flush", "rename"}) {
    Scratch scratch(64 * kMiB);
    const StoreDirectory plain(scratch.path(), "node-b");
    ImageStore other(plain);
    const StoreDirectory slow(scratch.path(), "node-a", testing::delayed_at(step, [&] {
                                EXPECT_TRUE(other.remove(context_, "pvc-1", nullptr).ok());
                              }));
    ImageStore store(slow);
    const auto volume = store.create(context_, a_volume("pvc-1"));
    ASSERT_TRUE(volume.ok()) << step << ": " << volume.status();
    EXPECT_THAT(entries(scratch.path()), ElementsAre("pvc-1")) << step;
  }
}

TEST_F(ImageStoreTest, AFreshBuildOfAnotherNodeIsNotTidiedAway) {
  const StoreDirectory slow(scratch_.path(), "node-b", testing::delayed_at("rename", [&] {
                              const auto swept = store_.tidy(context_);
                              ASSERT_TRUE(swept.ok()) << swept.status();
                              EXPECT_EQ(*swept, 0);
                            }));
  ImageStore other(slow);
  EXPECT_TRUE(other.create(context_, a_volume("pvc-1")).ok());
}

TEST_F(ImageStoreTest, AnEarlierRemovalThatWasCutShortIsNotInTheWay) {
  ASSERT_TRUE(store_.create(context_, a_volume("pvc-1")).ok());
  ASSERT_EQ(mkdir((scratch_ / ".removing-pvc-1").c_str(), 0700), 0);
  write(scratch_ / ".removing-pvc-1/image.0", "old");
  const absl::Status removed = store_.remove(context_, "pvc-1", nullptr);
  EXPECT_TRUE(removed.ok()) << removed;
  EXPECT_THAT(entries(scratch_.path()), IsEmpty());
}

TEST_F(ImageStoreTest, ARefusedRemovalChangesNothing) {
  ASSERT_TRUE(store_.create(context_, a_volume("pvc-1")).ok());
  const auto refuse = [](const std::string&) { return absl::FailedPreconditionError("in use"); };
  EXPECT_EQ(store_.remove(context_, "pvc-1", refuse).code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(entries(scratch_ / "pvc-1"), ElementsAre("image.0", "volume.json"));
}

TEST_F(ImageStoreTest, ADamagedVolumeIsReportedAndNeverTouched) {
  struct Case {
    const char* name;
    std::function<void(const std::string& path)> damage;
    const char* message;
  };
  const Case cases[] = {
      {"empty record", [](const std::string& path) { write(path + "/volume.json", ""); },
       "volume.json is unreadable"},
      {"no JSON", [](const std::string& path) { write(path + "/volume.json", "{\"version\": 1,"); },
       "volume.json is unreadable"},
      {"an array", [](const std::string& path) { write(path + "/volume.json", "[1]"); }, "version"},
      {"newer", [](const std::string& path) { write(path + "/volume.json", "{\"version\": 2}"); },
       "newer version"},
      {"another name",
       [](const std::string& path) {
         write(path + "/volume.json", R"({"version": 1, "name": "x", "capacityBytes": 1})");
       },
       "\"x\""},
      {"no capacity",
       [](const std::string& path) { write(path + "/volume.json", R"({"version": 1, "name": "bad"})"); },
       "capacity"},
      {"no record", [](const std::string& path) { unlink((path + "/volume.json").c_str()); },
       "volume.json is missing"},
      {"no image", [](const std::string& path) { unlink((path + "/image.0").c_str()); },
       "image file is missing"},
      {"short image",
       [](const std::string& path) { ASSERT_EQ(truncate((path + "/image.0").c_str(), 4096), 0); }, "4096 of"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    Scratch scratch(64 * kMiB);
    const StoreDirectory directory(scratch.path(), "node-a");
    ImageStore store(directory);
    ASSERT_TRUE(store.create(context_, a_volume("bad")).ok());
    ASSERT_TRUE(store.create(context_, a_volume("good")).ok());
    c.damage(store.volume_path("bad"));
    const auto before = entries(store.volume_path("bad"));

    for (const absl::Status& status :
         {store.find("bad").status(), store.create(context_, a_volume("bad")).status(),
          store.remove(context_, "bad", nullptr)}) {
      EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("bad"));
      EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
      EXPECT_THAT(std::string(status.message()), HasSubstr(scratch.path()));
    }
    const auto page = store.list(context_, "", 0);
    ASSERT_TRUE(page.ok()) << page.status();
    ASSERT_EQ(page->volumes.size(), 2u);
    EXPECT_EQ(page->volumes[0].name, "bad");
    EXPECT_THAT(page->volumes[0].problem, HasSubstr(c.message));
    EXPECT_EQ(page->volumes[1].problem, "");
    EXPECT_TRUE(store.tidy(context_, 0).ok());
    EXPECT_EQ(entries(store.volume_path("bad")), before);
  }
}

TEST_F(ImageStoreTest, WhatIsNotOursIsLeftAlone) {
  ASSERT_EQ(mkdir((scratch_ / "lost+found").c_str(), 0700), 0);
  ASSERT_EQ(mkdir((scratch_ / "photos").c_str(), 0700), 0);
  write(scratch_ / "photos/cat.jpg", "meow");
  write(scratch_ / "notes.txt", "hello");
  ASSERT_EQ(symlink("/etc", (scratch_ / "link").c_str()), 0);
  EXPECT_THAT(store_.list(context_, "", 0)->volumes, IsEmpty());
  for (const char* name : {"photos", "notes.txt", "link"}) {
    EXPECT_FALSE(store_.find(name)->has_value()) << name;
    EXPECT_TRUE(store_.remove(context_, name, nullptr).ok()) << name;
    const auto refused = store_.create(context_, a_volume(name));
    EXPECT_FALSE(refused.ok()) << name;
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr(name)) << refused.status();
  }
  EXPECT_TRUE(store_.tidy(context_, 0).ok());
  EXPECT_THAT(entries(scratch_.path()), ElementsAre("link", "lost+found", "notes.txt", "photos"));
  EXPECT_THAT(entries(scratch_ / "photos"), ElementsAre("cat.jpg"));
}

TEST_F(ImageStoreTest, NoRoomIsSaidWithBothSizesAndTheDirectory) {
  if (!scratch_.mounted()) GTEST_SKIP() << "mounting is not permitted here";
  const auto refused = store_.create(context_, a_volume("pvc-1", 100 * kMiB));
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  for (const std::string& part :
       {std::string("100"), std::string("available"), scratch_.path(), std::string("node-a"),
        std::string("pvc-1"), std::string("make room there")}) {
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr(part));
  }
  NewVolume sparse = a_volume("pvc-1", 100 * kMiB);
  sparse.allocation = Allocation::kSparse;
  EXPECT_EQ(store_.create(context_, sparse).status().code(), StatusCode::kResourceExhausted)
      << "larger than the whole directory";
  EXPECT_THAT(entries(scratch_.path()), IsEmpty());
}

TEST_F(ImageStoreTest, SparseVolumesMayPromiseMoreThanThereIs) {
  for (int i = 0; i < 3; ++i) {
    NewVolume sparse = a_volume(absl::StrCat("pvc-", i), 40 * kMiB);
    sparse.allocation = Allocation::kSparse;
    EXPECT_TRUE(store_.create(context_, sparse).ok());
  }
}

TEST_F(ImageStoreTest, ADirectoryThatFillsUpMeanwhileLeavesNoPart) {
  if (!scratch_.mounted()) GTEST_SKIP() << "mounting is not permitted here";
  const StoreDirectory slow(scratch_.path(), "node-a", testing::delayed_at("allocate", [&] {
                              ASSERT_TRUE(store_.create(context_, a_volume("other", 40 * kMiB)).ok());
                            }));
  ImageStore store(slow);
  const auto refused = store.create(context_, a_volume("pvc-1", 40 * kMiB));
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("is full"));
  EXPECT_THAT(entries(scratch_.path()), ElementsAre("other"));
}

TEST_F(ImageStoreTest, WhatAnEarlierAttemptLeftIsNotCountedAgainstTheVolume) {
  if (!scratch_.mounted()) GTEST_SKIP() << "mounting is not permitted here";
  // Dies when all is built but the rename that makes it a volume.
  bool dead = false;
  const StoreDirectory doomed(scratch_.path(), "node-a", [&](absl::string_view step) -> absl::Status {
    dead = dead || absl::StartsWith(step, "rename");
    return dead ? absl::UnknownError("crashed") : absl::OkStatus();
  });
  ImageStore store(doomed);
  EXPECT_EQ(store.create(context_, a_volume("pvc-1", 40 * kMiB)).status().code(), StatusCode::kUnknown);
  ASSERT_LT(directory_.room()->available_bytes, 40 * kMiB) << "nothing was left behind";
  const auto volume = store_.create(context_, a_volume("pvc-1", 40 * kMiB));
  ASSERT_TRUE(volume.ok()) << volume.status();
  EXPECT_THAT(entries(scratch_.path()), ElementsAre("pvc-1"));
}

TEST_F(ImageStoreTest, AFullDirectoryCanBeEmptied) {
  if (!scratch_.mounted()) GTEST_SKIP() << "mounting is not permitted here";
  ASSERT_TRUE(store_.create(context_, a_volume("pvc-1")).ok());
  std::ofstream filler(scratch_ / "filler");
  const std::string block(kMiB, 'x');
  while (filler.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) continue;
  ASSERT_LT(directory_.room()->available_bytes, 64 << 10);
  const absl::Status removed = store_.remove(context_, "pvc-1", nullptr);
  EXPECT_TRUE(removed.ok()) << removed;
  EXPECT_THAT(entries(scratch_.path()), ElementsAre("filler"));
}

TEST_F(ImageStoreTest, TokensAreNamesThatWereSeen) {
  for (const char* token : {"../x", "", "."}) {
    const auto page = store_.list(context_, token, 1);
    EXPECT_EQ(page.status().code(), *token == '\0' ? StatusCode::kOk : StatusCode::kAborted) << token;
  }
  EXPECT_EQ(store_.list(context_, "", -1).status().code(), StatusCode::kInvalidArgument);
}

TEST(GenerationOf, ReadsOnlyTheCanonicalForm) {
  EXPECT_EQ(generation_of("image.0", "image."), 0);
  EXPECT_EQ(generation_of("image.12", "image."), 12);
  for (const char* other : {"image.", "image.01", "image.-1", "image.+1", "image.1x", "image. 1",
                            "image.99999999999999999999", "owner.1", ""}) {
    EXPECT_FALSE(generation_of(other, "image.").has_value()) << other;
  }
}

TEST(NameLocks, AWaiterGivesUpWithItsContext) {
  NameLocks locks;
  const auto held = locks.acquire(Context(), "pvc-1");
  ASSERT_TRUE(held.ok());
  EXPECT_EQ(locks.acquire(Context().with_timeout(std::chrono::milliseconds(1)), "pvc-1").status().code(),
            StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(locks.try_acquire("pvc-1").has_value());
  EXPECT_TRUE(locks.try_acquire("pvc-2").has_value());
}

TEST(NameLocks, AReleasedNameIsFree) {
  NameLocks locks;
  { ASSERT_TRUE(locks.acquire(Context(), "pvc-1").ok()); }
  EXPECT_TRUE(locks.try_acquire("pvc-1").has_value());
}

}  // namespace

}  // namespace collage::drivers
