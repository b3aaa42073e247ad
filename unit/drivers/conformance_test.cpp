#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "drivers/registry.h"
#include "unit/drivers/conformance.h"

// What every driver promises for making, finding and removing volumes.
namespace collage::testing {

namespace {

using absl::StatusCode;
using drivers::AccessMode;
using drivers::CreateRequest;
using drivers::Volume;
using drivers::VolumeMode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

INSTANTIATE_TEST_SUITE_P(EveryKind, Conformance, ::testing::ValuesIn(all_subjects()), subject_name);

TEST_P(Conformance, InfoIsComplete) {
  const drivers::DriverInfo& info = driver_->info();
  EXPECT_EQ(info.kind, GetParam().kind);
  EXPECT_FALSE(info.description.empty());
  EXPECT_FALSE(info.access_modes.empty());
  EXPECT_FALSE(info.volume_modes.empty());
  EXPECT_GT(info.minimum_bytes, 0);
  EXPECT_GT(info.granularity_bytes, 0);
  EXPECT_EQ(kind_->info.kind, info.kind);
}

TEST_P(Conformance, PartsAreWhatTheKindSays) {
  EXPECT_EQ(driver_->attacher() != nullptr, kind_->attaches);
  EXPECT_EQ(driver_->capacity_reporter() != nullptr, kind_->reports_capacity);
  const auto features = drivers::features(*driver_);
  const auto has = [&](const char* name) {
    return std::find(features.begin(), features.end(), name) != features.end();
  };
  EXPECT_EQ(has("Attach"), kind_->attaches);
  EXPECT_EQ(has("Capacity"), kind_->reports_capacity);
  EXPECT_EQ(has("RawBlock"), drivers::supports(driver_->info(), VolumeMode::kBlock));
}

TEST_P(Conformance, ProbeAnswersTheSameIdentityEveryTime) {
  const auto first = driver_->probe(context_, {});
  ASSERT_TRUE(first.ok()) << first.status();
  const auto again = driver_->probe(context_, {.initialize = true});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->system_id, first->system_id);
  EXPECT_TRUE(driver_->probe(context_, {.expected_system_id = first->system_id}).ok());
  EXPECT_EQ(driver_->probe(context_, {.expected_system_id = "another"}).status().code(),
            StatusCode::kFailedPrecondition);
}

TEST_P(Conformance, CreateTwiceIsOneVolume) {
  const Volume first = created("pvc-1");
  const Volume second = created("pvc-1");
  EXPECT_EQ(first, second);
  EXPECT_THAT(all_names(), ElementsAre("pvc-1"));
  EXPECT_EQ(first.name, "pvc-1");
  EXPECT_GE(first.capacity_bytes, driver_->info().minimum_bytes);
  EXPECT_EQ(first.tags.at(drivers::kTagClaim), "default/data");
}

TEST_P(Conformance, SameNameWithAnotherSizeIsRefused) {
  const Volume volume = created("pvc-1");
  CreateRequest larger = request("pvc-1");
  larger.required_bytes = volume.capacity_bytes + driver_->info().granularity_bytes;
  const auto answer = driver_->create(context_, larger);
  EXPECT_EQ(answer.status().code(), StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(answer.status().message()), HasSubstr("pvc-1"));
  EXPECT_EQ(driver_->inspect(context_, volume.id)->capacity_bytes, volume.capacity_bytes);
}

TEST_P(Conformance, SameNameAboveTheLimitIsRefused) {
  CreateRequest large = request("pvc-1");
  large.required_bytes += 4 * driver_->info().granularity_bytes;
  ASSERT_TRUE(driver_->create(context_, large).ok());
  CreateRequest limited = request("pvc-1");
  limited.limit_bytes = limited.required_bytes + driver_->info().granularity_bytes;
  EXPECT_EQ(driver_->create(context_, limited).status().code(), StatusCode::kAlreadyExists);
}

TEST_P(Conformance, ACompatibleSizeIsTheSameVolume) {
  CreateRequest large = request("pvc-1");
  large.required_bytes += 4 * driver_->info().granularity_bytes;
  const auto volume = driver_->create(context_, large);
  ASSERT_TRUE(volume.ok()) << volume.status();
  const auto smaller = driver_->create(context_, request("pvc-1"));
  ASSERT_TRUE(smaller.ok()) << smaller.status();
  EXPECT_EQ(*smaller, *volume);
  EXPECT_THAT(all_names(), ElementsAre("pvc-1"));
}

TEST_P(Conformance, ALostAnswerThenARetryIsOneEffect) {
  LossyDriver lossy(*driver_);
  lossy.lose(true);
  EXPECT_EQ(lossy.create(context_, request("pvc-1")).status().code(), StatusCode::kUnavailable);
  lossy.lose(false);
  const auto volume = lossy.create(context_, request("pvc-1"));
  ASSERT_TRUE(volume.ok()) << volume.status();
  EXPECT_THAT(all_names(), ElementsAre("pvc-1"));

  lossy.lose(true);
  EXPECT_EQ(lossy.remove(context_, volume->id).code(), StatusCode::kUnavailable);
  lossy.lose(false);
  EXPECT_TRUE(lossy.remove(context_, volume->id).ok());
  EXPECT_THAT(all_names(), IsEmpty());
}

TEST_P(Conformance, RemoveOfWhatIsGoneIsOk) {
  const Volume volume = created("pvc-1");
  EXPECT_TRUE(driver_->remove(context_, volume.id).ok());
  EXPECT_TRUE(driver_->remove(context_, volume.id).ok());
  EXPECT_EQ(driver_->inspect(context_, volume.id).status().code(), StatusCode::kNotFound);
  EXPECT_THAT(all_names(), IsEmpty());
  for (const char* never : {"never-was", "..", "../x", "a/b/c", "/", " "}) {
    const absl::Status status = driver_->remove(context_, never);
    EXPECT_TRUE(status.ok() || status.code() == StatusCode::kFailedPrecondition) << never << ": " << status;
  }
}

TEST_P(Conformance, ANameCanBeUsedAgain) {
  const Volume first = created("pvc-1");
  ASSERT_TRUE(driver_->remove(context_, first.id).ok());
  CreateRequest larger = request("pvc-1");
  larger.required_bytes = first.capacity_bytes + driver_->info().granularity_bytes;
  const auto second = driver_->create(context_, larger);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_GT(second->capacity_bytes, first.capacity_bytes);
}

TEST_P(Conformance, FindInspectAndListAgree) {
  const Volume volume = created("pvc-1");
  const auto found = driver_->find(context_, "pvc-1");
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_TRUE(found->has_value());
  EXPECT_EQ(**found, volume);
  const auto inspected = driver_->inspect(context_, volume.id);
  ASSERT_TRUE(inspected.ok()) << inspected.status();
  EXPECT_EQ(*inspected, volume);
  EXPECT_THAT(all_volumes(), ElementsAre(volume));

  const auto other = driver_->find(context_, "pvc-2");
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_FALSE(other->has_value());
  EXPECT_EQ(driver_->inspect(context_, volume.id + "-not").status().code(), StatusCode::kNotFound);
}

TEST_P(Conformance, PagesCoverEveryVolumeOnce) {
  std::set<std::string> made;
  for (int i = 0; i < 7; ++i) made.insert(created(absl::StrCat("pvc-", i)).id);
  for (int most : {1, 2, 3, 6, 7, 8, 0}) {
    std::multiset<std::string> seen;
    std::string token;
    do {
      const auto page = driver_->list(context_, token, most);
      ASSERT_TRUE(page.ok()) << page.status();
      if (most != 0) {
        EXPECT_LE(page->volumes.size(), static_cast<size_t>(most));
      }
      EXPECT_TRUE(page->next_token.empty() || !page->volumes.empty()) << "a page without progress";
      for (const Volume& volume : page->volumes) seen.insert(volume.id);
      ASSERT_LE(seen.size(), made.size()) << "volumes come twice";
      token = page->next_token;
    } while (!token.empty());
    EXPECT_EQ(seen, std::multiset<std::string>(made.begin(), made.end())) << "pages of " << most;
  }
}

TEST_P(Conformance, AListGoesOnWhenVolumesGoMeanwhile) {
  for (int i = 0; i < 4; ++i) created(absl::StrCat("pvc-", i));
  const auto first = driver_->list(context_, "", 2);
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_EQ(first->volumes.size(), 2u);
  for (const Volume& volume : first->volumes) ASSERT_TRUE(driver_->remove(context_, volume.id).ok());
  const auto second = driver_->list(context_, first->next_token, 2);
  if (second.status().code() == StatusCode::kAborted) return;  // "start over" is an honest answer
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->volumes.size(), 2u);
}

