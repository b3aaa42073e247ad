#include "drivers/image/ownership.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "base/files.h"
#include "unit/drivers/faults.h"
#include "unit/drivers/scratch.h"

namespace collage::drivers {

namespace {

using absl::StatusCode;
using testing::Crash;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Scratch;

class OwnershipTest : public ::testing::Test {
 protected:
  OwnershipTest() { mkdir(path_.c_str(), 0700); }

  Ownership with(const StoreDirectory& directory) const { return Ownership(directory, "pvc-1", path_); }
  std::vector<std::string> records() const { return base::list_directory(path_).value(); }
  std::string holder() const {
    const auto owner = ownership_.current();
    EXPECT_TRUE(owner.ok()) << owner.status();
    return owner.ok() && owner->held() ? owner->node : "";
  }
  // `times` whole rounds by another node.
  void others_use_it(int times) {
    for (int i = 0; i < times; ++i) {
      ASSERT_TRUE(ownership_.take("node-x", false).ok());
      ASSERT_TRUE(ownership_.release("node-x").ok());
    }
  }

  Scratch scratch_{4 << 20};
  const std::string path_ = scratch_ / "pvc-1";
  const StoreDirectory directory_{scratch_.path(), "node-a"};
  const Ownership ownership_{directory_, "pvc-1", path_};
};

TEST_F(OwnershipTest, GenerationsCountUp) {
  EXPECT_EQ(ownership_.current()->generation, 0);
  EXPECT_EQ(ownership_.current()->image, "image.0");
  for (int generation = 1; generation <= 5; ++generation) {
    const std::string node = absl::StrCat("node-", generation % 2);
    EXPECT_EQ(ownership_.take(node, false)->generation, generation);
    EXPECT_EQ(ownership_.take(node, false)->generation, generation) << "the holder again";
    ASSERT_TRUE(ownership_.release(node).ok());
  }
  EXPECT_THAT(records(), ElementsAre("owner.4", "owner.5", "released.4", "released.5"));
}

TEST_F(OwnershipTest, TheModeIsKept) {
  EXPECT_TRUE(ownership_.take("node-a", true)->read_only);
  EXPECT_TRUE(ownership_.current()->read_only);
  EXPECT_EQ(ownership_.take("node-a", false).status().code(), StatusCode::kAlreadyExists);
}

TEST_F(OwnershipTest, ATakeCutShortThenARetryIsOneHold) {
  for (int earlier : {0, 1, 4}) {
    for (int at = 0;; ++at) {
      others_use_it(earlier);
      Crash crash(at);
      const StoreDirectory doomed(scratch_.path(), "node-a", crash.hook());
      with(doomed).take("node-a", false).status().IgnoreError();
      SCOPED_TRACE(absl::StrCat("died before: ", crash.step()));
      const bool crashed = crash.happened();
      // Half a take is a whole one or none: another node is refused by name, or gets it.
      const std::string now = holder();
      EXPECT_TRUE(now.empty() || now == "node-a") << now;
      const auto other = ownership_.take("node-b", false);
      EXPECT_EQ(other.ok(), now.empty()) << other.status();
      ASSERT_TRUE(ownership_.release("").ok());
      ASSERT_TRUE(ownership_.take("node-a", false).ok());
      EXPECT_EQ(holder(), "node-a");
      ASSERT_TRUE(ownership_.release("").ok());
      if (!crashed) break;
      ASSERT_LT(at, 50);
    }
  }
  EXPECT_LE(records().size(), 4u) << "old records stay behind";
}

TEST_F(OwnershipTest, AReleaseCutShortIsARetryAway) {
  for (int at = 0;; ++at) {
    ASSERT_TRUE(ownership_.take("node-a", false).ok());
    Crash crash(at);
    const StoreDirectory doomed(scratch_.path(), "node-a", crash.hook());
    with(doomed).release("node-a").IgnoreError();
    ASSERT_TRUE(ownership_.release("node-a").ok());
    EXPECT_EQ(holder(), "") << crash.step();
    if (!crash.happened()) break;
    ASSERT_LT(at, 50);
  }
}

TEST_F(OwnershipTest, ADelayedReleaseNeverEndsALaterHold) {
  for (int rounds : {0, 1, 2, 5}) {
    ASSERT_TRUE(ownership_.take("node-a", false).ok());
    const StoreDirectory slow(scratch_.path(), "node-a", testing::delayed_at("create", [&] {
                                ASSERT_TRUE(ownership_.release("node-a").ok());
                                others_use_it(rounds);
                                ASSERT_TRUE(ownership_.take("node-b", false).ok());
                              }));
    EXPECT_TRUE(with(slow).release("node-a").ok());
    EXPECT_EQ(holder(), "node-b") << rounds << " rounds meanwhile";
    ASSERT_TRUE(ownership_.release("node-b").ok());
  }
}

TEST_F(OwnershipTest, ADelayedTakeNeverJoinsALaterHolder) {
  for (int rounds : {0, 1, 2, 3, 10}) {
    const StoreDirectory slow(scratch_.path(), "node-a", testing::delayed_at("note", [&] {
                                others_use_it(rounds);
                                ASSERT_TRUE(ownership_.take("node-b", false).ok());
                              }));
    const auto answer = with(slow).take("node-a", false);
    EXPECT_EQ(answer.status().code(), StatusCode::kFailedPrecondition) << rounds << " rounds meanwhile";
    EXPECT_THAT(std::string(answer.status().message()), HasSubstr("node-b"));
    EXPECT_EQ(holder(), "node-b");
    ASSERT_TRUE(ownership_.release("node-b").ok());
  }
}

TEST_F(OwnershipTest, ADelayedTakeOfAFreeVolumeGetsALaterGeneration) {
  for (int rounds : {1, 2, 3, 10}) {
    const int64_t before = ownership_.current()->generation;
    const StoreDirectory slow(scratch_.path(), "node-a",
                              testing::delayed_at("note", [&] { others_use_it(rounds); }));
    const auto answer = with(slow).take("node-a", false);
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(answer->generation, before + rounds + 1);
    EXPECT_EQ(holder(), "node-a");
    ASSERT_TRUE(ownership_.release("node-a").ok());
  }
}

TEST_F(OwnershipTest, AVolumeUnderRemovalCannotBeTaken) {
  ASSERT_TRUE(ownership_.take("node-a", false).ok());
  EXPECT_EQ(ownership_.claim_removal().code(), StatusCode::kFailedPrecondition);
  ASSERT_TRUE(ownership_.release("node-a").ok());
  ASSERT_TRUE(ownership_.claim_removal().ok());
  EXPECT_TRUE(ownership_.claim_removal().ok()) << "again";
  EXPECT_EQ(ownership_.take("node-a", false).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(ownership_.release("").ok());
  EXPECT_TRUE(ownership_.current()->removing);
}

TEST_F(OwnershipTest, ADelayedRemovalNeverTakesAHeldVolume) {
  for (int rounds : {0, 1, 3}) {
    const StoreDirectory slow(scratch_.path(), "node-a", testing::delayed_at("create", [&] {
                                others_use_it(rounds);
                                ASSERT_TRUE(ownership_.take("node-b", false).ok());
                              }));
    EXPECT_EQ(with(slow).claim_removal().code(), StatusCode::kFailedPrecondition) << rounds;
    EXPECT_EQ(holder(), "node-b");
    ASSERT_TRUE(ownership_.release("node-b").ok());
  }
}

TEST_F(OwnershipTest, AHolderIsNeverGuessed) {
  const std::string record = path_ + "/owner.1";
  const auto damaged = [&](const char* what) {
    EXPECT_EQ(ownership_.current().status().code(), StatusCode::kDataLoss) << what;
    EXPECT_EQ(ownership_.take("node-a", false).status().code(), StatusCode::kDataLoss) << what;
    EXPECT_EQ(ownership_.release("node-a").code(), StatusCode::kDataLoss) << what;
    EXPECT_EQ(ownership_.claim_removal().code(), StatusCode::kDataLoss) << what;
    EXPECT_THAT(std::string(ownership_.current().status().message()), HasSubstr(record));
    EXPECT_EQ(remove(record.c_str()), 0);
  };
  for (const char* note :
       {"x", "rw:image.0:aa", "rw:image.0:aa:", "xx:image.0:aa:node-a", "rw:../../etc/passwd:aa:node-a"}) {
    ASSERT_EQ(symlink(note, record.c_str()), 0);
    damaged(note);
  }
  std::ofstream(record) << "text";
  damaged("a file with text");
  ASSERT_EQ(mkdir(record.c_str(), 0700), 0);
  damaged("a directory");
}

TEST_F(OwnershipTest, NodeNamesMayHoldColons) {
  ASSERT_TRUE(ownership_.take("a:b:c/d e", false).ok());
  EXPECT_EQ(holder(), "a:b:c/d e");
}

TEST_F(OwnershipTest, AMissingVolumeIsNotFound) {
  const Ownership none(directory_, "pvc-2", scratch_ / "pvc-2");
  EXPECT_EQ(none.current().status().code(), StatusCode::kNotFound);
  EXPECT_EQ(none.take("node-a", false).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(none.release("node-a").code(), StatusCode::kNotFound);
}

TEST_F(OwnershipTest, AVolumeOfAFullShareCanStillMove) {
  if (!scratch_.mounted()) GTEST_SKIP() << "mounting is not permitted here";
  ASSERT_TRUE(ownership_.take("node-a", false).ok());
  std::ofstream filler(scratch_ / "filler");
  const std::string block(64 << 10, 'x');
  while (filler.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) continue;
  ASSERT_LT(directory_.room()->available_bytes, 64 << 10);
  EXPECT_TRUE(ownership_.release("node-a").ok());
  EXPECT_TRUE(ownership_.take("node-b", false).ok());
  EXPECT_EQ(holder(), "node-b");
  EXPECT_TRUE(ownership_.release("node-b").ok());
  EXPECT_TRUE(ownership_.claim_removal().ok());
}

// The format has room for it: what a later take-over will write is understood today.
TEST_F(OwnershipTest, ATakeOverByCopyIsUnderstood) {
  ASSERT_TRUE(ownership_.take("node-a", false).ok());
  ASSERT_EQ(symlink("rw:image.2:0a0b0c0d:node-b", (path_ + "/owner.2").c_str()), 0);
  EXPECT_EQ(holder(), "node-b");
  EXPECT_TRUE(ownership_.release("node-a").ok()) << "the old holder's detach comes late";
  EXPECT_EQ(holder(), "node-b");
  ASSERT_TRUE(ownership_.release("node-b").ok());
  const auto next = ownership_.take("node-c", false);
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(next->image, "image.2");
  EXPECT_EQ(next->generation, 3);
}

}  // namespace

}  // namespace collage::drivers
