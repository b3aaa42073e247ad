#include "operator/reconcile/deletion_decision.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace collage::reconcile {
namespace {

using engine::DeletionPolicy;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

DeletionFacts two_volumes(DeletionPolicy policy) {
  return {.policy = policy,
          .volumes = {{.name = "pvc-1", .bound = true, .attached_to = {"node-a"}},
                      {.name = "pvc-2", .retained = true}}};
}

TEST(Deletion, NothingLeftIsTheEnd) {
  for (DeletionPolicy policy : {DeletionPolicy::kBlock, DeletionPolicy::kOrphan, DeletionPolicy::kDelete})
    EXPECT_TRUE(decide_deletion({.policy = policy}).done);
}

TEST(Deletion, BlockSaysHowManyAndWhichAreLeftAndTouchesNone) {
  const auto verdict = decide_deletion(two_volumes(DeletionPolicy::kBlock));
  EXPECT_FALSE(verdict.done);
  EXPECT_THAT(verdict.message,
              AllOf(HasSubstr("2 PersistentVolumes"), HasSubstr("pvc-1, pvc-2"), HasSubstr("1 of them bound"),
                    HasSubstr("1 attached to node-a"), HasSubstr("spec.deletionPolicy to Orphan")));
  EXPECT_THAT(verdict.to_remove, IsEmpty());
}

TEST(Deletion, DeleteRemovesWhatIsRetainedAndNeverWhatIsBound) {
  EXPECT_THAT(decide_deletion(two_volumes(DeletionPolicy::kDelete)).to_remove, ElementsAre("pvc-2"));
}

TEST(Deletion, DeleteRemovesNothingWhileTheIdentityIsInDoubt) {
  auto facts = two_volumes(DeletionPolicy::kDelete);
  facts.identity = absl::FailedPreconditionError("another cluster");
  const auto verdict = decide_deletion(facts);
  EXPECT_THAT(verdict.to_remove, IsEmpty());
  EXPECT_THAT(verdict.message, HasSubstr("another cluster"));
}

TEST(Deletion, OrphanLeavesVolumesButWaitsForCreatesUnderWay) {
  auto facts = two_volumes(DeletionPolicy::kOrphan);
  EXPECT_TRUE(decide_deletion(facts).done);
  facts.creates = {"default/data"};
  const auto verdict = decide_deletion(facts);
  EXPECT_FALSE(verdict.done) << "its volume would be known to nobody";
  EXPECT_THAT(verdict.message, AllOf(HasSubstr("1 creates are under way (default/data)"),
                                     Not(HasSubstr("PersistentVolumes"))));
}

TEST(Deletion, LongListsAreCutShort) {
  EXPECT_EQ(some_of({"a", "b", "c"}, 3), "a, b, c");
  EXPECT_EQ(some_of({"a", "b", "c", "d"}, 2), "a, b and 2 more");
}

}  // namespace
}  // namespace collage::reconcile
