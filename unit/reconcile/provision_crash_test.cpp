// What an operator finds that was killed in the middle of a create, when more than the claim has changed
// meanwhile. The kills themselves, at every step: cuts_test.cpp.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "unit/reconcile/cluster.h"

namespace collage::reconcile {
namespace {

using drivers::Verb;
using testing::Cluster;
using ::testing::SizeIs;

// Dies once, when the driver has made the volume and not answered yet.
void die_after_create(Cluster& cluster) {
  auto armed = std::make_shared<std::atomic<bool>>(true);
  cluster.driver->after(
      [&cluster, armed](const base::Context&, Verb verb, const std::string&) -> absl::Status {
        if (cluster.dead()) return absl::UnavailableError("the process is dead");
        if (verb != Verb::kCreate || !armed->exchange(false)) return absl::OkStatus();
        cluster.die();
        return absl::UnavailableError("killed");
      });
}

TEST(ProvisionCrashes, KilledAgainWhileCleaningUpStillLeaksNothing) {
  Cluster cluster;
  die_after_create(cluster);
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.dead(); }));
  cluster.kill();
  cluster.delete_claim("data");
  std::atomic<bool> armed = true;
  cluster.driver->after([&](const base::Context&, Verb verb, const std::string&) -> absl::Status {
    if (verb != Verb::kRemove || !armed.exchange(false)) return absl::OkStatus();
    cluster.die();
    return absl::UnavailableError("killed");
  });
  cluster.start();
  ASSERT_TRUE(cluster.wait([&] { return cluster.dead(); }));
  cluster.restart();
  EXPECT_TRUE(cluster.wait([&] { return cluster.driver->volumes().empty() && cluster.no_intents(); }));
}

TEST(ProvisionCrashes, AVolumeWhoseClassIsGoneIsFoundByItsName) {
  Cluster cluster;
  die_after_create(cluster);
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.dead(); }));
  cluster.kill();
  ASSERT_THAT(cluster.driver->volumes(), SizeIs(1));
  cluster.delete_claim("data");
  cluster.api.remove(kube::kStorageClasses, "fast");
  cluster.start();
  EXPECT_TRUE(cluster.wait([&] { return cluster.driver->volumes().empty() && cluster.no_intents(); }));
  EXPECT_EQ(cluster.driver->calls(Verb::kCreate), 1);
}

TEST(ProvisionCrashes, AClassMadeAnewStartsTheCreateOver) {
  Cluster cluster;
  die_after_create(cluster);
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.dead(); }));
  cluster.kill();
  cluster.api.remove(kube::kStorageClasses, "fast");
  cluster.api.put(cluster.storage_class().uid("another").parameter("csi.storage.k8s.io/fstype", "xfs"));
  cluster.start();
  ASSERT_TRUE(cluster.wait([&] { return cluster.bound("data") && cluster.no_intents(); }));
  EXPECT_EQ(base::get_string(*cluster.pv("pvc-uid-data"), "/spec/csi/fsType"), "xfs");
  EXPECT_THAT(cluster.driver->volumes(), SizeIs(1));
}

TEST(ProvisionCrashes, IntentsWaitForABackendThatIsNotThereYet) {
  Cluster cluster;
  die_after_create(cluster);
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.dead(); }));
  cluster.kill();
  cluster.delete_claim("data");
  cluster.start();
  // Gone before the replay came to it, or after: in neither case is the intent given up.
  cluster.drop_backend();
  cluster.use_backend();
  EXPECT_TRUE(cluster.wait([&] { return cluster.driver->volumes().empty() && cluster.no_intents(); }));
}

}  // namespace
}  // namespace collage::reconcile
