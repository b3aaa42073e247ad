#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "unit/drivers/conformance.h"

// What every driver with an Attacher promises, and how a node reaches a volume.
namespace collage::testing {

namespace {

using absl::StatusCode;
using drivers::Attacher;
using drivers::Driver;
using drivers::StringMap;
using drivers::Volume;
using drivers::VolumeCapability;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class AttachConformance : public Conformance {
 protected:
  void SetUp() override {
    Conformance::SetUp();
    if (HasFatalFailure()) return;
    ASSERT_NE(driver_->attacher(), nullptr);
    capability_.mode = driver_->info().volume_modes.front();
    capability_.access_mode = driver_->info().access_modes.front();
    volume_ = created("pvc-1");
  }

  absl::StatusOr<StringMap> attach(const std::string& node, bool read_only = false) {
    return driver_->attacher()->attach(context_, volume_.id, node, capability_, read_only);
  }
  absl::Status detach(const std::string& node) {
    return driver_->attacher()->detach(context_, volume_.id, node);
  }
  std::string holder() { return driver_->inspect(context_, volume_.id).value_or(Volume{}).attached_to; }

  VolumeCapability capability_;
  Volume volume_;
};

INSTANTIATE_TEST_SUITE_P(EveryKind, AttachConformance, ::testing::ValuesIn(attaching_subjects()),
                         subject_name);

TEST_P(AttachConformance, TheHolderIsShown) {
  EXPECT_EQ(holder(), "");
  ASSERT_TRUE(attach("node-a").ok());
  EXPECT_EQ(holder(), "node-a");
  EXPECT_EQ(driver_->find(context_, "pvc-1")->value().attached_to, "node-a");
  EXPECT_EQ(all_volumes().at(0).attached_to, "node-a");
  ASSERT_TRUE(detach("node-a").ok());
  EXPECT_EQ(holder(), "");
}

TEST_P(AttachConformance, TheHolderGetsTheSameAnswerAgain) {
  const auto first = attach("node-a");
  ASSERT_TRUE(first.ok()) << first.status();
  const auto again = attach("node-a");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(*again, *first);
}

TEST_P(AttachConformance, AnotherNodeIsRefusedByTheHoldersName) {
  ASSERT_TRUE(attach("node-a").ok());
  const auto other = attach("node-b");
  EXPECT_EQ(other.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(other.status().message()), HasSubstr("node-a"));
  EXPECT_EQ(holder(), "node-a");
}

// A storage that cannot fence says so, and nothing has changed.
TEST_P(AttachConformance, AFencedHolderHoldsItNoMoreAndOneThatCannotBeFencedDoes) {
  ASSERT_TRUE(attach("node-a").ok());
  EXPECT_TRUE(driver_->attacher()->fence(context_, volume_.id, "node-b").ok()) << "it does not hold it";
  EXPECT_EQ(holder(), "node-a");
  const absl::Status fenced = driver_->attacher()->fence(context_, volume_.id, "node-a");
  if (absl::IsUnimplemented(fenced)) {
    EXPECT_EQ(holder(), "node-a");
    ASSERT_TRUE(detach("node-a").ok());
  } else {
    ASSERT_TRUE(fenced.ok()) << fenced;
    EXPECT_TRUE(driver_->attacher()->fence(context_, volume_.id, "node-a").ok()) << "again";
  }
  EXPECT_EQ(holder(), "");
  EXPECT_TRUE(attach("node-b").ok());
}

TEST_P(AttachConformance, AVolumeMovesAfterItsDetach) {
  for (const char* node : {"node-a", "node-b", "node-a", "node-c"}) {
    const auto context = attach(node);
    ASSERT_TRUE(context.ok()) << context.status();
    EXPECT_TRUE(driver_->access(volume_.id, volume_.context, *context).ok());
    EXPECT_EQ(holder(), node);
    ASSERT_TRUE(detach(node).ok());
  }
}

TEST_P(AttachConformance, DetachTwiceIsOk) {
  ASSERT_TRUE(attach("node-a").ok());
  EXPECT_TRUE(detach("node-a").ok());
  EXPECT_TRUE(detach("node-a").ok());
  EXPECT_EQ(holder(), "");
}

TEST_P(AttachConformance, ADetachOfAnotherNodeLeavesTheHolder) {
  ASSERT_TRUE(attach("node-a").ok());
  EXPECT_TRUE(detach("node-b").ok());
  EXPECT_EQ(holder(), "node-a");
}

TEST_P(AttachConformance, ADetachFromAllNodesTakesEveryHold) {
  ASSERT_TRUE(attach("node-a").ok());
  EXPECT_TRUE(detach("").ok());
  EXPECT_EQ(holder(), "");
}

TEST_P(AttachConformance, DetachOfAMissingVolumeIsOk) {
  for (const char* id : {"pvc-none", "", "..", "a/b"}) {
    if (GetParam().way == Way::kAsOperations && *id == '\0')
      continue;  // an operation without an id is refused
    EXPECT_TRUE(driver_->attacher()->detach(context_, id, "node-a").ok()) << id;
  }
}

TEST_P(AttachConformance, AttachOfAMissingVolumeIsNotFound) {
  for (const char* id : {"pvc-none", "..", "a/b", "../pvc-1"}) {
    EXPECT_EQ(driver_->attacher()->attach(context_, id, "node-a", capability_, false).status().code(),
              StatusCode::kNotFound)
        << id;
  }
}

TEST_P(AttachConformance, AttachToNoNodeIsRefused) {
  EXPECT_EQ(attach("").status().code(), StatusCode::kInvalidArgument);
}

TEST_P(AttachConformance, AnUnknownCapabilityIsRefused) {
  capability_.access_mode = static_cast<drivers::AccessMode>(99);
  EXPECT_EQ(attach("node-a").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(holder(), "");
}

TEST_P(AttachConformance, AnAttachedVolumeIsNotRemoved) {
  ASSERT_TRUE(attach("node-a").ok());
  const absl::Status refused = driver_->remove(context_, volume_.id);
  EXPECT_EQ(refused.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("node-a"));
  EXPECT_EQ(holder(), "node-a");
  ASSERT_TRUE(detach("node-a").ok());
  EXPECT_TRUE(driver_->remove(context_, volume_.id).ok());
  EXPECT_THAT(all_names(), IsEmpty());
}

TEST_P(AttachConformance, ALostAnswerThenARetryIsOneEffect) {
  LossyDriver lossy(*driver_);
  lossy.lose(true);
  EXPECT_FALSE(lossy.attacher()->attach(context_, volume_.id, "node-a", capability_, false).ok());
  EXPECT_EQ(holder(), "node-a");
  lossy.lose(false);
  EXPECT_TRUE(lossy.attacher()->attach(context_, volume_.id, "node-a", capability_, false).ok());
  lossy.lose(true);
  EXPECT_FALSE(lossy.attacher()->detach(context_, volume_.id, "node-a").ok());
  EXPECT_EQ(holder(), "");
  lossy.lose(false);
  EXPECT_TRUE(lossy.attacher()->detach(context_, volume_.id, "node-a").ok());
}

TEST_P(AttachConformance, OfManyNodesAtOnceOneWins) {
  constexpr int kNodes = 8;
  std::vector<std::unique_ptr<Driver>> drivers;
  for (int i = 0; i < kNodes; ++i) drivers.push_back(driver_on(i));
  for (int round = 0; round < 20; ++round) {
    std::vector<absl::StatusOr<StringMap>> answers(kNodes, absl::UnknownError(""));
    {
      std::vector<std::jthread> threads;
      for (int i = 0; i < kNodes; ++i) {
        threads.emplace_back([&, i] {
          answers[i] =
              drivers[i]->attacher()->attach(context_, volume_.id, storage_->node_id(i), capability_, false);
        });
      }
    }
    int winners = 0;
    for (int i = 0; i < kNodes; ++i) {
      if (answers[i].ok()) {
        ++winners;
        EXPECT_EQ(holder(), storage_->node_id(i));
      } else {
        EXPECT_EQ(answers[i].status().code(), StatusCode::kFailedPrecondition) << answers[i].status();
      }
    }
    ASSERT_EQ(winners, 1) << "round " << round;
    ASSERT_TRUE(driver_->attacher()->detach(context_, volume_.id, "").ok());
  }
}

TEST_P(AttachConformance, NeverTwoHoldersUnderLoad) {
  constexpr int kNodes = 6;
  constexpr int kRounds = 60;
  std::vector<std::unique_ptr<Driver>> drivers;
  for (int i = 0; i < kNodes; ++i) drivers.push_back(driver_on(i));
  std::atomic<int> holders = 0;
  std::atomic<int> most = 0;
  std::atomic<int> attached = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < kNodes; ++i) {
      threads.emplace_back([&, i] {
        const std::string node = storage_->node_id(i);
        for (int round = 0; round < kRounds; ++round) {
          const auto answer = drivers[i]->attacher()->attach(context_, volume_.id, node, capability_, false);
          if (!answer.ok()) continue;
          const int now = ++holders;
          for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) continue;
          ++attached;
          --holders;
          if (!drivers[i]->attacher()->detach(context_, volume_.id, node).ok()) most = 100;
        }
      });
    }
  }
  EXPECT_EQ(most, 1);
  EXPECT_GT(attached, 0);
  EXPECT_EQ(holder(), "");
}

