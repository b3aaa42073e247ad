#include "operator/reconcile/corrections.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace collage::reconcile {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::HasSubstr;

const base::Clock::Monotonic kStart{seconds(1000)};

TEST(Corrections, TheFirstAreMadeAtOnceThenTheyWaitLongerAndLonger) {
  Corrections corrections;
  auto now = kStart;
  for (int i = 0; i < Corrections::kAtOnce; ++i) EXPECT_EQ(corrections.begin("a", now).count(), 0) << i;
  EXPECT_EQ(corrections.begin("a", now), seconds(10));
  EXPECT_EQ(corrections.begin("b", now).count(), 0) << "another object is not held up";
  std::vector<seconds> waits;
  for (int i = 0; i < 8; ++i) {
    const auto wait = corrections.begin("a", now);
    waits.push_back(std::chrono::duration_cast<seconds>(wait));
    now += wait;
    ASSERT_EQ(corrections.begin("a", now).count(), 0);
  }
  EXPECT_THAT(waits, ::testing::ElementsAre(seconds(10), seconds(20), seconds(40), seconds(80), seconds(160),
                                            seconds(300), seconds(300), seconds(300)));
}

TEST(Corrections, AreForgottenAfterAQuietTime) {
  Corrections corrections;
  for (int i = 0; i < Corrections::kAtOnce; ++i) (void)corrections.begin("a", kStart);
  EXPECT_GT(corrections.contested("a", kStart + minutes(9)).count(), 0);
  (void)corrections.begin("other", kStart + minutes(11));
  EXPECT_EQ(corrections.contested("a", kStart + minutes(11)).count(), 0);
  EXPECT_EQ(corrections.begin("a", kStart + minutes(11)).count(), 0);
}

TEST(Settling, NewsOfOurOwnIsNoCorrection) {
  Corrections corrections;
  for (int i = 0; i < 20; ++i) {
    Settling fresh(corrections, kStart, false);
    EXPECT_TRUE(fresh.may_write("a", fresh.change(true), ""));
    EXPECT_EQ(fresh.contested(), "");
    EXPECT_FALSE(fresh.may_write("b", fresh.change(false), ""));
  }
}

TEST(Settling, SaysWhatIsContestedAndWhenItIsSetRightAgain) {
  Corrections corrections;
  for (int i = 0; i < Corrections::kAtOnce; ++i) {
    Settling settling(corrections, kStart, true);
    EXPECT_TRUE(settling.may_write("StorageClass fast", settling.change(true), "find who writes it"));
  }
  Settling settling(corrections, kStart + seconds(1), true);
  EXPECT_FALSE(settling.may_write("StorageClass fast", settling.change(true), "find who writes it"));
  EXPECT_THAT(settling.contested(),
              HasSubstr("StorageClass fast is changed by somebody else again and again"));
  EXPECT_THAT(settling.contested(), HasSubstr("find who writes it"));
  EXPECT_EQ(settling.again(), seconds(9));
  Settling quiet(corrections, kStart + seconds(20), true);
  EXPECT_FALSE(quiet.may_write("StorageClass fast", quiet.change(false), "find who writes it"));
  EXPECT_NE(quiet.contested(), "") << "told while it may go on";
}

}  // namespace
}  // namespace collage::reconcile
