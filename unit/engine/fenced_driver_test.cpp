#include "operator/engine/fenced_driver.h"

#include <gtest/gtest.h>

#include "unit/testing/fake_driver.h"

namespace collage::engine {
namespace {

using base::Context;
using drivers::Verb;
using testing::FakeDriver;

class FencedDriverTest : public ::testing::Test {
 protected:
  absl::Status leads_;
  std::shared_ptr<FakeDriver> inner_ = std::make_shared<FakeDriver>();
  std::shared_ptr<drivers::Driver> driver_ = make_fenced_driver(inner_, [this] { return leads_; });
  const drivers::CreateRequest request_{
      .name = "pvc-1", .required_bytes = 1 << 20, .capabilities = {{.fs_type = "ext4"}}};
};

TEST_F(FencedDriverTest, PassesEveryCallOnWhileTheProcessLeads) {
  const Context context;
  EXPECT_TRUE(driver_->probe(context, {}).ok());
  const auto volume = driver_->create(context, request_);
  ASSERT_TRUE(volume.ok()) << volume.status();
  EXPECT_TRUE(driver_->find(context, "pvc-1").value().has_value());
  EXPECT_TRUE(driver_->inspect(context, volume->id).ok());
  EXPECT_EQ(driver_->list(context, "", 0)->volumes.size(), 1u);
  ASSERT_NE(driver_->attacher(), nullptr);
  EXPECT_TRUE(driver_->attacher()->attach(context, volume->id, "n", request_.capabilities[0], false).ok());
  inner_->can_fence(true);
  inner_->set_absence("n", "it is off");
  EXPECT_TRUE(driver_->attacher()->fence(context, volume->id, "n").ok());
  EXPECT_EQ(driver_->attacher()->proof_of_absence(context, "n").value(), "it is off");
  EXPECT_TRUE(driver_->attacher()->detach(context, volume->id, "n").ok());
  ASSERT_NE(driver_->capacity_reporter(), nullptr);
  EXPECT_TRUE(driver_->capacity_reporter()->capacity(context, {}, {}).ok());
  EXPECT_TRUE(driver_->remove(context, volume->id).ok());
  EXPECT_EQ(driver_->info().kind, inner_->info().kind);
}

TEST_F(FencedDriverTest, BeginsNothingWhenItDoesNot) {
  leads_ = absl::CancelledError("leads no more");
  const Context context;
  const absl::Status answers[] = {
      driver_->probe(context, {}).status(),
      driver_->create(context, request_).status(),
      driver_->find(context, "pvc-1").status(),
      driver_->inspect(context, "vol-pvc-1").status(),
      driver_->list(context, "", 0).status(),
      driver_->attacher()->attach(context, "vol-pvc-1", "n", request_.capabilities[0], false).status(),
      driver_->attacher()->detach(context, "vol-pvc-1", "n"),
      driver_->attacher()->fence(context, "vol-pvc-1", "n"),
      driver_->attacher()->proof_of_absence(context, "n").status(),
      driver_->capacity_reporter()->capacity(context, {}, {}).status(),
      driver_->remove(context, "vol-pvc-1"),
  };
  for (const absl::Status& answer : answers) EXPECT_EQ(answer, leads_);
  for (const Verb verb : {Verb::kProbe, Verb::kCreate, Verb::kFind, Verb::kInspect, Verb::kList,
                          Verb::kAttach, Verb::kDetach, Verb::kFence, Verb::kCapacity, Verb::kRemove}) {
    EXPECT_EQ(inner_->calls(verb), 0);
  }
}

// A call of several steps asks its context before each.
TEST_F(FencedDriverTest, StopsACallBetweenItsSteps) {
  absl::Status between;
  inner_->before([&](const Context& context, Verb, const std::string&) {
    leads_ = absl::CancelledError("leads no more");
    return between = context.status();
  });
  EXPECT_EQ(driver_->create(Context(), request_).status(), leads_);
  EXPECT_EQ(between, leads_);
  EXPECT_TRUE(inner_->volumes().empty());
}

TEST(FencedDriver, HasOnlyTheParts) {
  const auto inner =
      std::make_shared<FakeDriver>(testing::FakeDriverOptions{.attaches = false, .reports_capacity = false});
  const auto driver = make_fenced_driver(inner, [] { return absl::OkStatus(); });
  EXPECT_EQ(driver->attacher(), nullptr);
  EXPECT_EQ(driver->capacity_reporter(), nullptr);
  EXPECT_EQ(drivers::features(*driver), drivers::features(*inner));
}

}  // namespace
}  // namespace collage::engine
