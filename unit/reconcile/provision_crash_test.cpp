// The operator is killed at every step of a create, with the claim kept and with the claim deleted while
// nobody ran. Nothing may leak: in the end there is one volume with its PersistentVolume, or neither, and no
// intent.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "unit/reconcile/cluster.h"

namespace collage::reconcile {
namespace {

using drivers::Verb;
using testing::Cluster;
using testing::Fault;
using ::testing::IsEmpty;
using ::testing::SizeIs;

enum class Cut {
  kBeforeIntent,
  kIntentAnswerLost,
  kBeforeDriver,
  kDriverAnswerLost,
  kBeforeVolumeObject,
  kVolumeObjectAnswerLost,
  kBeforeIntentEnds,
};

std::string name_of(Cut cut) {
  switch (cut) {
    case Cut::kBeforeIntent:
      return "BeforeIntent";
    case Cut::kIntentAnswerLost:
      return "IntentAnswerLost";
    case Cut::kBeforeDriver:
      return "BeforeDriver";
    case Cut::kDriverAnswerLost:
      return "DriverAnswerLost";
    case Cut::kBeforeVolumeObject:
      return "BeforeVolumeObject";
    case Cut::kVolumeObjectAnswerLost:
      return "VolumeObjectAnswerLost";
    case Cut::kBeforeIntentEnds:
      return "BeforeIntentEnds";
  }
  return "";
}

// Dies at the cut, once.
void set_cut(Cluster& cluster, Cut cut) {
  auto armed = std::make_shared<std::atomic<bool>>(true);
  const auto driver_cut = [&cluster, armed](bool wanted, Verb verb) -> absl::Status {
    if (cluster.dead()) return absl::UnavailableError("the process is dead");
    if (!wanted || verb != Verb::kCreate || !armed->exchange(false)) return absl::OkStatus();
    cluster.die();
    return absl::UnavailableError("killed");
  };
  cluster.driver->before([=](const base::Context&, Verb verb, const std::string&) {
    return driver_cut(cut == Cut::kBeforeDriver, verb);
  });
  cluster.driver->after([=](const base::Context&, Verb verb, const std::string&) {
    return driver_cut(cut == Cut::kDriverAnswerLost, verb);
  });
  cluster.api.on_request([&cluster, cut, armed](const testing::ApiRequest& request) -> Fault {
    const bool intent = request.resource == "configmaps" && request.is_write();
    const bool begins = intent && request.body.find("uid-data") != std::string::npos;
    const bool object = request.resource == "persistentvolumes" && request.verb == "create";
    const bool before = (cut == Cut::kBeforeIntent && begins) ||
                        (cut == Cut::kBeforeVolumeObject && object) ||
                        (cut == Cut::kBeforeIntentEnds && intent && !begins);
    const bool after =
        (cut == Cut::kIntentAnswerLost && begins) || (cut == Cut::kVolumeObjectAnswerLost && object);
    if ((!before && !after) || !armed->exchange(false)) return {};
    cluster.die();
    return before ? Fault::drop_before() : Fault::drop_after();
  });
}

class ProvisionCrash : public ::testing::TestWithParam<std::tuple<Cut, bool>> {};

TEST_P(ProvisionCrash, LeaksNothing) {
  const auto [cut, claim_deleted] = GetParam();
  Cluster cluster;
  set_cut(cluster, cut);
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait([&] { return cluster.dead(); }));
  cluster.kill();
  if (claim_deleted) cluster.delete_claim("data");
  cluster.start();
  if (claim_deleted) {
    EXPECT_TRUE(cluster.wait([&] {
      return cluster.driver->volumes().empty() && cluster.no_intents() &&
             cluster.api.list(kube::kPersistentVolumes).empty();
    }));
  } else {
    EXPECT_TRUE(cluster.wait([&] { return cluster.bound("data") && cluster.no_intents(); }));
    EXPECT_THAT(cluster.driver->volumes(), SizeIs(1));
    EXPECT_THAT(cluster.api.list(kube::kPersistentVolumes), SizeIs(1));
  }
  EXPECT_TRUE(cluster.wait([&] { return cluster.op->world.usage.total("fast").volumes == (claim_deleted ? 0 : 1); }));
}

INSTANTIATE_TEST_SUITE_P(
    AtEveryStep, ProvisionCrash,
    ::testing::Combine(::testing::Values(Cut::kBeforeIntent, Cut::kIntentAnswerLost, Cut::kBeforeDriver,
                                         Cut::kDriverAnswerLost, Cut::kBeforeVolumeObject,
                                         Cut::kVolumeObjectAnswerLost, Cut::kBeforeIntentEnds),
                       ::testing::Bool()),
    [](const auto& info) {
      return name_of(std::get<0>(info.param)) + (std::get<1>(info.param) ? "_ClaimDeleted" : "_ClaimKept");
    });

// As the cuts above, but the process dies again while it cleans up.
TEST(ProvisionCrashes, KilledAgainWhileCleaningUpStillLeaksNothing) {
  Cluster cluster;
  set_cut(cluster, Cut::kDriverAnswerLost);
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
  set_cut(cluster, Cut::kDriverAnswerLost);
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
  set_cut(cluster, Cut::kDriverAnswerLost);
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
  set_cut(cluster, Cut::kDriverAnswerLost);
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
