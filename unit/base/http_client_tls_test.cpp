#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <latch>
#include <mutex>
#include <set>
#include <thread>

#include "base/files.h"
#include "base/http_client.h"
#include "base/status.h"
#include "unit/base/http_test_server.h"
#include "unit/base/test_child.h"
#include "unit/testing/temp_dir.h"
#include "unit/testing/test_tls.h"

namespace collage::base {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::TestCa;

class HttpClientTls : public ::testing::Test {
 protected:
  const TestCa ca_{"the right CA"};
  const TestCa other_ca_{"another CA"};

  static void serve(TestServer& server) {
    server->Get("/", [](const httplib::Request&, httplib::Response& out) {
      out.set_content("secret", "text/plain");
    });
    server.start();
  }
  absl::StatusOr<HttpResponse> ask(const TestServer& server, const TlsConfig& tls) {
    return client_of(server.url("https"), tls)->send(soon(), get("/"));
  }
};

TEST_F(HttpClientTls, TrustsItsCaForAnAddress) {
  TestServer server = tls_server(ca_.issue("kubernetes", {"DNS:kubernetes", "IP:127.0.0.1"}));
  serve(server);
  const auto answer = ask(server, {.ca_pem = ca_.pem()});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->body, "secret");
}

TEST_F(HttpClientTls, TrustsAnyOfSeveralCas) {
  TestServer server = tls_server(ca_.issue("kubernetes", {"IP:127.0.0.1"}));
  serve(server);
  EXPECT_TRUE(ask(server, {.ca_pem = other_ca_.pem() + ca_.pem()}).ok());
}

TEST_F(HttpClientTls, RefusesAnotherCaAndSaysWhy) {
  TestServer server = tls_server(ca_.issue("kubernetes", {"IP:127.0.0.1"}));
  serve(server);
  for (const std::string& trusted : {other_ca_.pem(), std::string()}) {  // another, and the system's
    const auto answer = ask(server, {.ca_pem = trusted});
    EXPECT_EQ(answer.status().code(), absl::StatusCode::kUnauthenticated);
    EXPECT_EQ(sent_of(answer.status()), Sent::kNotSent);
    EXPECT_THAT(std::string(answer.status().message()),
                AllOf(HasSubstr("unable to get local issuer certificate"), HasSubstr("CN=the right CA")));
  }
}

TEST_F(HttpClientTls, RefusesAnotherName) {
  TestServer server = tls_server(ca_.issue("127.0.0.1", {"DNS:kubernetes", "IP:10.96.0.1"}));
  serve(server);
  const auto answer = ask(server, {.ca_pem = ca_.pem()});
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_THAT(std::string(answer.status().message()),
              AllOf(HasSubstr("IP address mismatch"), HasSubstr("asked for 127.0.0.1")));
}

TEST_F(HttpClientTls, RefusesAnExpiredCertificate) {
  TestServer server = tls_server(ca_.issue("kubernetes", {"IP:127.0.0.1"}, -1));
  serve(server);
  const auto answer = ask(server, {.ca_pem = ca_.pem()});
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_THAT(std::string(answer.status().message()), HasSubstr("certificate has expired"));
}

TEST_F(HttpClientTls, ChecksServerNameInsteadOfTheHost) {
  TestServer server = tls_server(ca_.issue("x", {"DNS:api.example.org", "IP:10.96.0.1"}));
  serve(server);
  EXPECT_TRUE(ask(server, {.ca_pem = ca_.pem(), .server_name = "api.example.org"}).ok());
  EXPECT_TRUE(ask(server, {.ca_pem = ca_.pem(), .server_name = "10.96.0.1"}).ok());
  EXPECT_EQ(ask(server, {.ca_pem = ca_.pem(), .server_name = "other.example.org"}).status().code(),
            absl::StatusCode::kUnauthenticated);
}

TEST_F(HttpClientTls, SkipsVerificationOnlyWhenTold) {
  TestServer server = tls_server(other_ca_.issue("x", {"DNS:elsewhere"}));
  serve(server);
  EXPECT_TRUE(ask(server, {.ca_pem = ca_.pem(), .skip_verify = true}).ok());
  EXPECT_FALSE(ask(server, {.ca_pem = ca_.pem()}).ok());
}

