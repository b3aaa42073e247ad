#include "operator/kube/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/http_client.h"
#include "base/metrics.h"
#include "unit/testing/builders.h"
#include "unit/testing/fake_api_server.h"
#include "unit/testing/fake_clock.h"
#include "unit/testing/temp_dir.h"

namespace collage::kube {
namespace {

using base::Json;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;
using namespace collage::testing;  // NOLINT: builders read as words

class SwitchFence : public Fence {
 public:
  absl::StatusOr<std::chrono::nanoseconds> holds_for() const override {
    ++asked;
    if (!holds) return absl::FailedPreconditionError("not the leader");
    return left;
  }
  std::atomic<bool> holds = true;
  std::chrono::nanoseconds left = std::chrono::seconds(10);
  mutable std::atomic<int> asked = 0;
};

class ClientTest : public ::testing::Test {
 protected:
  Json config_map(const std::string& name) const {
    return {
        {"apiVersion", "v1"}, {"kind", "ConfigMap"}, {"metadata", {{"name", name}}}, {"data", {{"a", "1"}}}};
  }
  FakeApiServer server_;
  std::unique_ptr<Client> client_ = server_.client();
  base::Context context_;
};

TEST_F(ClientTest, EveryVerb) {
  const auto made = client_->create(context_, kConfigMaps, "ns", config_map("m"));
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(base::get_string(*made, "/metadata/namespace"), "ns");
  const auto got = client_->get(context_, kConfigMaps, {"ns", "m"});
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(*got, *made);

  Json changed = *got;
  changed["data"]["a"] = "2";
  const auto replaced = client_->replace(context_, kConfigMaps, {"ns", "m"}, changed, "");
  ASSERT_TRUE(replaced.ok()) << replaced.status();
  EXPECT_EQ(client_->replace(context_, kConfigMaps, {"ns", "m"}, changed, "").status().code(),
            absl::StatusCode::kAborted);

  ASSERT_TRUE(
      client_->patch(context_, kConfigMaps, {"ns", "m"}, PatchType::kMerge, {{"data", {{"b", "3"}}}}, {})
          .ok());
  const Json test_fails = Json::array(
      {{{"op", "test"}, {"path", "/data/a"}, {"value", "1"}}, {{"op", "remove"}, {"path", "/data/a"}}});
  EXPECT_EQ(
      client_->patch(context_, kConfigMaps, {"ns", "m"}, PatchType::kJson, test_fails, {}).status().code(),
      absl::StatusCode::kInvalidArgument);
  const Json test_passes = Json::array(
      {{{"op", "test"}, {"path", "/data/a"}, {"value", "2"}}, {{"op", "remove"}, {"path", "/data/a"}}});
  const auto patched = client_->patch(context_, kConfigMaps, {"ns", "m"}, PatchType::kJson, test_passes, {});
  ASSERT_TRUE(patched.ok()) << patched.status();
  EXPECT_EQ((*patched)["data"], (Json{{"b", "3"}}));

  ASSERT_TRUE(client_->remove(context_, kConfigMaps, {"ns", "m"}, {}).ok());
  ASSERT_TRUE(client_->remove(context_, kConfigMaps, {"ns", "m"}, {}).ok()) << "gone already";
  EXPECT_EQ(client_->get(context_, kConfigMaps, {"ns", "m"}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(base::get_string(*client_->version(context_), "/major"), "1");
}

TEST_F(ClientTest, ErrorsNameTheCallAndHaveTheServersWords) {
  server_.put(a_volume("pvc-x"));
  const absl::Status status =
      client_->create(context_, kPersistentVolumes, "", a_volume("pvc-x").json()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("create persistentvolumes pvc-x: persistentvolumes \"pvc-x\" already exists"));
  EXPECT_THAT(std::string(client_->get(context_, kPersistentVolumeClaims, {"ns", "c"}).status().message()),
              HasSubstr("get persistentvolumeclaims ns/c: "));
}

TEST_F(ClientTest, StatusCodes) {
  struct Case {
    int http;
    const char* reason;
    absl::StatusCode code;
  };
  for (const Case& each : {Case{400, "BadRequest", absl::StatusCode::kInvalidArgument},
                           Case{403, "Forbidden", absl::StatusCode::kPermissionDenied},
                           Case{404, "NotFound", absl::StatusCode::kNotFound},
                           Case{405, "MethodNotAllowed", absl::StatusCode::kUnimplemented},
                           Case{409, "AlreadyExists", absl::StatusCode::kAlreadyExists},
                           Case{409, "Conflict", absl::StatusCode::kAborted},
                           Case{410, "Expired", absl::StatusCode::kOutOfRange},
                           Case{422, "Invalid", absl::StatusCode::kInvalidArgument},
                           Case{500, "InternalError", absl::StatusCode::kUnavailable},
                           Case{502, "", absl::StatusCode::kUnavailable},
                           Case{504, "Timeout", absl::StatusCode::kDeadlineExceeded}}) {
    server_.fail_next("create", "configmaps", Fault::answer(each.http, each.reason));
    EXPECT_EQ(client_->create(context_, kConfigMaps, "ns", config_map("m")).status().code(), each.code)
        << each.http;
  }
  EXPECT_TRUE(server_.list(kConfigMaps).empty());
}

TEST_F(ClientTest, AFenceStopsWritesAndNotReads) {
  SwitchFence fence;
  const auto fenced = server_.client(&fence);
  ASSERT_TRUE(fenced->create(context_, kConfigMaps, "ns", config_map("a")).ok());
  fence.holds = false;
  server_.reset_counts();
  EXPECT_EQ(fenced->create(context_, kConfigMaps, "ns", config_map("b")).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(fenced->replace(context_, kConfigMaps, {"ns", "a"}, config_map("a"), "").status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(fenced->patch(context_, kConfigMaps, {"ns", "a"}, PatchType::kMerge, Json::object(), {})
                .status()
                .code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(fenced->remove(context_, kConfigMaps, {"ns", "a"}, {}).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(server_.requests().size(), 0u) << "nothing was sent";
  EXPECT_TRUE(fenced->get(context_, kConfigMaps, {"ns", "a"}).ok());
}

TEST_F(ClientTest, AWriteEndsBeforeTheFenceDoes) {
  SwitchFence fence;
  fence.left = milliseconds(100);
  const auto fenced = server_.client(&fence);
  server_.fail_next("create", "configmaps", Fault::wait(seconds(20)));
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EQ(fenced->create(context_, kConfigMaps, "ns", config_map("a")).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_LT(std::chrono::steady_clock::now() - began, seconds(5));
}

TEST_F(ClientTest, TheFenceIsAskedAgainBeforeEachRepeat) {
  SwitchFence fence;
  const auto fenced = server_.client(&fence);
  server_.on_request([&](const ApiRequest& request) {
    if (!request.is_write()) return Fault{};
    fence.holds = false;  // lost while the server makes us wait
    return Fault::answer(429, "TooManyRequests", {{"Retry-After", "0"}});
  });
  EXPECT_EQ(fenced->create(context_, kConfigMaps, "ns", config_map("a")).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(server_.count("create", "configmaps"), 1);
  EXPECT_EQ(fence.asked, 2);
}

TEST_F(ClientTest, TooManyRequestsIsWaitedFor) {
  server_.fail_next("create", "configmaps", Fault::answer(429, "TooManyRequests", {{"Retry-After", "1"}}));
  server_.fail_next("create", "configmaps", Fault::answer(503, "ServiceUnavailable", {{"Retry-After", "0"}}));
  const auto began = std::chrono::steady_clock::now();
  EXPECT_TRUE(client_->create(context_, kConfigMaps, "ns", config_map("a")).ok());
  EXPECT_GE(std::chrono::steady_clock::now() - began, seconds(1));
  EXPECT_EQ(server_.count("create", "configmaps"), 3);
}

TEST_F(ClientTest, AWaitThatDoesNotFitIsNotBegun) {
  server_.fail_next("get", "configmaps", Fault::answer(429, "TooManyRequests", {{"Retry-After", "600"}}),
                    100);
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EQ(client_->get(context_, kConfigMaps, {"ns", "a"}).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_LT(std::chrono::steady_clock::now() - began, seconds(5));
}

TEST_F(ClientTest, TooManyRequestsIsGivenUpAtLast) {
  server_.fail_next("get", "configmaps", Fault::answer(429, "TooManyRequests", {{"Retry-After", "0"}}), 100);
  EXPECT_EQ(client_->get(context_, kConfigMaps, {"ns", "a"}).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(server_.count("get", "configmaps"), 11);
}

TEST_F(ClientTest, AReadIsRepeatedWhenTheConnectionBreaks) {
  server_.put(a_volume("v"));
  server_.fail_next("get", "persistentvolumes", Fault::drop_before());
  server_.fail_next("get", "persistentvolumes", Fault::answer(500, "InternalError"));
  EXPECT_TRUE(client_->get(context_, kPersistentVolumes, {"", "v"}).ok());
  EXPECT_EQ(server_.count("get", "persistentvolumes"), 3);
  server_.fail_next("get", "persistentvolumes", Fault::drop_before(), 100);
  EXPECT_EQ(client_->get(context_, kPersistentVolumes, {"", "v"}).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(ClientTest, AWriteWhoseAnswerWasLostIsNotRepeated) {
  server_.fail_next("create", "configmaps", Fault::drop_after());
  const absl::Status status = client_->create(context_, kConfigMaps, "ns", config_map("a")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(base::sent_of(status), base::Sent::kUnknown);
  EXPECT_EQ(server_.count("create", "configmaps"), 1);
  EXPECT_TRUE(server_.get(kConfigMaps, "ns/a").has_value()) << "it was done";

  server_.fail_next("patch", "configmaps", Fault::drop_before());
  EXPECT_EQ(
      client_->patch(context_, kConfigMaps, {"ns", "a"}, PatchType::kMerge, {{"data", {{"a", "9"}}}}, {})
          .status()
          .code(),
      absl::StatusCode::kUnavailable);
  EXPECT_EQ(server_.count("patch", "configmaps"), 1);
}

// The connection that broke must not spoil the next write.
TEST_F(ClientTest, AWriteAfterALostAnswerIsSent) {
  for (int i = 0; i < 20; ++i) {
    const std::string name = "m" + std::to_string(i);
    server_.fail_next("create", "configmaps", Fault::drop_after());
    EXPECT_FALSE(client_->create(context_, kConfigMaps, "ns", config_map(name)).ok());
    const auto patched =
        client_->patch(context_, kConfigMaps, {"ns", name}, PatchType::kMerge, {{"data", {{"a", "9"}}}}, {});
    EXPECT_TRUE(patched.ok()) << i << ": " << patched.status();
  }
}

TEST_F(ClientTest, HalfAnAnswerIsALostAnswer) {
  server_.fail_next("create", "configmaps", Fault::half_body());
  const absl::Status status = client_->create(context_, kConfigMaps, "ns", config_map("a")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(base::sent_of(status), base::Sent::kUnknown);
  EXPECT_EQ(server_.count("create", "configmaps"), 1);
}

TEST(Client, AServerThatIsDownIsTriedAFewTimesAndNamed) {
  ClientConfig config;
  {
    FakeApiServer gone;
    config = gone.config();
  }
  const auto client = make_client(config, nullptr, "test");
  ASSERT_TRUE(client.ok());
  const base::Context context;
  const absl::Status status =
      (*client)
          ->create(context.with_timeout(seconds(20)), kConfigMaps, "ns", {{"metadata", {{"name", "a"}}}})
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(base::sent_of(status), base::Sent::kNotSent);
  EXPECT_THAT(std::string(status.message()), HasSubstr(config.server));
}

TEST(Client, ABadServerUrlIsRefused) {
  ClientConfig config;
  config.server = "not a url";
  EXPECT_EQ(make_client(config, nullptr, "test").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ClientTest, AnExpiredTokenIsReadAgain) {
  TempDir directory;
  const std::string path = directory / "token";
  std::ofstream(path) << "old\n";
  ClientConfig config = server_.config();
  config.token_file = path;
  const auto client = make_client(config, nullptr, "test");
  ASSERT_TRUE(client.ok());
  std::string accepted = "Bearer old";
  server_.on_request([&](const ApiRequest& request) {
    const auto found = request.headers.find("authorization");
    return found != request.headers.end() && found->second == accepted ? Fault{}
                                                                       : Fault::answer(401, "Unauthorized");
  });
  server_.put(a_volume("v"));
  ASSERT_TRUE((*client)->get(context_, kPersistentVolumes, {"", "v"}).ok());

  accepted = "Bearer new";
  EXPECT_EQ((*client)->get(context_, kPersistentVolumes, {"", "v"}).status().code(),
            absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(server_.count("get", "persistentvolumes"), 2) << "the file has no other token: not repeated";

  std::ofstream(path) << "new\n";
  EXPECT_TRUE((*client)->get(context_, kPersistentVolumes, {"", "v"}).ok()) << "at once, by the 401";

  std::ofstream(path) << "newer\n";
  accepted = "Bearer newer";
  EXPECT_TRUE((*client)->create(context_, kConfigMaps, "ns", config_map("a")).ok())
      << "a 401 has done nothing: writes too";
}

TEST_F(ClientTest, PatchesGoToTheStatusWithTheirManager) {
  server_.put(a_backend("b"));
  ASSERT_TRUE(client_
                  ->patch(context_, kStorageBackends, {"", "b"}, PatchType::kMerge,
                          {{"status", {{"observedGeneration", 3}}}, {"spec", {{"paused", true}}}},
                          {.subresource = "status"})
                  .ok());
  const Json backend = *server_.get(kStorageBackends, "b");
  EXPECT_EQ(base::get_int(backend, "/status/observedGeneration"), 3);
  EXPECT_EQ(base::find(backend, "/spec/paused"), nullptr);
  const ApiRequest request = server_.requests("patch").back();
  EXPECT_EQ(request.subresource, "status");
  EXPECT_EQ(request.query.at("fieldManager"), "collage");
  EXPECT_EQ(request.headers.at("content-type"), "application/merge-patch+json");
  EXPECT_EQ(request.headers.at("user-agent"), "collage-test");
}

TEST_F(ClientTest, ListsComeInPages) {
  for (int i = 0; i < 25; ++i) server_.put(a_volume("v" + std::to_string(i)));
  std::set<std::string> names;
  const auto version = client_->list(context_, kPersistentVolumes, {.page_size = 10}, [&](Json& item) {
    names.insert(base::get_string(item, "/metadata/name"));
    return absl::OkStatus();
  });
  ASSERT_TRUE(version.ok()) << version.status();
  EXPECT_EQ(*version, std::to_string(server_.store().revision()));
  EXPECT_EQ(names.size(), 25u);
  EXPECT_EQ(server_.count("list", "persistentvolumes"), 3);
}

TEST_F(ClientTest, AnExpiredPageIsOutOfRange) {
  for (int i = 0; i < 5; ++i) server_.put(a_volume("v" + std::to_string(i)));
  const auto version = client_->list(context_, kPersistentVolumes, {.page_size = 2}, [&](Json&) {
    server_.expire_continue_tokens();
    return absl::OkStatus();
  });
  EXPECT_EQ(version.status().code(), absl::StatusCode::kOutOfRange);
}

TEST_F(ClientTest, SelectorsReachTheServer) {
  server_.put(a_claim("a").in("x").label("app", "db/1"));
  server_.put(a_claim("b").in("x"));
  server_.put(a_claim("c").in("y").label("app", "db/1"));
  auto names = [&](const ListOptions& options) {
    std::set<std::string> result;
    EXPECT_TRUE(client_
                    ->list(context_, kPersistentVolumeClaims, options,
                           [&](Json& item) {
                             result.insert(base::get_string(item, "/metadata/name"));
                             return absl::OkStatus();
                           })
                    .ok());
    return result;
  };
  EXPECT_EQ(names({.label_selector = "app=db/1"}), (std::set<std::string>{"a", "c"}));
  EXPECT_EQ(names({.name_space = "x", .label_selector = "app=db/1"}), (std::set<std::string>{"a"}));
  EXPECT_EQ(names({.field_selector = "metadata.name=b"}), (std::set<std::string>{"b"}));
}

TEST_F(ClientTest, DeletePreconditionsAreKept) {
  server_.put(a_volume("v").uid("one"));
  EXPECT_EQ(client_->remove(context_, kPersistentVolumes, {"", "v"}, {.uid = "two"}).code(),
            absl::StatusCode::kAborted);
  EXPECT_TRUE(client_->remove(context_, kPersistentVolumes, {"", "v"}, {.uid = "one"}).ok());
}

TEST_F(ClientTest, StopEndsAWait) {
  std::stop_source stop;
  const base::Context context(stop.get_token());
  server_.fail_next("get", "configmaps", Fault::answer(429, "TooManyRequests", {{"Retry-After", "20"}}));
  std::jthread stopper([&] {
    server_.wait_until([&] { return server_.count("get", "configmaps") == 1; });
    stop.request_stop();
  });
  const auto began = std::chrono::steady_clock::now();
  EXPECT_FALSE(client_->get(context, kConfigMaps, {"ns", "a"}).ok());
  EXPECT_LT(std::chrono::steady_clock::now() - began, seconds(10));
}

TEST_F(ClientTest, CallsAreMeasured) {
  server_.put(a_volume("metered"));
  ASSERT_TRUE(client_->remove(context_, kPersistentVolumes, {"", "metered"}, {}).ok());
  const std::string metrics = base::metrics_text();
  EXPECT_THAT(
      metrics,
      HasSubstr(
          "collage_kube_request_seconds_count{code=\"200\",resource=\"persistentvolumes\",verb=\"delete\"}"));
  EXPECT_THAT(metrics,
              HasSubstr("collage_kube_writes_total{resource=\"persistentvolumes\",verb=\"delete\"}"));
}

}  // namespace
}  // namespace collage::kube