TEST_P(Conformance, AForeignTokenMeansStartOver) {
  EXPECT_EQ(driver_->list(context_, "\x01 what is this", 1).status().code(), StatusCode::kAborted);
}

TEST_P(Conformance, AnUnknownParameterIsRefused) {
  CreateRequest with = request("pvc-1");
  with.parameters = {{"colour", "blue"}};
  const auto answer = driver_->create(context_, with);
  EXPECT_EQ(answer.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(answer.status().message()), HasSubstr("colour"));
  EXPECT_THAT(all_names(), IsEmpty());
}

TEST_P(Conformance, WrongSizesAreRefused) {
  const int64_t minimum = driver_->info().minimum_bytes;
  const int64_t granularity = driver_->info().granularity_bytes;
  struct Case {
    const char* name;
    int64_t required;
    int64_t limit;
    StatusCode code;
  };
  std::vector<Case> cases = {
      {"zero", 0, 0, StatusCode::kInvalidArgument},
      {"negative", -1, 0, StatusCode::kInvalidArgument},
      {"most negative", std::numeric_limits<int64_t>::min(), 0, StatusCode::kInvalidArgument},
      {"negative limit", minimum, -1, StatusCode::kInvalidArgument},
      {"limit below", 2 * minimum, minimum, StatusCode::kOutOfRange},
      {"largest number", std::numeric_limits<int64_t>::max() - 1, 0, StatusCode::kOutOfRange},
  };
  if (minimum > 1) cases.push_back({"below the minimum", minimum - 1, 0, StatusCode::kOutOfRange});
  if (granularity > 1)
    cases.push_back({"no multiple fits", minimum + 1, minimum + 2, StatusCode::kOutOfRange});
  for (const Case& c : cases) {
    CreateRequest wrong = request("pvc-1");
    wrong.required_bytes = c.required;
    wrong.limit_bytes = c.limit;
    const auto answer = driver_->create(context_, wrong);
    EXPECT_EQ(answer.status().code(), c.code) << c.name << ": " << base::to_string(answer.status());
    EXPECT_THAT(std::string(answer.status().message()), HasSubstr("size")) << c.name;
  }
  EXPECT_THAT(all_names(), IsEmpty());
}

