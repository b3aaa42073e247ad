#include "operator/engine/limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"

namespace collage::engine {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kGi = int64_t{1} << 30;
constexpr Limits kLimits = {
    .max_volumes = 2, .max_volume_bytes = 10 * kGi, .max_provisioned_bytes = 12 * kGi};

TEST(Usage, NoLimitsNoRefusal) {
  Usage usage;
  for (int i = 0; i < 100; ++i)
    EXPECT_TRUE(usage.reserve("fast", {}, absl::StrCat("pvc-", i), 1000 * kGi).ok());
  EXPECT_EQ(usage.total("fast").volumes, 100);
  EXPECT_EQ(usage.total("fast").bytes, 100'000 * kGi);
  EXPECT_EQ(usage.total("other").volumes, 0);
}

TEST(Usage, RefusesAVolumeThatIsTooLarge) {
  Usage usage;
  const absl::Status status = usage.reserve("fast", kLimits, "pvc-1", 10 * kGi + 1);
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("StorageBackend \"fast\" spec.limits.maxVolumeSize is 10Gi"));
  EXPECT_EQ(usage.total("fast").volumes, 0);
  EXPECT_TRUE(usage.reserve("fast", kLimits, "pvc-1", 10 * kGi).ok());
}

TEST(Usage, RefusesOneVolumeTooMany) {
  Usage usage;
  usage.set("fast", "pvc-1", kGi);
  EXPECT_TRUE(usage.reserve("fast", kLimits, "pvc-2", kGi).ok());
  const absl::Status status = usage.reserve("fast", kLimits, "pvc-3", kGi);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("spec.limits.maxVolumes is 2, 2 are used"));
  EXPECT_EQ(usage.total("fast").volumes, 2);
  EXPECT_TRUE(usage.reserve("other", kLimits, "pvc-3", kGi).ok()) << "another backend has limits of its own";
}

TEST(Usage, TheBoundaryIsExactInNumberSizeAndSum) {
  Usage usage;
  EXPECT_TRUE(usage.reserve("fast", kLimits, "pvc-1", 10 * kGi).ok()) << "maxVolumeSize itself is allowed";
  EXPECT_FALSE(usage.reserve("fast", kLimits, "pvc-2", 2 * kGi + 1).ok()) << "one byte above maxProvisioned";
  EXPECT_TRUE(usage.reserve("fast", kLimits, "pvc-2", 2 * kGi).ok()) << "maxProvisioned itself is allowed";
  EXPECT_FALSE(usage.reserve("fast", kLimits, "pvc-3", 1).ok()) << "maxVolumes are there";
  EXPECT_EQ(usage.total("fast").bytes, 12 * kGi);
  EXPECT_FALSE(usage.release("fast", "pvc-3")) << "what was refused holds nothing";
  usage.set("fast", "pvc-1", 10 * kGi);
  EXPECT_FALSE(usage.release("fast", "pvc-1")) << "it is real: nothing comes free";
  EXPECT_TRUE(usage.release("fast", "pvc-2"));
  EXPECT_TRUE(usage.reserve("fast", kLimits, "pvc-3", 2 * kGi).ok());
}

TEST(Usage, RefusesTooMuchInAll) {
  Usage usage;
  usage.set("fast", "pvc-1", 8 * kGi);
  const absl::Status status = usage.reserve("fast", kLimits, "pvc-2", 5 * kGi);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("spec.limits.maxProvisioned is 12Gi, 8Gi are used and 5Gi was asked for"));
  EXPECT_TRUE(usage.reserve("fast", kLimits, "pvc-2", 4 * kGi).ok());
}

TEST(Usage, ReservingAgainReplaces) {
  Usage usage;
  EXPECT_TRUE(usage.reserve("fast", kLimits, "pvc-1", 9 * kGi).ok());
  EXPECT_TRUE(usage.reserve("fast", kLimits, "pvc-1", 10 * kGi).ok());
  EXPECT_EQ(usage.total("fast").volumes, 1);
  EXPECT_EQ(usage.total("fast").bytes, 10 * kGi);
  EXPECT_TRUE(usage.reserve("fast", kLimits, "pvc-1", kGi).ok());
  EXPECT_EQ(usage.total("fast").bytes, kGi);
}

TEST(Usage, ReleaseGivesBackAReservationOnly) {
  Usage usage;
  EXPECT_TRUE(usage.reserve("fast", kLimits, "pvc-1", kGi).ok());
  usage.release("fast", "pvc-1");
  EXPECT_EQ(usage.total("fast").volumes, 0);
  EXPECT_EQ(usage.total("fast").bytes, 0);
  EXPECT_TRUE(usage.reserve("fast", kLimits, "pvc-1", kGi).ok());
  usage.set("fast", "pvc-1", 2 * kGi);
  usage.release("fast", "pvc-1");
  EXPECT_EQ(usage.total("fast").volumes, 1);
  EXPECT_EQ(usage.total("fast").bytes, 2 * kGi);
  usage.release("fast", "unknown");
  usage.release("unknown", "pvc-1");
}

TEST(Usage, AnExistingVolumeIsCountedOnceWhileItsCreateIsRepeated) {
  Usage usage;
  usage.set("fast", "pvc-1", 3 * kGi);
  EXPECT_TRUE(usage.reserve("fast", kLimits, "pvc-1", 2 * kGi).ok());
  EXPECT_EQ(usage.total("fast").volumes, 1);
  EXPECT_EQ(usage.total("fast").bytes, 3 * kGi);
  usage.release("fast", "pvc-1");
  EXPECT_EQ(usage.total("fast").bytes, 3 * kGi);
  usage.set("fast", "pvc-1", -1);
  EXPECT_EQ(usage.total("fast").volumes, 0);
  EXPECT_EQ(usage.total("fast").bytes, 0);
}

TEST(Usage, ThreadsNeverGoBeyondALimitTogether) {
  Usage usage;
  const Limits limits = {.max_volumes = 50};
  std::atomic<int> granted = 0;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 100; ++i)
          granted += usage.reserve("fast", limits, absl::StrCat(t, "-", i), 1).ok();
      });
    }
  }
  EXPECT_EQ(granted, 50);
  EXPECT_EQ(usage.total("fast").volumes, 50);
}

}  // namespace
}  // namespace collage::engine
