// When an intent ends and when it must not, what happens when there are too many, and what a person does
// about one that cannot be read.
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>

#include "operator/engine/intent_record.h"
#include "unit/reconcile/cluster.h"
#include "unit/testing/captured_log.h"

namespace collage::reconcile {
namespace {

using base::Json;
using drivers::Verb;
using testing::Cluster;

void put_intents(Cluster& cluster, const Json& entries) {
  cluster.api.put(Json{{"apiVersion", "v1"},
                       {"kind", "ConfigMap"},
                       {"metadata", {{"name", "collage-intents-fast"}, {"namespace", "collage"}}},
                       {"data", entries}});
}

// The answer is lost, the claim deleted, and then the storage is not what it should be: whatever code that
// has, it does not say that there is no volume.
TEST(IntentsEnd, NotBeforeTheStorageSaysThatThereIsNoVolume) {
  Cluster cluster;
  std::atomic<bool> armed = true, wrong_disk = false;
  cluster.driver->before([&](const base::Context&, Verb, const std::string&) {
    return wrong_disk ? absl::FailedPreconditionError("the marker is missing") : absl::OkStatus();
  });
  cluster.driver->after([&](const base::Context&, Verb verb, const std::string&) -> absl::Status {
    if (verb != Verb::kCreate || !armed.exchange(false)) return absl::OkStatus();
    wrong_disk = true;
    return absl::UnavailableError("no answer");
  });
  cluster.start();
  cluster.api.put(cluster.claim("data"));
  ASSERT_TRUE(cluster.wait([&] { return wrong_disk.load(); }));
  cluster.delete_claim("data");
  const int asked = cluster.driver->calls(Verb::kFind);
  ASSERT_TRUE(cluster.wait([&] { return cluster.driver->calls(Verb::kFind) >= asked + 2; }));
  EXPECT_FALSE(cluster.no_intents());
  wrong_disk = false;
  EXPECT_TRUE(cluster.wait([&] { return cluster.driver->volumes().empty() && cluster.no_intents(); }));
}

// After a restart the volume is not known yet; a PersistentVolume of its name that stands for another one
// proves nothing.
TEST(IntentsEnd, NotByAPersistentVolumeOfTheNameThatStandsForAnotherVolume) {
  Cluster cluster;
  cluster.driver->put({.id = "vol-pvc-uid-data",
                       .name = "pvc-uid-data",
                       .capacity_bytes = 1 << 20,
                       .tags = {{drivers::kTagCluster, "cluster-1"}, {drivers::kTagVolume, "pvc-uid-data"}}});
  put_intents(cluster, {{"uid-data", *engine::encode_intent({.claim = {.uid = "uid-data",
                                                                       .name_space = "apps",
                                                                       .name = "data",
                                                                       .requested_bytes = 1 << 20}})}});
  cluster.api.put(testing::a_volume("pvc-uid-data")
                      .of_driver(testing::kFake)
                      .handle("elsewhere/vol-9")
                      .claimed_by("apps", "data", "uid-data"));
  cluster.start();
  EXPECT_TRUE(cluster.wait([&] { return cluster.driver->volumes().empty() && cluster.no_intents(); }));
}

// A claim that begins needs a thread; the creates that have begun must not wait for it.
TEST(Intents, WithAsManyAsMayBeOthersWaitInLineAndHoldUpNobody) {
  Cluster cluster;
  std::atomic<bool> away = true;
  cluster.driver->before([&](const base::Context&, Verb verb, const std::string&) {
    return away && verb == Verb::kFind ? absl::UnavailableError("away") : absl::OkStatus();
  });
  Json entries = Json::object();
  for (size_t i = 0; i < engine::Intents::kMaxEntries; ++i) {
    const std::string uid = "gone-" + std::to_string(i);
    entries[uid] = *engine::encode_intent(
        {.claim = {.uid = uid, .name_space = "apps", .name = uid, .requested_bytes = 1 << 20}});
  }
  put_intents(cluster, entries);
  cluster.start();
  ASSERT_TRUE(cluster.wait([&] { return cluster.op->intents->room() == 0; }));
  constexpr int kClaims = 12;  // more than threads
  for (int i = 0; i < kClaims; ++i) cluster.api.put(cluster.claim("late-" + std::to_string(i)));
  ASSERT_TRUE(cluster.wait_event("Provisioning", "\"fast\" has 1000 creates under way"));
  EXPECT_EQ(cluster.driver->calls(Verb::kCreate), 0);
  away = false;
  for (int i = 0; i < kClaims; ++i)
    EXPECT_TRUE(cluster.wait([&] { return cluster.bound("late-" + std::to_string(i)); })) << i;
}

TEST(Intents, AClaimHearsWhyItsCreateCannotBeNoted) {
  std::atomic<bool> refuse = true;
  Cluster cluster;
  cluster.start();
  cluster.api.on_request([&](const testing::ApiRequest& request) {
    return refuse && request.verb == "create" && request.resource == "configmaps"
               ? testing::Fault::answer(403, "Forbidden")
               : testing::Fault{};
  });
  cluster.api.put(cluster.claim("data"));
  EXPECT_TRUE(cluster.wait_event("ProvisioningFailed", "ConfigMap collage/collage-intents-fast"));
  EXPECT_TRUE(cluster.wait_event("ProvisioningFailed", "see its Role, and the quotas and webhooks"));
  EXPECT_EQ(cluster.driver->calls(Verb::kCreate), 0) << "nothing without an intent";
  refuse = false;
  EXPECT_TRUE(cluster.wait([&] { return cluster.bound("data"); }));
}

TEST(Intents, AnAbandonedCreateSaysWhatItWaitsFor) {
  testing::CapturedLog log;
  std::atomic<bool> away = true;
  Cluster cluster;
  cluster.driver->before([&](const base::Context&, Verb verb, const std::string&) {
    return away && verb == Verb::kFind ? absl::UnavailableError("away") : absl::OkStatus();
  });
  put_intents(cluster, {{"uid-data", *engine::encode_intent({.claim = {.uid = "uid-data",
                                                                       .name_space = "apps",
                                                                       .name = "data",
                                                                       .requested_bytes = 1 << 20}})}});
  cluster.start();
  ASSERT_TRUE(cluster.wait([&] { return cluster.driver->calls(Verb::kFind) > 0; }));
  cluster.use_backend([](engine::Backend& backend) { backend.spec.paused = true; });
  EXPECT_TRUE(cluster.wait([&] {
    return !log.with({"an abandoned create waits for its StorageBackend", "backend=fast", "spec.paused"})
                .empty();
  }));
  EXPECT_FALSE(cluster.no_intents());
  away = false;
  cluster.use_backend();
  EXPECT_TRUE(cluster.wait([&] { return cluster.no_intents(); }));
}

TEST(Intents, OneThatCannotBeReadIsToldWithWhatToDo) {
  testing::CapturedLog log;
  Cluster cluster;
  put_intents(cluster, {{"uid-x", "{\"v\":99}"}});
  cluster.start();
  EXPECT_TRUE(cluster.wait([&] {
    return !log.with({"an intent cannot be read and is kept: see whether the storage has the volume",
                      "config_map=collage-intents-fast", "key=uid-x", "volume=pvc-uid-x"})
                .empty();
  }));
}

TEST(Intents, OneThatAPersonTookOutIsForgotten) {
  Cluster cluster;
  put_intents(cluster, {{"uid-x", "{}"}, {"uid-y", "{}"}});
  cluster.start();
  ASSERT_TRUE(cluster.wait([&] { return cluster.op->intents->open().size() == 2; }));
  put_intents(cluster, {{"uid-y", "{}"}});
  ASSERT_TRUE(cluster.op->intents->load(base::Context()).ok());
  EXPECT_EQ(cluster.op->intents->open().size(), 1u);
}

}  // namespace
}  // namespace collage::reconcile
