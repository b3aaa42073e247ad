#include "base/http_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "base/files.h"
#include "base/http_client.h"
#include "base/metrics.h"

namespace collage::base {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

std::string url_of(int port) {
  return "http://127.0.0.1:" + std::to_string(port);
}

absl::StatusOr<HttpResponse> send_to(int port, const HttpRequest& request) {
  auto client = make_http_client(url_of(port), {});
  if (!client.ok()) return client.status();
  return (*client)->send(Context().with_timeout(10s), request);
}

int listen_or_fail(HttpServer& server, const std::string& address = "127.0.0.1:0") {
  const auto port = server.listen(address);
  EXPECT_TRUE(port.ok()) << port.status();
  return port.value_or(0);
}

TEST(HttpServer, AnswersHealthWithEachFailedCheck) {
  std::atomic<bool> broken = false;
  HttpServer server;
  server.add_health_check("always", [] { return absl::OkStatus(); });
  server.add_health_check("lease",
                          [&] { return broken ? absl::UnavailableError("lost") : absl::OkStatus(); });
  server.add_readiness_check("cache", [] { return absl::UnavailableError("not synced"); });
  const int port = listen_or_fail(server);
  EXPECT_EQ(send_to(port, {.path = "/healthz"})->status, 200);
  EXPECT_EQ(send_to(port, {.path = "/healthz"})->body, "ok");
  broken = true;
  const auto failed = send_to(port, {.path = "/healthz"});
  EXPECT_EQ(failed->status, 503);
  EXPECT_EQ(failed->body, "lease: UNAVAILABLE: lost\n");
  EXPECT_EQ(send_to(port, {.path = "/readyz"})->body, "cache: UNAVAILABLE: not synced\n");
  // Checks may come later.
  server.add_readiness_check("registration", [] { return absl::InternalError("none"); });
  EXPECT_THAT(send_to(port, {.path = "/readyz"})->body, HasSubstr("registration: INTERNAL: none\n"));
}

TEST(HttpServer, ServesMetrics) {
  const Gauge served("test_served", "Served.");
  served.set(7);
  HttpServer server;
  const auto answer = send_to(listen_or_fail(server), {.path = "/metrics"});
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->headers.at("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_THAT(answer->body, HasSubstr("test_served 7\n"));
}

TEST(HttpServer, ServesWhatARoleAdds) {
  HttpServer server;
  server.get("/hello", [](const std::string&) { return HttpAnswer{.body = "hi"}; });
  server.post("/echo", [](const std::string& body) {
    return HttpAnswer{.status = 202, .content_type = "application/json", .body = body};
  });
  server.get("/throws", [](const std::string&) -> HttpAnswer { throw std::runtime_error("secret detail"); });
  const int port = listen_or_fail(server);
  EXPECT_EQ(send_to(port, {.path = "/hello"})->body, "hi");
  const auto echo = send_to(port, {.method = "POST", .path = "/echo", .body = "{}"});
  EXPECT_EQ(echo->status, 202);
  EXPECT_EQ(echo->headers.at("content-type"), "application/json");
  EXPECT_EQ(echo->body, "{}");
  EXPECT_EQ(send_to(port, {.path = "/none"})->status, 404);
  EXPECT_EQ(send_to(port, {.path = "/throws"})->status, 500);
  EXPECT_EQ(send_to(port, {.path = "/throws"})->body, "internal error\n");
}

TEST(HttpServer, RefusesBodiesBeyondItsBound) {
  HttpServer server;
  server.post("/echo",
              [](const std::string& body) { return HttpAnswer{.body = std::to_string(body.size())}; });
  const int port = listen_or_fail(server);
  EXPECT_EQ(send_to(port, {.method = "POST", .path = "/echo", .body = std::string(1 << 20, 'x')})->body,
            "1048576");
  const auto refused =
      send_to(port, {.method = "POST", .path = "/echo", .body = std::string((1 << 20) + 1, 'x')});
  // The answer may be lost with the connection, which is closed over a body that nobody read.
  if (refused.ok()) {
    EXPECT_EQ(refused->status, 413);
  }
}

TEST(HttpServer, SaysThatTheAddressIsInUse) {
  HttpServer first, second;
  const int port = listen_or_fail(first);
  for (const std::string address : {"127.0.0.1:", "[::]:", ":"}) {
    const auto refused = second.listen(address + std::to_string(port));
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition) << address;
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr(address + std::to_string(port)));
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr("in use"));
  }
  // And can take it as soon as it is free.
  first.stop();
  EXPECT_EQ(*second.listen("127.0.0.1:" + std::to_string(port)), port);
}

TEST(HttpServer, ListensOnAllAddresses) {
  for (const std::string address : {":0", "0.0.0.0:0"}) {
    HttpServer server;
    EXPECT_EQ(send_to(listen_or_fail(server, address), {.path = "/healthz"})->status, 200) << address;
  }
}

TEST(HttpServer, RefusesABadAddress) {
  for (const std::string address : {"", "8080", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1",
                                    "256.1.1.1:0", "192.0.2.1:0"}) {
    HttpServer server;
    EXPECT_FALSE(server.listen(address).ok()) << address;
  }
}

TEST(HttpServer, IdleClientsDoNotLockOthersOut) {
  HttpServer server;
  const int port = listen_or_fail(server);
  // As many kept connections as the server has threads; each made one request.
  std::vector<std::unique_ptr<HttpClient>> idle;
  for (int i = 0; i < 8; ++i) {
    idle.push_back(*make_http_client(url_of(port), {}));
    ASSERT_TRUE(idle.back()->send(Context().with_timeout(10s), {.path = "/healthz"}).ok());
  }
  const auto answer =
      (*make_http_client(url_of(port), {}))->send(Context().with_timeout(2s), {.path = "/healthz"});
  EXPECT_TRUE(answer.ok()) << answer.status();
}

TEST(HttpServer, StopsAtOnceAndTwice) {
  HttpServer server;
  server.stop();
  const int port = listen_or_fail(server);
  server.stop();
  server.stop();
  EXPECT_EQ(send_to(port, {.path = "/healthz"}).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace collage::base
