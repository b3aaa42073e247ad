#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/random.h"
#include "operator/kube/client.h"
#include "operator/kube/config.h"
#include "operator/kube/events.h"
#include "operator/kube/informer.h"
#include "operator/kube/lease.h"
#include "unit/testing/builders.h"
#include "unit/testing/fake_api_server.h"

// What we rely on, held against the fake API server, and against a real one when COLLAGE_TEST_KUBECONFIG
// names it (an administrator's, with the namespace "default" and our resource definitions installed): so the
// fake says what the real one says.
namespace collage::kube {
namespace {

using base::Json;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;
using namespace collage::testing;  // NOLINT: builders read as words

constexpr char kKubeconfig[] = "COLLAGE_TEST_KUBECONFIG";

class ApiContract : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (GetParam() == "fake") {
      fake_ = std::make_unique<FakeApiServer>();
      config_ = fake_->config();
    } else {
      const auto config = load_kubeconfig(std::getenv(kKubeconfig), "");
      ASSERT_TRUE(config.ok()) << config.status();
      config_ = *config;
    }
    client_ = client();
  }
  void TearDown() override {
    stop_.request_stop();
    for (const auto& [resource, key] : made_) (void)client_->remove(base::Context(), *resource, key, {});
  }

  std::unique_ptr<Client> client() {
    auto made = make_client(config_, nullptr, "collage-contract-test");
    EXPECT_TRUE(made.ok()) << made.status();
    return std::move(*made);
  }
  // Removed at the end.
  Key mine(const Resource& resource, const std::string& name) {
    const Key key{resource.namespaced ? "default" : "", name + "-" + run_};
    made_.emplace_back(&resource, key);
    return key;
  }
  static Json config_map(const Key& key) {
    return {{"apiVersion", "v1"},
            {"kind", "ConfigMap"},
            {"metadata", {{"name", key.name}}},
            {"data", {{"a", "1"}}}};
  }
  static Json backend(const Key& key, Json spec) {
    return {{"apiVersion", "collage.storage/v1beta1"},
            {"kind", "StorageBackend"},
            {"metadata", {{"name", key.name}}},
            {"spec", std::move(spec)}};
  }
  static Json volume(const Key& key) {
    Json object = a_volume(key.name).claimed_by("default", "nobody-" + key.name).json();
    object["metadata"].erase("uid");
    object.erase("status");
    return object;
  }
  template <typename Predicate>
  bool eventually(Predicate predicate) {
    const auto end = std::chrono::steady_clock::now() + seconds(20);
    while (!predicate()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(milliseconds(5));
    }
    return true;
  }

  const std::string run_ = base::random_hex(4);
  std::unique_ptr<FakeApiServer> fake_;
  ClientConfig config_;
  std::unique_ptr<Client> client_;
  std::stop_source stop_;
  base::Context context_{stop_.get_token()};
  std::vector<std::pair<const Resource*, Key>> made_;
};