TEST_P(Conformance, SizesAreRoundedUpUnderTheLimit) {
  const drivers::DriverInfo& info = driver_->info();
  CreateRequest odd = request("pvc-1");
  odd.required_bytes = info.minimum_bytes + 1;
  odd.limit_bytes = info.minimum_bytes + info.granularity_bytes;
  const auto volume = driver_->create(context_, odd);
  ASSERT_TRUE(volume.ok()) << volume.status();
  EXPECT_GE(volume->capacity_bytes, odd.required_bytes);
  EXPECT_LE(volume->capacity_bytes, odd.limit_bytes);
  const auto again = driver_->create(context_, odd);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(*again, *volume);
}

TEST_P(Conformance, WrongRequestsAreRefused) {
  struct Case {
    const char* name;
    void (*change)(CreateRequest& request);
    const char* message;
  };
  const Case cases[] = {
      {"no name", [](CreateRequest& r) { r.name.clear(); }, "name"},
      {"no capability", [](CreateRequest& r) { r.capabilities.clear(); }, "capabilities"},
      {"unknown fs type", [](CreateRequest& r) { r.capabilities[0] = {.fs_type = "ntfs"}; }, "ntfs"},
      {"unknown access mode",
       [](CreateRequest& r) { r.capabilities[0].access_mode = static_cast<AccessMode>(99); }, "ccess"},
  };
  for (const Case& c : cases) {
    CreateRequest wrong = request("pvc-1");
    c.change(wrong);
    const auto answer = driver_->create(context_, wrong);
    EXPECT_EQ(answer.status().code(), StatusCode::kInvalidArgument)
        << c.name << ": " << base::to_string(answer.status());
    EXPECT_THAT(std::string(answer.status().message()), HasSubstr(c.message)) << c.name;
  }
}

TEST_P(Conformance, EveryOfferedCapabilityCanBeHad) {
  int number = 0;
  for (VolumeMode mode : driver_->info().volume_modes) {
    for (AccessMode access : driver_->info().access_modes) {
      CreateRequest wanted = request(absl::StrCat("pvc-", number++));
      wanted.capabilities = {{.mode = mode, .access_mode = access}};
      const auto volume = driver_->create(context_, wanted);
      EXPECT_TRUE(volume.ok()) << to_string(mode) << " " << to_string(access) << ": " << volume.status();
    }
  }
}

TEST_P(Conformance, CreatesOfOneNameAtOnceMakeOneVolume) {
  constexpr int kThreads = 8;
  std::vector<absl::StatusOr<Volume>> answers(kThreads, absl::UnknownError(""));
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] { answers[i] = driver_->create(context_, request("pvc-1")); });
    }
  }
  for (const auto& answer : answers) {
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(answer->id, answers[0]->id);
  }
  EXPECT_THAT(all_names(), ElementsAre("pvc-1"));
}