TEST_F(HttpClientTls, ShowsItsClientCertificate) {
  TestServer server = tls_server(ca_.issue("kubernetes", {"IP:127.0.0.1"}), ca_.pem());
  serve(server);
  const Identity me = ca_.issue("admin"), stranger = other_ca_.issue("admin");
  EXPECT_TRUE(ask(server, {.ca_pem = ca_.pem(),
                           .client_certificate_pem = me.certificate_pem,
                           .client_key_pem = Secret(me.key_pem)})
                  .ok());
  EXPECT_EQ(ask(server, {.ca_pem = ca_.pem()}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ask(server, {.ca_pem = ca_.pem(),
                         .client_certificate_pem = stranger.certificate_pem,
                         .client_key_pem = Secret(stranger.key_pem)})
                .status()
                .code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(HttpClientTls, RefusesBadPem) {
  const Identity me = ca_.issue("a"), other = ca_.issue("b");
  const auto status_of = [](const TlsConfig& tls) {
    return make_http_client("https://127.0.0.1", tls).status();
  };
  EXPECT_THAT(std::string(status_of({.ca_pem = "rubbish"}).message()), HasSubstr("CA"));
  EXPECT_THAT(
      std::string(
          status_of({.client_certificate_pem = "rubbish", .client_key_pem = Secret(me.key_pem)}).message()),
      HasSubstr("client certificate"));
  EXPECT_THAT(
      std::string(
          status_of({.client_certificate_pem = me.certificate_pem, .client_key_pem = Secret("x")}).message()),
      HasSubstr("client key"));
  EXPECT_THAT(std::string(status_of({.client_certificate_pem = me.certificate_pem,
                                     .client_key_pem = Secret(other.key_pem)})
                              .message()),
              HasSubstr("does not belong"));
  EXPECT_EQ(status_of({.ca_pem = "rubbish"}).code(), absl::StatusCode::kInvalidArgument);
}

TEST(HttpClient, ReachesIpv6Addresses) {
  const TestCa ca;
  TestServer server = tls_server(ca.issue("x", {"IP:::1"}));
  server->Get("/", [](const httplib::Request& in, httplib::Response& out) {
    out.set_content(in.get_header_value("Host"), "text/plain");
  });
  const int port = server.start("::1");
  if (port < 0) GTEST_SKIP() << "no IPv6 loopback here";
  const std::string host = "[::1]:" + std::to_string(port);
  const auto answer = client_of("https://" + host, {.ca_pem = ca.pem()})->send(soon(), get("/"));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->body, host);
}

// In a process of its own, since it changes the environment.
TEST(HttpClientChild, DISABLED_AskWithSystemRoots) {
  init_http_client(2);
  init_http_client(2);  // harmless
  const auto answer = client_of(getenv("URL"))->send(soon(), get("/"));
  TestChild::say(answer.ok() ? answer->body : to_string(answer.status()));
}

TEST_F(HttpClientTls, TrustsTheSystemsRootsWithoutACa) {
  testing::TempDir dir;
  ASSERT_TRUE(write_file_atomic(dir / "roots.pem", ca_.pem(), 0600).ok());
  TestServer server = tls_server(ca_.issue("kubernetes", {"IP:127.0.0.1"}));
  serve(server);
  TestChild trusting("HttpClientChild.DISABLED_AskWithSystemRoots",
                     {{"URL", server.url("https")}, {"SSL_CERT_FILE", dir / "roots.pem"}});
  EXPECT_EQ(trusting.line(), "secret");
  TestChild other("HttpClientChild.DISABLED_AskWithSystemRoots", {{"URL", server.url("https")}});
  EXPECT_THAT(other.line(), HasSubstr("UNAUTHENTICATED"));
}

// Many callers on few pool threads, and connections that are reused: a caller that blocked a pool thread
// would end this.
TEST_F(HttpClientTls, ServesManyCallersAtOnce) {
  constexpr int kCallers = 64, kEach = 20;
  TestServer server = tls_server(ca_.issue("kubernetes", {"IP:127.0.0.1"}));
  server->Get("/", [](const httplib::Request& in, httplib::Response& out) {
    out.set_content(std::to_string(in.remote_port), "text/plain");
  });
  server.start();
  const auto client = client_of(server.url("https"), {.ca_pem = ca_.pem()});
  std::mutex mutex;
  std::set<std::string> ports;
  std::latch start(kCallers);
  std::vector<std::thread> callers;
  for (int i = 0; i < kCallers; ++i) {
    callers.emplace_back([&] {
      start.arrive_and_wait();
      for (int n = 0; n < kEach; ++n) {
        const auto answer = client->send(Context().with_timeout(60s), get("/"));
        std::lock_guard lock(mutex);
        ASSERT_TRUE(answer.ok()) << answer.status();
        ports.insert(answer->body);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_LE(ports.size(), static_cast<size_t>(2 * kCallers));
}

}  // namespace
}  // namespace collage::base
