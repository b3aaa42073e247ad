#include "operator/reconcile/capacity.h"

#include <gtest/gtest.h>

#include "operator/kube/events.h"
#include "unit/testing/fake_api_server.h"
#include "unit/testing/fake_clock.h"
#include "unit/testing/fake_driver.h"

namespace collage::reconcile {
namespace {

// A publisher of the room of backend "share", whose one class is "fast".
class CapacityTest : public ::testing::Test {
 protected:
  CapacityTest()
      : client_(server_.client()),
        events_(*client_, "test", "test"),
        world_(*client_, events_, kinds_, "collage-system"),
        publisher_(world_) {
    backend_.spec.name = "share";
    backend_.spec.kind = "fake";
    backend_.spec.storage_classes.resize(1);
    backend_.spec.storage_classes[0].name = "fast";
  }
  ~CapacityTest() override { world_.capacities.stop(); }
  absl::Status publish() {
    const drivers::Capacity room{int64_t{10} << 30, int64_t{6} << 30, 0};
    Settling settling(world_.corrections, clock_.now(), true);
    absl::Status status =
        publisher_.publish(base::Context(std::stop_token(), clock_), backend_, {{{}, room}}, settling);
    contested_ = settling.contested();
    return status;
  }
  size_t objects() const { return server_.list(kube::kCsiStorageCapacities).size(); }

  testing::FakeApiServer server_;
  testing::FakeClock clock_;
  std::unique_ptr<kube::Client> client_;
  kube::EventRecorder events_;
  const std::vector<drivers::Kind> kinds_{testing::fake_kind()};
  World world_;
  CapacityPublisher publisher_;
  engine::Backend backend_;
  std::string contested_;
};

TEST_F(CapacityTest, WhatDidNotChangeIsWrittenOnce) {
  ASSERT_TRUE(publish().ok());
  ASSERT_TRUE(publish().ok());
  EXPECT_EQ(objects(), 1u);
  EXPECT_EQ(server_.writes("csistoragecapacities"), 1);
}

TEST_F(CapacityTest, WhatSomebodyDeletedIsMadeAgainAndAgainAndThenWithPauses) {
  world_.capacities.start({});
  ASSERT_TRUE(world_.capacities.wait_synced({}).ok());
  ASSERT_TRUE(publish().ok());
  const std::string name =
      "collage-system/" + base::get_string(server_.list(kube::kCsiStorageCapacities)[0], "/metadata/name");
  for (int i = 0; i <= Corrections::kAtOnce; ++i) {
    EXPECT_EQ(contested_, "");
    ASSERT_EQ(objects(), 1u) << i;
    server_.erase(kube::kCsiStorageCapacities, name);
    ASSERT_TRUE(server_.wait_until([&] { return world_.capacities.size() == 0; }));
    ASSERT_TRUE(publish().ok());
    if (i + 1 >= Corrections::kAtOnce) break;
  }
  EXPECT_NE(contested_, "") << "somebody keeps deleting it";
  server_.erase(kube::kCsiStorageCapacities, name);
  ASSERT_TRUE(server_.wait_until([&] { return world_.capacities.size() == 0; }));
  ASSERT_TRUE(publish().ok());
  EXPECT_EQ(objects(), 0u);
  clock_.advance(Corrections::kFirstWait);
  ASSERT_TRUE(publish().ok());
  EXPECT_EQ(objects(), 1u);
}

}  // namespace
}  // namespace collage::reconcile
