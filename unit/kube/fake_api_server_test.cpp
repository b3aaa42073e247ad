#include "unit/testing/fake_api_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "unit/testing/builders.h"
#include "unit/testing/fake_selector.h"

// The rules of the API server that other tests rely on.
namespace collage::testing {
namespace {

using base::Json;
using kube::PatchType;
using std::chrono::seconds;

class FakeApiTest : public ::testing::Test {
 protected:
  absl::StatusOr<Json> apply(const Json& object, const std::string& manager, bool force = true,
                             const std::string& subresource = "") {
    return client_->patch(context_, kube::kStorageBackends, {"", base::get_string(object, "/metadata/name")},
                          PatchType::kApply, object,
                          {.subresource = subresource, .field_manager = manager, .force = force});
  }
  static Json backend(Json spec) {
    return {{"apiVersion", "collage.storage/v1beta1"},
            {"kind", "StorageBackend"},
            {"metadata", {{"name", "b"}}},
            {"spec", std::move(spec)}};
  }
  static Json conditions(std::vector<std::pair<std::string, std::string>> list) {
    Json object = {
        {"apiVersion", "collage.storage/v1beta1"}, {"kind", "StorageBackend"}, {"metadata", {{"name", "b"}}}};
    for (const auto& [type, status] : list)
      object["status"]["conditions"].push_back({{"type", type}, {"status", status}});
    return object;
  }
  FakeApiServer server_;
  std::unique_ptr<kube::Client> client_ = server_.client();
  base::Context context_;
};

TEST_F(FakeApiTest, ANewObjectHasUidVersionAndGeneration) {
  const auto made = client_->create(context_, kube::kStorageBackends, "", backend({{"paused", false}}));
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(base::get_string(*made, "/metadata/uid").size(), 36u);
  EXPECT_EQ(base::get_int(*made, "/metadata/generation"), 1);
  EXPECT_FALSE(base::get_string(*made, "/metadata/creationTimestamp").empty());
  const auto changed = client_->patch(context_, kube::kStorageBackends, {"", "b"}, PatchType::kMerge,
                                      {{"spec", {{"paused", true}}}}, {});
  EXPECT_EQ(base::get_int(*changed, "/metadata/generation"), 2);
  const auto same = client_->patch(context_, kube::kStorageBackends, {"", "b"}, PatchType::kMerge,
                                   {{"spec", {{"paused", true}}}}, {});
  EXPECT_EQ(*same, *changed) << "nothing changed: no new version";
  const auto labelled = client_->patch(context_, kube::kStorageBackends, {"", "b"}, PatchType::kMerge,
                                       {{"metadata", {{"labels", {{"a", "b"}}}}}}, {});
  EXPECT_EQ(base::get_int(*labelled, "/metadata/generation"), 2);
  EXPECT_NE(base::get_string(*labelled, "/metadata/resourceVersion"),
            base::get_string(*changed, "/metadata/resourceVersion"));
}

TEST_F(FakeApiTest, StatusAndTheRestAreApart) {
  Json object = backend({{"paused", false}});
  object["status"] = {{"observedGeneration", 9}};
  const auto made = client_->create(context_, kube::kStorageBackends, "", object);
  EXPECT_EQ(base::find(*made, "/status"), nullptr);
  const Json both = {{"spec", {{"paused", true}}}, {"status", {{"observedGeneration", 1}}}};
  auto patched = client_->patch(context_, kube::kStorageBackends, {"", "b"}, PatchType::kMerge, both,
                                {.subresource = "status"});
  EXPECT_EQ(base::get_bool(*patched, "/spec/paused"), false);
  EXPECT_EQ(base::get_int(*patched, "/status/observedGeneration"), 1);
  EXPECT_EQ(base::get_int(*patched, "/metadata/generation"), 1);
  patched = client_->patch(context_, kube::kStorageBackends, {"", "b"}, PatchType::kMerge,
                           {{"spec", {{"paused", true}}}, {"status", {{"observedGeneration", 5}}}}, {});
  EXPECT_EQ(base::get_bool(*patched, "/spec/paused"), true);
  EXPECT_EQ(base::get_int(*patched, "/status/observedGeneration"), 1);
}

TEST_F(FakeApiTest, AnObjectWithFinalizersWaitsForThem) {
  server_.put(a_volume("v").finalizer("a").finalizer("b"));
  ASSERT_TRUE(client_->remove(context_, kube::kPersistentVolumes, {"", "v"}, {}).ok());
  EXPECT_FALSE(
      base::get_string(*server_.get(kube::kPersistentVolumes, "v"), "/metadata/deletionTimestamp").empty());
  EXPECT_EQ(client_
                ->patch(context_, kube::kPersistentVolumes, {"", "v"}, PatchType::kMerge,
                        {{"metadata", {{"finalizers", {"a", "b", "c"}}}}}, {})
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(client_
                  ->patch(context_, kube::kPersistentVolumes, {"", "v"}, PatchType::kMerge,
                          {{"metadata", {{"finalizers", {"b"}}}}}, {})
                  .ok());
  EXPECT_TRUE(server_.get(kube::kPersistentVolumes, "v").has_value());
  ASSERT_TRUE(client_
                  ->patch(context_, kube::kPersistentVolumes, {"", "v"}, PatchType::kMerge,
                          {{"metadata", {{"finalizers", nullptr}}}}, {})
                  .ok());
  EXPECT_FALSE(server_.get(kube::kPersistentVolumes, "v").has_value());
}

TEST_F(FakeApiTest, APatchWithAnOldVersionIsAConflict) {
  const Json old = server_.put(a_volume("v"));
  server_.put(a_volume("v").bound());
  const Json patch = {
      {"metadata", {{"resourceVersion", old["metadata"]["resourceVersion"]}, {"labels", {{"a", "b"}}}}}};
  EXPECT_EQ(client_->patch(context_, kube::kPersistentVolumes, {"", "v"}, PatchType::kMerge, patch, {})
                .status()
                .code(),
            absl::StatusCode::kAborted);
}

TEST_F(FakeApiTest, ApplyOwnsItsFieldsAndRemovesWhatItLeavesOut) {
  ASSERT_TRUE(apply(backend({{"paused", true}, {"deletionPolicy", "Block"}}), "one").ok());
  ASSERT_TRUE(apply(backend({{"onMountLost", "Report"}}), "two").ok());
  ASSERT_TRUE(apply(backend({{"paused", false}}), "one").ok());
  const Json spec = (*server_.get(kube::kStorageBackends, "b"))["spec"];
  EXPECT_EQ(spec, (Json{{"paused", false}, {"onMountLost", "Report"}}));
}

TEST_F(FakeApiTest, ApplyWithoutForceIsAConflict) {
  ASSERT_TRUE(apply(backend({{"paused", true}}), "one").ok());
  EXPECT_EQ(apply(backend({{"paused", false}}), "two", false).status().code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(apply(backend({{"paused", true}}), "two", false).ok()) << "the same value is shared";
  EXPECT_TRUE(apply(backend({{"paused", false}}), "two", true).ok());
  EXPECT_TRUE(apply(backend(Json::object()), "one").ok());
  EXPECT_EQ(base::get_bool(*server_.get(kube::kStorageBackends, "b"), "/spec/paused", true), false)
      << "one owned it no more";
}

TEST_F(FakeApiTest, ConditionsAreMergedByType) {
  ASSERT_TRUE(apply(backend({{"paused", true}}), "one").ok());
  ASSERT_TRUE(apply(conditions({{"Ready", "True"}, {"Reachable", "True"}}), "one", true, "status").ok());
  ASSERT_TRUE(apply(conditions({{"Degraded", "False"}}), "two", true, "status").ok());
  ASSERT_TRUE(apply(conditions({{"Ready", "False"}}), "one", true, "status").ok());
  const Json status = (*server_.get(kube::kStorageBackends, "b"))["status"]["conditions"];
  EXPECT_EQ(
      status,
      (Json::array({{{"type", "Ready"}, {"status", "False"}}, {{"type", "Degraded"}, {"status", "False"}}})));
}

TEST_F(FakeApiTest, FinalizersAreASet) {
  Json object = backend({{"paused", true}});
  object["metadata"]["finalizers"] = {"mine"};
  server_.put(a_backend("b").finalizer("theirs"));
  ASSERT_TRUE(apply(object, "one").ok());
  EXPECT_EQ((*server_.get(kube::kStorageBackends, "b"))["metadata"]["finalizers"],
            (Json::array({"theirs", "mine"})));
  object["metadata"].erase("finalizers");
  ASSERT_TRUE(apply(object, "one").ok());
  EXPECT_EQ((*server_.get(kube::kStorageBackends, "b"))["metadata"]["finalizers"], (Json::array({"theirs"})));
}

TEST_F(FakeApiTest, GeneratedNamesAndMissingOnes) {
  const auto made =
      client_->create(context_, kube::kConfigMaps, "ns", {{"metadata", {{"generateName", "csisc-"}}}});
  ASSERT_TRUE(made.ok());
  EXPECT_TRUE(base::get_string(*made, "/metadata/name").starts_with("csisc-"));
  EXPECT_EQ(
      client_->create(context_, kube::kConfigMaps, "ns", {{"metadata", Json::object()}}).status().code(),
      absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(client_->get(context_, {"no.such", "v1", "things", "Thing", false}, {"", "x"}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(FakeApiTest, AWatchWithASelectorSeesObjectsComeAndGo) {
  server_.put(a_claim("a"));
  std::stop_source stop;
  const base::Context context(stop.get_token());
  std::vector<std::string> seen;
  std::jthread watcher([&] {
    (void)client_->watch(context, kube::kPersistentVolumeClaims, {.label_selector = "app=db"},
                         std::to_string(server_.store().revision()), [&](const kube::WatchEvent& event) {
                           using Type = kube::WatchEvent::Type;
                           if (event.type == Type::kBookmark) return absl::OkStatus();
                           seen.push_back(event.type == Type::kAdded      ? "added"
                                          : event.type == Type::kModified ? "changed"
                                                                          : "deleted");
                           if (seen.size() == 3) stop.request_stop();
                           return absl::OkStatus();
                         });
  });
  ASSERT_TRUE(server_.wait_until([&] { return server_.open_watches() == 1; }));
  server_.put(a_claim("other"));
  server_.put(a_claim("a").label("app", "db"));
  server_.put(a_claim("a").label("app", "db").bound());
  server_.put(a_claim("a"));
  watcher.join();
  EXPECT_THAT(seen, ::testing::ElementsAre("added", "changed", "deleted"));
}

TEST_F(FakeApiTest, AHookMayPlayAnotherController) {
  server_.on_change("persistentvolumes", [&](const FakeStore::Change& change) {
    if (change.type != "ADDED") return;
    server_.update(kube::kPersistentVolumeClaims,
                   base::get_string(*change.object, "/spec/claimRef/namespace") + "/" +
                       base::get_string(*change.object, "/spec/claimRef/name"),
                   [&](Json& claim) { claim["status"]["phase"] = "Bound"; });
  });
  server_.put(a_claim("data"));
  ASSERT_TRUE(
      client_
          ->create(context_, kube::kPersistentVolumes, "", a_volume("v").claimed_by("default", "data").json())
          .ok());
  EXPECT_EQ(base::get_string(*server_.get(kube::kPersistentVolumeClaims, "default/data"), "/status/phase"),
            "Bound");
}

TEST_F(FakeApiTest, IsQuickEnoughForAThousandObjects) {
  const auto began = std::chrono::steady_clock::now();
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(
        client_->create(context_, kube::kPersistentVolumes, "", a_volume("v" + std::to_string(i)).json())
            .ok());
  }
  int count = 0;
  ASSERT_TRUE(client_
                  ->list(context_, kube::kPersistentVolumes, {},
                         [&](Json&) {
                           ++count;
                           return absl::OkStatus();
                         })
                  .ok());
  EXPECT_EQ(count, 1000);
  EXPECT_LT(std::chrono::steady_clock::now() - began, seconds(30));
}

TEST(FakeSelector, Labels) {
  const Json object = a_claim().label("app", "db").label("tier", "1").json();
  struct Case {
    const char* selector;
    bool matches;
  };
  for (const Case& each :
       {Case{"", true}, Case{"app=db", true}, Case{"app==db", true}, Case{"app=web", false},
        Case{"app!=web", true}, Case{"app!=db", false}, Case{"app in (web, db),tier", true},
        Case{"app notin (web,db)", false}, Case{"zone notin (a)", true}, Case{"!zone", true},
        Case{"!app", false}, Case{"app=db,tier=2", false}}) {
    EXPECT_EQ(matches_labels(object, each.selector), each.matches) << each.selector;
  }
}

}  // namespace
}  // namespace collage::testing
