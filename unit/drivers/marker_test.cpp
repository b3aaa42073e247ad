// The marker and the clusters' links in a backend's directory, written by programs that die or are overtaken
// at every single change.
#include "drivers/store/marker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "unit/drivers/faults.h"
#include "unit/testing/temp_dir.h"

namespace collage::drivers {
namespace {

using testing::Crash;
using testing::delayed_at;
using ::testing::ElementsAre;
using testing::TempDir;

const ClusterIdentity kOurs{"cluster-1", "uid-1"}, kTheirs{"cluster-1", "uid-2"};

// "link /srv/share/.x" -> "link"
std::string verb_of(const std::string& step) {
  return step.substr(0, step.find(' '));
}

TEST(MarkerCuts, AnIdThatAnybodyCouldReadIsTheIdForEver) {
  std::set<std::string> steps;
  for (int at = 0;; ++at) {
    const TempDir temp;
    Crash crash(at);
    const StoreDirectory dying(temp.path(), "node-a", crash.hook());
    const auto answered = make_marker(dying);
    SCOPED_TRACE("before " + crash.step());
    const StoreDirectory directory(temp.path(), "node-b");
    const auto seen = read_marker(directory);
    EXPECT_TRUE(seen.ok() || absl::IsNotFound(seen.status())) << "never a half one: " << seen.status();
    if (answered.ok()) {
      EXPECT_EQ(seen.value_or(""), *answered);
    }
    const auto made = make_marker(directory);
    ASSERT_TRUE(made.ok()) << made.status();
    if (seen.ok()) {
      EXPECT_EQ(*made, *seen);
    }
    EXPECT_EQ(read_marker(dying).value_or(""), *made);
    Marker marker(directory, "fast", {"share", "mount it"}, *made);
    EXPECT_TRUE(marker.verify(StoreDirectory::Need::kWrite).ok());
    if (!crash.happened()) break;
    steps.insert(verb_of(crash.step()));
  }
  EXPECT_THAT(steps, ElementsAre("create", "flush", "link", "unlink", "write"));
}

TEST(MarkerCuts, AMakerThatIsOvertakenTakesTheOthersId) {
  for (const char* step : {"create", "write", "link", "unlink", "flush"}) {
    SCOPED_TRACE(step);
    const TempDir temp;
    const StoreDirectory other(temp.path(), "node-b");
    std::string theirs;
    const StoreDirectory slow(temp.path(), "node-a",
                              delayed_at(step, [&] { theirs = make_marker(other).value_or("none"); }));
    const auto mine = make_marker(slow);
    ASSERT_TRUE(mine.ok()) << mine.status();
    EXPECT_EQ(*mine, theirs);
    EXPECT_EQ(read_marker(other).value_or(""), theirs);
  }
}

TEST(ClusterLinkCuts, AClusterIsRegisteredOnceAndSeenByTheNext) {
  std::set<std::string> steps;
  for (int at = 0;; ++at) {
    const TempDir temp;
    Crash crash(at);
    const StoreDirectory dying(temp.path(), "node-a", crash.hook());
    const auto answered = register_cluster(dying, kOurs);
    SCOPED_TRACE("before " + crash.step());
    const StoreDirectory directory(temp.path(), "node-b");
    const bool there = directory.list(temp.path())->size() == 1;
    EXPECT_TRUE(there || !answered.ok()) << "answered without a link";
    const auto other = register_cluster(directory, kTheirs);
    ASSERT_TRUE(other.ok()) << other.status();
    EXPECT_EQ(other->size(), there ? 2u : 1u);
    for (int again = 0; again < 2; ++again) {
      const auto ours = register_cluster(directory, kOurs);
      ASSERT_TRUE(ours.ok()) << ours.status();
      EXPECT_THAT(*ours, ElementsAre("uid-1", "uid-2"));
    }
    EXPECT_EQ(directory.list(temp.path())->size(), 2u) << "one link a cluster";
    if (!crash.happened()) break;
    steps.insert(verb_of(crash.step()));
  }
  EXPECT_THAT(steps, ElementsAre("flush", "note"));
}

TEST(ClusterLinkCuts, OfTwoThatComeAtOnceOneSeesBoth) {
  for (const char* step : {"note", "flush"}) {
    SCOPED_TRACE(step);
    const TempDir temp;
    const StoreDirectory other(temp.path(), "node-b");
    size_t theirs = 0;
    const StoreDirectory slow(
        temp.path(), "node-a", delayed_at(step, [&] {
          theirs = register_cluster(other, kTheirs).value_or(std::vector<std::string>{}).size();
        }));
    const auto mine = register_cluster(slow, kOurs);
    ASSERT_TRUE(mine.ok()) << mine.status();
    EXPECT_EQ(std::max(mine->size(), theirs), 2u);
  }
}

}  // namespace
}  // namespace collage::drivers