TEST_P(AttachConformance, RemoveAndAttachAtOnceNeverBothSucceed) {
  const std::unique_ptr<Driver> other = driver_on(1);
  for (int round = 0; round < 20; ++round) {
    const std::string name = absl::StrCat("race-", round);
    const Volume volume = created(name);
    absl::Status removed;
    absl::StatusOr<StringMap> attached = absl::UnknownError("");
    {
      std::jthread remover([&] { removed = driver_->remove(context_, volume.id); });
      std::jthread attacher([&] {
        attached = other->attacher()->attach(context_, volume.id, storage_->node_id(1), capability_, false);
      });
    }
    EXPECT_NE(removed.ok(), attached.ok()) << removed << " / " << attached.status();
    EXPECT_EQ(driver_->inspect(context_, volume.id).ok(), attached.ok());
  }
}

TEST_P(Conformance, AccessDescribesHowANodeReachesAVolume) {
  const Volume volume = created("pvc-1");
  StringMap publish_context;
  if (driver_->attacher() != nullptr) {
    EXPECT_FALSE(driver_->access(volume.id, volume.context, {}).ok()) << "a volume that is not attached";
    VolumeCapability capability{.mode = driver_->info().volume_modes.front(),
                                .access_mode = driver_->info().access_modes.front()};
    auto answer = driver_->attacher()->attach(context_, volume.id, storage_->node_id(0), capability, false);
    ASSERT_TRUE(answer.ok()) << answer.status();
    publish_context = *answer;
  }
  const auto access = driver_->access(volume.id, volume.context, publish_context);
  ASSERT_TRUE(access.ok()) << access.status();
}

}  // namespace

}  // namespace collage::testing