TEST_P(Conformance, RemovesAtOnceAreAllOk) {
  const Volume volume = created("pvc-1");
  std::vector<absl::Status> answers(4);
  {
    std::vector<std::jthread> threads;
    for (absl::Status& answer : answers)
      threads.emplace_back([&] { answer = driver_->remove(context_, volume.id); });
  }
  for (const absl::Status& answer : answers) EXPECT_TRUE(answer.ok()) << answer;
  EXPECT_THAT(all_names(), IsEmpty());
}

TEST_P(Conformance, AStoppedCallerGetsNoFinalAnswer) {
  std::stop_source stop;
  stop.request_stop();
  const base::Context stopped(stop.get_token());
  const auto answer = driver_->create(stopped, request("pvc-1"));
  EXPECT_EQ(answer.status().code(), StatusCode::kCancelled) << answer.status();
  created("pvc-1");
  EXPECT_THAT(all_names(), ElementsAre("pvc-1"));
}

TEST_P(Conformance, CapacityFallsWithEachVolume) {
  drivers::CapacityReporter* const reporter = driver_->capacity_reporter();
  if (reporter == nullptr) GTEST_SKIP() << "the kind reports no capacity";
  constexpr int64_t kSize = 64 << 20;
  const auto before = reporter->capacity(context_, {}, {});
  ASSERT_TRUE(before.ok()) << before.status();
  CreateRequest large = request("pvc-1");
  large.required_bytes = kSize;
  const auto volume = driver_->create(context_, large);
  ASSERT_TRUE(volume.ok()) << volume.status();
  const auto during = reporter->capacity(context_, {}, {});
  ASSERT_TRUE(during.ok()) << during.status();
  EXPECT_LE(during->available_bytes, before->available_bytes - kSize);
  EXPECT_EQ(during->total_bytes, before->total_bytes);
  ASSERT_TRUE(driver_->remove(context_, volume->id).ok());
  const auto after = reporter->capacity(context_, {}, {});
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_GT(after->available_bytes, during->available_bytes + kSize / 2);
}

TEST_P(Conformance, TheMaximumVolumeCanBeHadAndNoMore) {
  drivers::CapacityReporter* const reporter = driver_->capacity_reporter();
  if (reporter == nullptr) GTEST_SKIP() << "the kind reports no capacity";
  // Most of the room goes to one volume, so that the largest one that is left is a small one.
  CreateRequest filler = request("filler");
  filler.required_bytes = storage_->room_bytes() - (64 << 20);
  ASSERT_TRUE(driver_->create(context_, filler).ok());
  const auto now = reporter->capacity(context_, {}, {});
  ASSERT_TRUE(now.ok()) << now.status();
  ASSERT_GT(now->maximum_volume_bytes, 0);
  CreateRequest much = request("pvc-1");
  much.required_bytes = now->maximum_volume_bytes + driver_->info().granularity_bytes;
  const auto refused = driver_->create(context_, much);
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted) << refused.status();
  much.required_bytes = now->maximum_volume_bytes;
  const auto volume = driver_->create(context_, much);
  EXPECT_TRUE(volume.ok()) << volume.status();
}

TEST_P(Conformance, CapacityRefusesParametersThatCreateWouldRefuse) {
  drivers::CapacityReporter* const reporter = driver_->capacity_reporter();
  if (reporter == nullptr) GTEST_SKIP() << "the kind reports no capacity";
  const auto answer = reporter->capacity(context_, {{"colour", "blue"}}, {});
  EXPECT_EQ(answer.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(answer.status().message()), HasSubstr("colour"));
}

TEST_P(Conformance, VolumesOfOneNodeSayWhichAndStayThere) {
  if (driver_->info().control != drivers::ControlPlace::kOwnerNode)
    GTEST_SKIP() << "volumes of the kind belong to no node";
  const std::string key = drivers::node_topology_key(GetParam().kind);
  const Volume volume = created("pvc-1");
  EXPECT_EQ(volume.id, storage_->node_id(0) + "/pvc-1");
  EXPECT_THAT(volume.accessible, ElementsAre(drivers::Topology{{key, storage_->node_id(0)}}));
  CreateRequest elsewhere = request("pvc-2");
  elsewhere.requisite = {{{key, "node-elsewhere"}}};
  EXPECT_EQ(driver_->create(context_, elsewhere).status().code(), StatusCode::kResourceExhausted);
  elsewhere.requisite.push_back({{key, storage_->node_id(0)}});
  EXPECT_TRUE(driver_->create(context_, elsewhere).ok());
}

}  // namespace

}  // namespace collage::testing
