// How a StorageBackend ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>

#include "operator/engine/intent_record.h"
#include "operator/engine/names.h"
#include "unit/reconcile/backend_fixture.h"

namespace collage::reconcile {
namespace {

using base::Json;
using testing::BackendControllerTest;
using testing::Fault;
using ::testing::HasSubstr;

TEST_F(BackendControllerTest, DeletionWaitsForTheVolumesAndSaysHowMany) {
  both_nodes_ready();
  server_.put(share().with_class("fast"));
  server_.put(testing::a_volume("pvc-1").of_driver("fake.collage.storage").handle("share/vol-1").bound());
  start();
  ASSERT_TRUE(ready());
  server_.remove(kube::kStorageBackends, "share");
  ASSERT_TRUE(becomes("Ready", "False", "Deleting"));
  EXPECT_THAT(condition("Ready", "message"), HasSubstr("1 PersistentVolumes"));
  EXPECT_FALSE(world_->backends.get("share")->ready.ok()) << "no new volumes";
  EXPECT_TRUE(server_.get(kube::kStorageClasses, "fast").has_value());
  server_.erase(kube::kPersistentVolumes, "pvc-1");
  EXPECT_TRUE(server_.wait_until([&] { return !backend().has_value(); }));
  EXPECT_FALSE(server_.get(kube::kStorageClasses, "fast").has_value());
  EXPECT_TRUE(server_.list(kube::kCsiStorageCapacities).empty());
}

TEST_F(BackendControllerTest, ABackendThatGoesCountsItsIntentsThoughItsSpecIsWrong) {
  server_.put(testing::a_backend("share")
                  .kind("fake", Json::object())  // no directory
                  .finalizer("collage.storage/backend"));
  server_.put({{"apiVersion", "v1"},
               {"kind", "ConfigMap"},
               {"metadata", {{"name", "collage-intents-share"}, {"namespace", "collage-system"}}},
               {"data", {{"uid-data", R"({"ns":"apps","pvc":"data","b":1048576})"}, {"uid-x", "{}"}}}});
  start();
  ASSERT_TRUE(server_.wait_until([&] { return condition("Ready") == "False"; }));
  server_.remove(kube::kStorageBackends, "share");
  ASSERT_TRUE(becomes("Ready", "False", "Deleting"));
  EXPECT_THAT(
      condition("Ready", "message"),
      AllOf(HasSubstr("1 creates are under way (apps/data)"), HasSubstr("1 intents cannot be read (uid-x)"),
            HasSubstr("take these keys out of ConfigMap collage-system/collage-intents-share")));
  EXPECT_TRUE(server_.get(kube::kConfigMaps, "collage-system/collage-intents-share").has_value());

  server_.update(kube::kConfigMaps, "collage-system/collage-intents-share",
                 [](Json& map) { map["data"] = Json::object(); });
  server_.update(kube::kStorageBackends, "share",
                 [](Json& object) { object["metadata"]["annotations"]["seen"] = "yes"; });
  EXPECT_TRUE(server_.wait_until([&] { return !backend().has_value(); })) << "both are done";
}

TEST_F(BackendControllerTest, OrphanedDeletionLeavesTheVolumesWhereTheyAre) {
  both_nodes_ready();
  server_.put(share().deletion_policy("Orphan"));
  server_.put(testing::a_volume("pvc-1").of_driver("fake.collage.storage").handle("share/vol-1").bound());
  start();
  ASSERT_TRUE(ready());
  server_.remove(kube::kStorageBackends, "share");
  EXPECT_TRUE(server_.wait_until([&] { return !backend().has_value(); }));
  EXPECT_TRUE(server_.get(kube::kPersistentVolumes, "pvc-1").has_value());
}

TEST_F(BackendControllerTest, AnotherClusterOfOurIdIsToldAndStopsRemovalUntilAPersonConfirms) {
  both_nodes_ready();
  driver_->register_other({"cluster-1", "uid-of-the-other"});
  server_.put(share().deletion_policy("Delete"));
  start();
  ASSERT_TRUE(becomes("Degraded", "True", "ClusterIdentity"));
  EXPECT_THAT(condition("Degraded", "message"), HasSubstr("uid-of-the-other"));
  EXPECT_EQ(condition("Ready"), "True") << "claims are served";
  EXPECT_EQ(base::get_string(*backend(), "/status/clusterUID"), "") << "the next process asks again";
  server_.put(retained("pvc-1"));
  ASSERT_TRUE(server_.wait_until([&] { return world_->volumes.get("pvc-1") != nullptr; }));
  server_.remove(kube::kStorageBackends, "share");
  ASSERT_TRUE(says("Ready", "Nothing is removed by spec.deletionPolicy Delete"));
  EXPECT_EQ(policy_of("pvc-1"), "Retain");
  annotate(kClusterGone, "somebody-else");
  annotate(kClusterGone, "somebody-else,uid-of-the-other");
  EXPECT_TRUE(server_.wait_until([&] { return policy_of("pvc-1") == "Delete"; }));
}

TEST_F(BackendControllerTest, PolicyDeleteRemovesWhatIsOursAndOnlyThat) {
  both_nodes_ready();
  server_.put(share().deletion_policy("Delete"));
  start();
  ASSERT_TRUE(ready());
  server_.put(retained("pvc-ours"));
  server_.put(retained("pvc-theirs", "another-cluster"));
  server_.put(retained("pvc-by-hand").annotation("pv.kubernetes.io/provisioned-by", "a-person"));
  server_.put(retained("pvc-elsewhere").attribute("collage.storage/system-id", "another-system"));
  server_.put(retained("pvc-bound").bound());
  ASSERT_TRUE(server_.wait_until([&] { return world_->volumes.size() == 5; }));
  server_.remove(kube::kStorageBackends, "share");
  ASSERT_TRUE(server_.wait_until([&] { return policy_of("pvc-ours") == "Delete"; }));
  ASSERT_TRUE(says("Ready", "pvc-theirs is not removed"));
  EXPECT_THAT(condition("Ready", "message"), HasSubstr("another-cluster"));
  for (const char* left : {"pvc-theirs", "pvc-by-hand", "pvc-elsewhere", "pvc-bound"})
    EXPECT_EQ(policy_of(left), "Retain") << left;
  EXPECT_EQ(driver_->calls(drivers::Verb::kRemove), 0) << "removal is the reclaimer's, by the policy";
}

TEST_F(BackendControllerTest, DeletionNamesAttachmentsAndCreatesUnderWay) {
  both_nodes_ready();
  server_.put(share().deletion_policy("Orphan"));
  start();
  ASSERT_TRUE(ready());
  const auto intents = world_->backends.get("share")->intents;
  engine::IntentRecord record;
  record.claim = {.uid = "uid-data",
                  .name_space = "default",
                  .name = "data",
                  .access_modes = {"ReadWriteOnce"},
                  .requested_bytes = 1};
  record.class_name = "fast";
  record.class_uid = "uid-fast";
  const auto text = engine::encode_intent(record);
  ASSERT_TRUE(text.ok()) << text.status();
  ASSERT_TRUE(intents->begin(context_, "uid-data", *text).ok());
  server_.remove(kube::kStorageBackends, "share");
  ASSERT_TRUE(says("Ready", "1 creates are under way (default/data)"));
  EXPECT_TRUE(backend().has_value()) << "also with policy Orphan";
  intents->end("uid-data");
  EXPECT_TRUE(server_.wait_until([&] { return !backend().has_value(); }));
}

TEST_F(BackendControllerTest, AVolumeThatIsReleasedWhileItsBackendGoesIsRemovedAtOnce) {
  both_nodes_ready();
  server_.put(share().deletion_policy("Delete"));
  start();
  ASSERT_TRUE(ready());
  server_.put(retained("pvc-1").bound());
  ASSERT_TRUE(server_.wait_until([&] { return world_->volumes.get("pvc-1") != nullptr; }));
  server_.remove(kube::kStorageBackends, "share");
  ASSERT_TRUE(says("Ready", "1 of them bound"));
  EXPECT_EQ(policy_of("pvc-1"), "Retain");
  server_.update(kube::kPersistentVolumes, "pvc-1",
                 [](Json& object) { object["status"]["phase"] = "Released"; });
  EXPECT_TRUE(server_.wait_until([&] { return policy_of("pvc-1") == "Delete"; }));
}

// A claim that was let in a moment before must not begin on a backend whose intents are being thrown away.
TEST_F(BackendControllerTest, NothingBeginsOnceTheEndOfABackendHasBegun) {
  both_nodes_ready();
  server_.put(share());
  start();
  ASSERT_TRUE(ready());
  const auto intents = world_->backends.get("share")->intents;
  ASSERT_TRUE(intents->begin(context_, "uid-before", "{}").ok());
  intents->end("uid-before");
  ASSERT_TRUE(intents->flush(context_).ok());
  absl::Status late;
  std::atomic<bool> asked = false;
  server_.on_request([&](const testing::ApiRequest& request) {
    if (request.verb == "delete" && request.resource == "configmaps" && !asked.exchange(true))
      late = intents->begin(context_.with_timeout(std::chrono::seconds(5)), "uid-late", "{}");
    return Fault{};
  });
  server_.remove(kube::kStorageBackends, "share");
  ASSERT_TRUE(server_.wait_until([&] { return !backend().has_value(); }));
  stop();
  server_.clear_faults();
  ASSERT_TRUE(asked);
  EXPECT_TRUE(absl::IsFailedPrecondition(late)) << late;
  EXPECT_FALSE(server_.get(kube::kConfigMaps, "collage-system/collage-intents-share").has_value());
}

}  // namespace
}  // namespace collage::reconcile