TEST_P(ApiContract, WritesAndTheirPreconditions) {
  const Key key = mine(kConfigMaps, "plain");
  const auto made = client_->create(context_, kConfigMaps, key.name_space, config_map(key));
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(client_->create(context_, kConfigMaps, key.name_space, config_map(key)).status().code(),
            absl::StatusCode::kAlreadyExists);

  Json changed = *made;
  changed["data"]["a"] = "2";
  const auto replaced = client_->replace(context_, kConfigMaps, key, changed, "");
  ASSERT_TRUE(replaced.ok()) << replaced.status();
  EXPECT_GT(version_number(base::get_string(*replaced, "/metadata/resourceVersion")),
            version_number(base::get_string(*made, "/metadata/resourceVersion")));
  EXPECT_EQ(client_->replace(context_, kConfigMaps, key, changed, "").status().code(),
            absl::StatusCode::kAborted);

  const Json old = {{"metadata", {{"resourceVersion", (*made)["metadata"]["resourceVersion"]}}},
                    {"data", {{"a", "9"}}}};
  EXPECT_EQ(client_->patch(context_, kConfigMaps, key, PatchType::kMerge, old, {}).status().code(),
            absl::StatusCode::kAborted);
  const auto same =
      client_->patch(context_, kConfigMaps, key, PatchType::kMerge, {{"data", {{"a", "2"}}}}, {});
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_EQ((*same)["metadata"]["resourceVersion"], (*replaced)["metadata"]["resourceVersion"])
      << "nothing changed";

  const Json failing = Json::array(
      {{{"op", "test"}, {"path", "/data/a"}, {"value", "1"}}, {{"op", "remove"}, {"path", "/data/a"}}});
  EXPECT_EQ(client_->patch(context_, kConfigMaps, key, PatchType::kJson, failing, {}).status().code(),
            absl::StatusCode::kInvalidArgument);

  EXPECT_EQ(client_->remove(context_, kConfigMaps, key, {.uid = "another"}).code(),
            absl::StatusCode::kAborted);
  const std::string uid = base::get_string(*made, "/metadata/uid");
  EXPECT_TRUE(client_->remove(context_, kConfigMaps, key, {.uid = uid}).ok());
  EXPECT_TRUE(client_->remove(context_, kConfigMaps, key, {.uid = uid}).ok());
  EXPECT_EQ(client_->get(context_, kConfigMaps, key).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client_->patch(context_, kConfigMaps, key, PatchType::kMerge, Json::object(), {}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_P(ApiContract, WhatIsWrongIsRefused) {
  EXPECT_EQ(client_->create(context_, kConfigMaps, "default", {{"metadata", Json::object()}}).status().code(),
            absl::StatusCode::kInvalidArgument);
  const Key key = mine(kConfigMaps, "with-version");
  Json versioned = config_map(key);
  versioned["metadata"]["resourceVersion"] = "7";
  EXPECT_EQ(client_->create(context_, kConfigMaps, "default", versioned).status().code(),
            absl::StatusCode::kUnavailable)
      << "the server's own choice: 500";
  EXPECT_EQ(
      client_->get(context_, {"no.such.group", "v1", "things", "Thing", false}, {"", "x"}).status().code(),
      absl::StatusCode::kNotFound);
  const Json no_kind = {{"data", {{"a", "1"}}}};
  EXPECT_EQ(client_->patch(context_, kConfigMaps, key, PatchType::kApply, no_kind, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(ApiContract, AVolumeGoesWhenItsLastFinalizerDoes) {
  const Key key = mine(kPersistentVolumes, "pv");
  Json object = volume(key);
  object["metadata"]["finalizers"] = {"collage.storage/test"};
  const auto made = client_->create(context_, kPersistentVolumes, "", object);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_FALSE(base::get_string(*made, "/status/phase").empty() && GetParam() == "fake");
  ASSERT_TRUE(client_->remove(context_, kPersistentVolumes, key, {}).ok());
  const auto deleting = client_->get(context_, kPersistentVolumes, key);
  ASSERT_TRUE(deleting.ok()) << deleting.status();
  EXPECT_TRUE(parse<Volume>(*deleting)->meta.deleting);
  const Json add = {{"metadata", {{"finalizers", {"collage.storage/test", "collage.storage/more"}}}}};
  EXPECT_EQ(client_->patch(context_, kPersistentVolumes, key, PatchType::kMerge, add, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(client_
                  ->patch(context_, kPersistentVolumes, key, PatchType::kMerge,
                          {{"metadata", {{"finalizers", nullptr}}}}, {})
                  .ok());
  EXPECT_TRUE(
      eventually([&] { return absl::IsNotFound(client_->get(context_, kPersistentVolumes, key).status()); }));
}

TEST_P(ApiContract, StatusIsWrittenApart) {
  const Key key = mine(kStorageBackends, "sb");
  Json object = backend(key, {{"image", {{"directory", "/srv/share"}}}});
  object["status"] = {{"observedGeneration", 7}};
  const auto made = client_->create(context_, kStorageBackends, "", object);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(base::get_int(*made, "/status/observedGeneration"), 0);
  const Json both = {{"spec", {{"paused", true}}}, {"status", {{"observedGeneration", 1}}}};
  const auto status =
      client_->patch(context_, kStorageBackends, key, PatchType::kMerge, both, {.subresource = "status"});
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(base::get_int(*status, "/status/observedGeneration"), 1);
  EXPECT_FALSE(base::get_bool(*status, "/spec/paused"));
  EXPECT_EQ(base::get_int(*status, "/metadata/generation"), 1);
  const auto main =
      client_->patch(context_, kStorageBackends, key, PatchType::kMerge,
                     {{"spec", {{"paused", true}}}, {"status", {{"observedGeneration", 5}}}}, {});
  ASSERT_TRUE(main.ok()) << main.status();
  EXPECT_EQ(base::get_int(*main, "/status/observedGeneration"), 1);
  EXPECT_TRUE(base::get_bool(*main, "/spec/paused"));
  EXPECT_EQ(base::get_int(*main, "/metadata/generation"), 2);
}

TEST_P(ApiContract, ApplyOwnsItsFields) {
  const Key key = mine(kConfigMaps, "applied");
  auto apply = [&](Json data, const std::string& manager, bool force) {
    const Json object = {{"apiVersion", "v1"},
                         {"kind", "ConfigMap"},
                         {"metadata", {{"name", key.name}, {"namespace", "default"}}},
                         {"data", std::move(data)}};
    return client_->patch(context_, kConfigMaps, key, PatchType::kApply, object,
                          {.field_manager = manager, .force = force});
  };
  ASSERT_TRUE(apply({{"a", "1"}, {"b", "1"}}, "one", true).ok());
  ASSERT_TRUE(apply({{"c", "1"}}, "two", false).ok());
  EXPECT_EQ(apply({{"a", "2"}, {"c", "1"}}, "two", false).status().code(), absl::StatusCode::kAborted);
  ASSERT_TRUE(apply({{"b", "1"}, {"c", "1"}}, "two", false).ok()) << "the same value is shared";
  const auto left = apply({{"a", "3"}}, "one", true);
  ASSERT_TRUE(left.ok()) << left.status();
  EXPECT_EQ((*left)["data"], (Json{{"a", "3"}, {"b", "1"}, {"c", "1"}})) << "b is the second's too";
  const auto forced = apply({{"a", "4"}}, "two", true);
  ASSERT_TRUE(forced.ok()) << forced.status();
  EXPECT_EQ((*forced)["data"], (Json{{"a", "4"}})) << "b and c are left out by their last owner";
}

TEST_P(ApiContract, ListsComeInPagesAndWatchesGoOn) {
  std::set<std::string> wanted, listed;
  for (int i = 0; i < 7; ++i) {
    const Key key = mine(kConfigMaps, "page-" + std::to_string(i));
    Json object = config_map(key);
    object["metadata"]["labels"]["run"] = run_;
    ASSERT_TRUE(client_->create(context_, kConfigMaps, "default", object).ok());
    wanted.insert(key.name);
  }
  const ListOptions options{.name_space = "default", .label_selector = "run=" + run_, .page_size = 3};
  const auto version = client_->list(context_, kConfigMaps, options, [&](Json& item) {
    listed.insert(base::get_string(item, "/metadata/name"));
    EXPECT_EQ(base::find(item, "/metadata/managedFields"), nullptr);
    return absl::OkStatus();
  });
  ASSERT_TRUE(version.ok()) << version.status();
  EXPECT_EQ(listed, wanted);

  std::vector<std::string> seen;
  std::jthread watcher([&] {
    const absl::Status status = client_->watch(
        context_.with_timeout(seconds(20)), kConfigMaps, options, *version, [&](const WatchEvent& event) {
          if (event.type == WatchEvent::Type::kBookmark) return absl::OkStatus();
          EXPECT_EQ(base::find(*event.object, "/metadata/managedFields"), nullptr);
          seen.push_back(event.type == WatchEvent::Type::kAdded      ? "added"
                         : event.type == WatchEvent::Type::kModified ? "changed"
                                                                     : "deleted");
          return seen.size() == 4 ? absl::CancelledError("enough") : absl::OkStatus();
        });
    EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  });
  const Key late = mine(kConfigMaps, "late");
  Json object = config_map(late);
  object["metadata"]["labels"]["run"] = run_;
  ASSERT_TRUE(client_->create(context_, kConfigMaps, "default", object).ok());
  ASSERT_TRUE(
      client_->patch(context_, kConfigMaps, late, PatchType::kMerge, {{"data", {{"a", "2"}}}}, {}).ok());
  ASSERT_TRUE(client_
                  ->patch(context_, kConfigMaps, late, PatchType::kMerge,
                          {{"metadata", {{"labels", {{"run", nullptr}}}}}}, {})
                  .ok());
  ASSERT_TRUE(client_
                  ->patch(context_, kConfigMaps, late, PatchType::kMerge,
                          {{"metadata", {{"labels", {{"run", run_}}}}}}, {})
                  .ok());
  watcher.join();
  EXPECT_THAT(seen, ::testing::ElementsAre("added", "changed", "deleted", "added"));
}

TEST_P(ApiContract, WhatAnObjectIsMadeWithItKeeps) {
  const Key pv = mine(kPersistentVolumes, "fixed"), storage_class = mine(kStorageClasses, "fixed"),
            attachment = mine(kVolumeAttachments, "fixed"), driver = mine(kCsiDrivers, "fixed"),
            capacity = mine(kCsiStorageCapacities, "fixed");
  Json of_class = a_class(storage_class.name).of_backend("fast").json();
  of_class["metadata"].erase("uid");
  const auto topology = [](const std::string& node) {
    return Json{{"matchLabels", {{"kubernetes.io/hostname", node}}}};
  };
  struct Case {
    const Resource& resource;
    const Key& key;
    Json object;
    std::vector<Json> refused;
    Json allowed;
  };
  const Case cases[] = {
      {kPersistentVolumes,
       pv,
       volume(pv),
       {{{"spec", {{"csi", {{"volumeHandle", "another"}}}}}},
        {{"spec", {{"csi", {{"volumeAttributes", {{"more", "1"}}}}}}}},
        {{"spec", {{"volumeMode", "Block"}}}}},
       {{"spec", {{"persistentVolumeReclaimPolicy", "Retain"}}}}},
      {kStorageClasses,
       storage_class,
       of_class,
       {{{"provisioner", "another.example.com"}},
        {{"parameters", {{"backend", "slow"}}}},
        {{"parameters", nullptr}},
        {{"reclaimPolicy", "Retain"}},
        {{"volumeBindingMode", "WaitForFirstConsumer"}}},
       {{"allowVolumeExpansion", true}}},
      {kVolumeAttachments,
       attachment,
       {{"apiVersion", "storage.k8s.io/v1"},
        {"kind", "VolumeAttachment"},
        {"metadata", {{"name", attachment.name}}},
        {"spec",
         {{"attacher", "nobody.example.com"},
          {"nodeName", "no-such-node"},
          {"source", {{"persistentVolumeName", pv.name}}}}}},
       {{{"spec", {{"nodeName", "another"}}}}, {{"spec", {{"attacher", "another.example.com"}}}}},
       {{"metadata", {{"annotations", {{"a", "1"}}}}}}},
      {kCsiDrivers,
       driver,
       {{"apiVersion", "storage.k8s.io/v1"},
        {"kind", "CSIDriver"},
        {"metadata", {{"name", driver.name}}},
        {"spec", {{"attachRequired", true}}}},
       {{{"spec", {{"attachRequired", false}}}}},
       {{"spec", {{"storageCapacity", true}}}}},
      {kCsiStorageCapacities,
       capacity,
       {{"apiVersion", "storage.k8s.io/v1"},
        {"kind", "CSIStorageCapacity"},
        {"metadata", {{"name", capacity.name}}},
        {"storageClassName", storage_class.name},
        {"nodeTopology", topology("node-a")},
        {"capacity", "1Gi"}},
       {{{"nodeTopology", topology("node-b")}},
        {{"nodeTopology", nullptr}},
        {{"storageClassName", "another"}}},
       {{"capacity", "2Gi"}}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(std::string(c.resource.kind));
    const auto made = client_->create(context_, c.resource, c.key.name_space, c.object);
    ASSERT_TRUE(made.ok()) << made.status();
    for (const Json& change : c.refused) {
      EXPECT_EQ(client_->patch(context_, c.resource, c.key, PatchType::kMerge, change, {}).status().code(),
                absl::StatusCode::kInvalidArgument)
          << change;
    }
    const auto changed = client_->patch(context_, c.resource, c.key, PatchType::kMerge, c.allowed, {});
    EXPECT_TRUE(changed.ok()) << changed.status();
  }
}

TEST_P(ApiContract, AVersionThatIsNoneIsAnError) {
  const absl::Status status =
      client_->watch(context_.with_timeout(seconds(10)), kConfigMaps, {.name_space = "default"}, "nonsense",
                     [](const WatchEvent&) { return absl::OkStatus(); });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status << ", the server's own choice: 500";
}

TEST_P(ApiContract, AnInformerFollows) {
  Informer<Volume> informer(*client_, {.selector = {.label_selector = "run=" + run_}});
  std::atomic<int> changes = 0;
  informer.add_handler([&](const auto&, const auto&) { ++changes; });
  informer.start(context_);
  ASSERT_TRUE(informer.wait_synced(context_.with_timeout(seconds(20))).ok());
  std::vector<Key> keys;
  for (int i = 0; i < 20; ++i) {
    keys.push_back(mine(kPersistentVolumes, "followed-" + std::to_string(i)));
    Json object = volume(keys.back());
    object["metadata"]["labels"]["run"] = run_;
    const auto made = client_->create(context_, kPersistentVolumes, "", object);
    ASSERT_TRUE(made.ok()) << made.status();
    informer.observe(*made);
    EXPECT_NE(informer.get(keys.back().name), nullptr);
  }
  EXPECT_EQ(informer.get(keys[0].name)->capacity_bytes, int64_t{1} << 30);
  EXPECT_EQ(informer.get(keys[0].name)->driver, "image.collage.storage");
  for (const Key& key : keys) {
    ASSERT_TRUE(client_
                    ->patch(context_, kPersistentVolumes, key, PatchType::kMerge,
                            {{"metadata", {{"finalizers", nullptr}}}}, {})
                    .ok());
    ASSERT_TRUE(client_->remove(context_, kPersistentVolumes, key, {}).ok());
  }
  EXPECT_TRUE(eventually([&] { return informer.size() == 0; }));
  // The copy changes first, then the handlers hear of it.
  EXPECT_TRUE(eventually([&] { return changes >= 40; })) << changes;
  stop_.request_stop();
  informer.stop();
}

TEST_P(ApiContract, ALeaseIsHandedOver) {
  const Key key = mine(kLeases, "leader");
  LeaseOptions options{key, "first", seconds(3), seconds(2), milliseconds(300)};
  const auto other = client();
  Lease first(*client_, options);
  options.identity = "second";
  Lease second(*other, options);
  ASSERT_TRUE(first.acquire(context_.with_timeout(seconds(20))).ok());
  std::atomic<int> lost = 0;
  first.keep(context_, [&] { ++lost; });
  std::atomic<bool> taken = false;
  std::jthread waiter([&] {
    EXPECT_TRUE(second.acquire(context_.with_timeout(seconds(30))).ok());
    taken = true;
  });
  std::this_thread::sleep_for(seconds(4));  // longer than the duration: it is renewed
  EXPECT_FALSE(taken);
  EXPECT_TRUE(first.holds_for().ok());
  const auto released = std::chrono::steady_clock::now();
  first.release(context_);
  waiter.join();
  EXPECT_LT(std::chrono::steady_clock::now() - released, seconds(2));
  EXPECT_TRUE(second.holds_for().ok());
  EXPECT_EQ(lost, 0);
  second.release(context_);
}

TEST_P(ApiContract, EventsAreAccepted) {
  const Key key = mine(kStorageBackends, "talks");
  const auto made = client_->create(context_, kStorageBackends, "",
                                    backend(key, {{"image", {{"directory", "/srv/share"}}}}));
  ASSERT_TRUE(made.ok()) << made.status();
  EventRecorder recorder(*client_, "collage-operator", "pod-1");
  const EventTarget target = event_target(*parse<BackendObject>(*made));
  for (int i = 0; i < 3; ++i)
    recorder.event(target, EventType::kWarning, "ClassConflict", "the class belongs to another");
  recorder.flush(context_.with_timeout(seconds(10)));
  std::vector<Json> found;
  ASSERT_TRUE(client_
                  ->list(context_, kEvents,
                         {.name_space = "default", .field_selector = "involvedObject.name=" + key.name},
                         [&](Json& item) {
                           found.push_back(item);
                           return absl::OkStatus();
                         })
                  .ok());
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(base::get_int(found[0], "/count"), 3);
  EXPECT_EQ(base::get_string(found[0], "/involvedObject/uid"), base::get_string(*made, "/metadata/uid"));
  (void)client_->remove(context_, kEvents, {"default", base::get_string(found[0], "/metadata/name")}, {});
}

// The end-to-end tests run the real one's (e2e/rights).
std::vector<std::string> servers() {
  std::vector<std::string> servers{"fake"};
  if (std::getenv(kKubeconfig) != nullptr) servers.push_back("real");
  return servers;
}

INSTANTIATE_TEST_SUITE_P(Servers, ApiContract, ::testing::ValuesIn(servers()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace collage::kube
