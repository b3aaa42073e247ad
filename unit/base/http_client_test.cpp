#include "base/http_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <openssl/pem.h>

#include <atomic>
#include <future>
#include <latch>
#include <set>
#include <thread>

#include "base/files.h"
#include "base/status.h"
#include "unit/base/test_child.h"
#include "unit/testing/temp_dir.h"
#include "unit/testing/test_tls.h"

namespace collage::base {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::Identity;
using testing::TestCa;

// As in main: few threads, so that a caller that blocked one would be noticed.
class FewThreads : public ::testing::Environment {
 public:
  void SetUp() override {
    if (!TestChild::inside()) init_http_client(4);
  }
};
const auto* const few_threads = ::testing::AddGlobalTestEnvironment(new FewThreads);

X509* certificate_of(const std::string& pem) {
  BIO* bio = BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
  X509* certificate = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
  BIO_free(bio);
  return certificate;
}

EVP_PKEY* key_of(const std::string& pem) {
  BIO* bio = BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
  EVP_PKEY* key = PEM_read_bio_PrivateKey(bio, nullptr, nullptr, nullptr);
  BIO_free(bio);
  return key;
}

// A server on 127.0.0.1 with a thread a connection; routes are added before start().
class TestServer {
 public:
  explicit TestServer(std::unique_ptr<httplib::Server> server) : server_(std::move(server)) {
    server_->new_task_queue = [] { return new httplib::ThreadPool(160); };
    server_->set_keep_alive_max_count(1'000'000);
    server_->set_tcp_nodelay(true);
  }
  ~TestServer() {
    server_->stop();
    if (thread_.joinable()) thread_.join();
  }

  httplib::Server* operator->() { return server_.get(); }
  int start(const std::string& host = "127.0.0.1") {
    port_ = server_->bind_to_any_port(host);
    thread_ = std::thread([this] { server_->listen_after_bind(); });
    while (!server_->is_running()) std::this_thread::yield();
    return port_;
  }
  std::string url(const std::string& scheme = "http") const {
    return scheme + "://127.0.0.1:" + std::to_string(port_);
  }

 private:
  std::unique_ptr<httplib::Server> server_;
  std::thread thread_;
  int port_ = 0;
};

TestServer plain_server() {
  return TestServer(std::make_unique<httplib::Server>());
}

TestServer tls_server(const Identity& identity, const std::string& client_ca = "") {
  X509_STORE* clients = nullptr;
  if (!client_ca.empty()) {
    clients = X509_STORE_new();
    X509* ca = certificate_of(client_ca);
    X509_STORE_add_cert(clients, ca);
    X509_free(ca);
  }
  X509* certificate = certificate_of(identity.certificate_pem);
  EVP_PKEY* key = key_of(identity.key_pem);
  auto server = std::make_unique<httplib::SSLServer>(certificate, key, clients);
  X509_free(certificate);
  EVP_PKEY_free(key);
  return TestServer(std::move(server));
}

// A listening socket whose connections a test drives by hand.
class RawServer {
 public:
  RawServer() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    if (bind(fd_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(fd_, 8) != 0) abort();
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
  }
  ~RawServer() { close(fd_); }
  // Ends a thread in accept_one.
  void stop() { shutdown(fd_, SHUT_RDWR); }
  int accept_one() { return accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC); }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }

 private:
  int fd_;
  int port_ = 0;
};

// Reads a request's head and, by its Content-Length, its body.
std::string read_request(int fd) {
  std::string text;
  char buffer[4096];
  while (true) {
    const size_t end = text.find("\r\n\r\n");
    if (end != std::string::npos) {
      const size_t at = text.find("Content-Length:");
      const size_t body = at == std::string::npos ? 0 : std::stoul(text.substr(at + 15));
      if (text.size() >= end + 4 + body) return text;
    }
    const ssize_t got = read(fd, buffer, sizeof buffer);
    if (got <= 0) return text;
    text.append(buffer, static_cast<size_t>(got));
  }
}

void write_text(int fd, std::string_view text) {
  ASSERT_EQ(send(fd, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
}

constexpr std::string_view kOk = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

// Answers each request by a function of its text and of how many requests its connection saw before; an empty
// answer closes the connection.
class ScriptedServer {
 public:
  using Script = std::function<std::string(const std::string& request, int before)>;
  explicit ScriptedServer(Script script) : script_(std::move(script)), acceptor_([this] { accept_all(); }) {}
  ~ScriptedServer() {
    raw_.stop();
    acceptor_.join();
    {
      std::lock_guard lock(mutex_);
      for (const int fd : open_) shutdown(fd, SHUT_RDWR);
    }
    for (std::thread& connection : connections_) connection.join();
  }
  std::string url() const { return raw_.url(); }

 private:
  void accept_all() {
    for (int fd; (fd = raw_.accept_one()) >= 0;) {
      std::lock_guard lock(mutex_);
      open_.insert(fd);
      connections_.emplace_back([this, fd] { serve(fd); });
    }
  }
  void serve(int fd) {
    for (int before = 0;; ++before) {
      const std::string request = read_request(fd);
      const std::string answer = request.empty() ? "" : script_(request, before);
      if (answer.empty()) break;
      write_text(fd, answer);
    }
    std::lock_guard lock(mutex_);
    open_.erase(fd);
    close(fd);
  }

  RawServer raw_;
  const Script script_;
  std::mutex mutex_;
  std::set<int> open_;
  std::vector<std::thread> connections_;
  std::thread acceptor_;
};

std::unique_ptr<HttpClient> client_of(const std::string& url, const TlsConfig& tls = {}) {
  auto client = make_http_client(url, tls);
  EXPECT_TRUE(client.ok()) << client.status();
  return client.ok() ? *std::move(client) : nullptr;
}

Context soon() {
  return Context().with_timeout(10s);
}

HttpRequest get(const std::string& path) {
  return {.path = path};
}
HttpRequest post(const std::string& path, const std::string& body) {
  return {.method = "POST", .path = path, .body = body};
}

TEST(HttpClient, SendsWhatItIsGivenAndAnswersAll) {
  TestServer server = plain_server();
  server->Post("/p", [](const httplib::Request& in, httplib::Response& out) {
    out.status = 409;
    out.set_header("Retry-After", "3");
    out.set_content(in.body + "|" + in.get_header_value("Content-Type") + "|" +
                        in.get_header_value("Authorization") + "|" + in.get_header_value("Accept-Encoding"),
                    "text/plain");
  });
  server.start();
  HttpRequest request = post("/p", "body");
  request.headers["Content-Type"] = "application/merge-patch+json";
  request.bearer_token = Secret("token-from-a-file\n");
  const auto answer = client_of(server.url())->send(soon(), request);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->status, 409);
  EXPECT_EQ(answer->body, "body|application/merge-patch+json|Bearer token-from-a-file|");
  EXPECT_EQ(answer->headers.at("retry-after"), "3");
}

TEST(HttpClient, KeepsThePathAsItIsEncoded) {
  TestServer server = plain_server();
  server->Get("/.*", [](const httplib::Request& in, httplib::Response& out) {
    out.set_content(in.target, "text/plain");
  });
  server.start();
  const auto client = client_of(server.url());
  for (const std::string path :
       {"/", "/a%2Fb/c%20d", "/api/v1/pods?limit=500&fieldSelector=spec.nodeName%3Da%2Cb",
        "/x?continue=a%2Bb%3D%3D&watch=true", "/x?empty=&flag", "/~a/b:c@d"}) {
    const auto answer = client->send(soon(), get(path));
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(answer->body, path);
  }
}

TEST(HttpClient, KeepsThePathOfItsUrl) {
  TestServer server = plain_server();
  server->Get("/.*", [](const httplib::Request& in, httplib::Response& out) {
    out.set_content(in.target, "text/plain");
  });
  server.start();
  EXPECT_EQ(client_of(server.url() + "/clusters/a/")->send(soon(), get("/api/v1"))->body,
            "/clusters/a/api/v1");
}

TEST(HttpClient, FollowsNoRedirect) {
  TestServer server = plain_server();
  server->Get("/from", [](const httplib::Request&, httplib::Response& out) { out.set_redirect("/to"); });
  server.start();
  EXPECT_EQ(client_of(server.url())->send(soon(), get("/from"))->status, 302);
}

TEST(HttpClient, RefusesRequestsThatWouldInjectHeaders) {
  const auto client = client_of("http://127.0.0.1:1");
  HttpRequest header = get("/");
  header.headers["X"] = "a\r\nHost: evil";
  HttpRequest token = get("/");
  token.bearer_token = Secret("a\r\nHost: evil");
  for (const HttpRequest& request : {header, token, get("/a b\r\nX: y")}) {
    EXPECT_EQ(client->send(soon(), request).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(HttpClient, AnswersLargeBodiesWhole) {
  const std::string large(5 << 20, 'x');
  TestServer server = plain_server();
  server->Get("/sized",
              [&](const httplib::Request&, httplib::Response& out) { out.set_content(large, "text/plain"); });
  server->Get("/chunked", [&](const httplib::Request&, httplib::Response& out) {
    out.set_chunked_content_provider("text/plain", [&](size_t offset, httplib::DataSink& sink) {
      sink.write(large.data() + offset, std::min<size_t>(70'000, large.size() - offset));
      if (offset + 70'000 >= large.size()) sink.done();
      return true;
    });
  });
  server->Post("/echo", [](const httplib::Request& in, httplib::Response& out) {
    out.set_content(in.body, "text/plain");
  });
  server.start();
  const auto client = client_of(server.url());
  EXPECT_EQ(client->send(soon(), get("/sized"))->body, large);
  EXPECT_EQ(client->send(soon(), get("/chunked"))->body, large);
  EXPECT_EQ(client->send(soon(), post("/echo", large))->body, large);
}

TEST(HttpClient, RefusesAnAnswerBeyondItsBound) {
  TestServer server = plain_server();
  server->Get("/", [](const httplib::Request&, httplib::Response& out) {
    out.set_content_provider(size_t{65} << 20, "text/plain",
                             [](size_t, size_t length, httplib::DataSink& sink) {
                               const std::string piece(std::min<size_t>(length, 1 << 20), 'x');
                               return sink.write(piece.data(), piece.size());
                             });
  });
  server.start();
  const auto answer = client_of(server.url())->send(soon(), get("/"));
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(answer.status().message(), HasSubstr("larger than 64 MiB"));
}

// ---- Errors

TEST(HttpClient, SaysNotSentWhenNobodyListens) {
  int port = 0;
  {
    TestServer server = plain_server();
    port = server.start();
  }
  const auto answer = client_of("http://127.0.0.1:" + std::to_string(port))->send(soon(), post("/", "x"));
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(sent_of(answer.status()), Sent::kNotSent);
  EXPECT_THAT(answer.status().message(), HasSubstr("connection refused"));
  EXPECT_EQ(sent_of(annotate(answer.status(), "create a volume")), Sent::kNotSent);
}

TEST(HttpClient, SaysNotSentWhenTheHostIsUnknown) {
  const auto answer = client_of("http://no-such-host.invalid")->send(soon(), post("/", "x"));
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(sent_of(answer.status()), Sent::kNotSent);
  EXPECT_THAT(answer.status().message(), HasSubstr("no such host"));
}

TEST(HttpClient, SaysUnknownAndNeverRepeatsAWriteThatTheServerRead) {
  for (const std::string method : {"POST", "PATCH", "DELETE"}) {
    SCOPED_TRACE(method);
    std::atomic<int> on_new = 0, on_kept = 0;
    ScriptedServer server([&](const std::string& request, int before) -> std::string {
      if (!request.starts_with(method)) return std::string(kOk);
      ++(before == 0 ? on_new : on_kept);
      return "";
    });
    const auto client = client_of(server.url());
    // The library itself would repeat a write on a kept connection. Whether a connection is kept in time for
    // the next request is a race in the library: go on until both cases were there.
    int writes = 0;
    for (; writes < 1000 && (on_new == 0 || on_kept == 0); ++writes) {
      if (writes > 0) {
        ASSERT_TRUE(client->send(soon(), get("/")).ok());
      }
      const auto answer =
          client->send(soon(), {.method = method, .path = "/", .body = method == "DELETE" ? "" : "x"});
      EXPECT_EQ(answer.status().code(), absl::StatusCode::kUnavailable);
      EXPECT_EQ(sent_of(answer.status()), Sent::kUnknown);
    }
    EXPECT_GT(on_kept, 0);
    EXPECT_EQ(on_new + on_kept, writes);
  }
}

TEST(HttpClient, ReplacesAKeptConnectionThatTheServerClosed) {
  constexpr int kRounds = 200;
  RawServer server;
  std::promise<void> closed[kRounds];
  std::thread serve([&] {
    for (auto& done : closed) {
      const int fd = server.accept_one();
      read_request(fd);
      write_text(fd, kOk);  // which promises to keep the connection
      close(fd);
      done.set_value();
    }
  });
  const auto client = client_of(server.url());
  for (auto& done : closed) {
    const auto answer = client->send(soon(), post("/", "the write"));
    EXPECT_TRUE(answer.ok()) << answer.status();
    done.get_future().wait();
  }
  serve.join();
}

TEST(HttpClient, EndsAtItsDeadlineWhileTheServerIsSilent) {
  RawServer server;
  const auto client = client_of(server.url());
  const auto before = std::chrono::steady_clock::now();
  const auto answer = client->send(Context().with_timeout(100ms), post("/", "x"));
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(sent_of(answer.status()), Sent::kUnknown);
  EXPECT_LT(std::chrono::steady_clock::now() - before, 5s);
}

TEST(HttpClient, EndsAtOnceWhenStopped) {
  RawServer server;
  const auto client = client_of(server.url());
  std::stop_source stop;
  auto answer =
      std::async(std::launch::async, [&] { return client->send(Context(stop.get_token()), get("/")); });
  const int fd = server.accept_one();
  read_request(fd);
  const auto before = std::chrono::steady_clock::now();
  stop.request_stop();
  EXPECT_EQ(answer.get().status().code(), absl::StatusCode::kCancelled);
  EXPECT_LT(std::chrono::steady_clock::now() - before, 2s);
  // The connection is closed as well, so that the server stops working for nobody.
  char byte;
  EXPECT_LE(read(fd, &byte, 1), 0);
  close(fd);
}

TEST(HttpClient, SendsNothingForAContextThatHasEnded) {
  std::stop_source stop;
  stop.request_stop();
  const auto client = client_of("http://127.0.0.1:1");
  const auto stopped = client->send(Context(stop.get_token()), get("/"));
  EXPECT_EQ(stopped.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(sent_of(stopped.status()), Sent::kNotSent);
  const auto late = client->send(Context().with_timeout(0s), get("/"));
  EXPECT_EQ(late.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(sent_of(late.status()), Sent::kNotSent);
}

TEST(HttpClient, RefusesABadUrl) {
  for (const std::string url : {"", "10.96.0.1:443", "ftp://a", "https://", "https://a b"}) {
    EXPECT_EQ(make_http_client(url, {}).status().code(), absl::StatusCode::kInvalidArgument) << url;
  }
}

// ---- Streams

TEST(HttpClientStream, HandsOverEachChunkAsItArrives) {
  RawServer server;
  const auto client = client_of(server.url());
  std::vector<std::string> got;
  std::promise<void> seen[2];
  std::thread serve([&] {
    const int fd = server.accept_one();
    read_request(fd);
    write_text(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n");
    write_text(fd, "5\r\nfirst\r\n");
    seen[0].get_future().wait();  // hangs unless the first is handed over before the second is sent
    write_text(fd, "6\r\nsecond\r\n");
    seen[1].get_future().wait();
    write_text(fd, "0\r\n\r\n");
    close(fd);
  });
  int headers = 0;
  const absl::Status status = client->stream(
      soon(), get("/watch"), 5s,
      [&](const HttpResponse& head) {
        ++headers;
        EXPECT_EQ(head.status, 200);
        EXPECT_EQ(head.headers.at("x-a"), "b");
        return absl::OkStatus();
      },
      [&](std::string_view chunk) {
        got.emplace_back(chunk);
        seen[got.size() - 1].set_value();
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(headers, 1);
  EXPECT_THAT(got, ::testing::ElementsAre("first", "second"));
  serve.join();
}

TEST(HttpClientStream, EndsWhenIdle) {
  RawServer server;
  const auto client = client_of(server.url());
  std::promise<void> done;
  std::thread serve([&] {
    const int fd = server.accept_one();
    read_request(fd);
    write_text(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    done.get_future().wait();
    close(fd);
  });
  int chunks = 0;
  const absl::Status status = client->stream(
      soon(), get("/"), 200ms, [](const HttpResponse&) { return absl::OkStatus(); },
      [&](std::string_view) {
        ++chunks;
        return absl::OkStatus();
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(status.message(), HasSubstr("nothing received for 200 ms"));
  EXPECT_EQ(chunks, 1);
  done.set_value();
  serve.join();
}

TEST(HttpClientStream, EndsAtOnceWhenStoppedAndWithWhatACallbackSays) {
  TestServer server = plain_server();
  server->Get("/", [](const httplib::Request&, httplib::Response& out) {
    out.set_chunked_content_provider("text/plain", [](size_t, httplib::DataSink& sink) {
      std::this_thread::sleep_for(5ms);
      return sink.write("tick", 4);
    });
  });
  server.start();
  const auto client = client_of(server.url());
  const auto accept = [](const HttpResponse&) { return absl::OkStatus(); };
  std::stop_source stop;
  EXPECT_EQ(client
                ->stream(Context(stop.get_token()), get("/"), 5s, accept,
                         [&](std::string_view) {
                           stop.request_stop();
                           return absl::OkStatus();
                         })
                .code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(client->stream(soon(), get("/"), 5s, accept,
                           [](std::string_view) { return absl::DataLossError("mine"); }),
            absl::DataLossError("mine"));
  EXPECT_EQ(client->stream(
                soon(), get("/"), 5s, [](const HttpResponse&) { return absl::DataLossError("head"); },
                [](std::string_view) { return absl::OkStatus(); }),
            absl::DataLossError("head"));
  EXPECT_EQ(client
                ->stream(Context().with_timeout(100ms), get("/"), 5s, accept,
                         [](std::string_view) { return absl::OkStatus(); })
                .code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(HttpClientStream, SaysThatTheConnectionBroke) {
  RawServer server;
  const auto client = client_of(server.url());
  std::thread serve([&] {
    const int fd = server.accept_one();
    read_request(fd);
    write_text(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n5\r\nab");
    close(fd);
  });
  const absl::Status status = client->stream(
      soon(), get("/"), 5s, [](const HttpResponse&) { return absl::OkStatus(); },
      [](std::string_view) { return absl::OkStatus(); });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  serve.join();
}

TEST(HttpClientStream, HoldsTheServerBackWhileTheCallerIsSlow) {
  constexpr size_t kPiece = 256 << 10, kPieces = 64;
  std::atomic<size_t> sent = 0;
  std::promise<void> hold;
  auto held = hold.get_future();
  TestServer server = plain_server();
  server->Get("/", [&](const httplib::Request&, httplib::Response& out) {
    out.set_chunked_content_provider("text/plain", [&](size_t, httplib::DataSink& sink) {
      const std::string piece(kPiece, 'x');
      if (!sink.write(piece.data(), piece.size())) return false;
      if (++sent == kPieces) sink.done();
      return true;
    });
  });
  server.start();
  size_t received = 0;
  const absl::Status status =
      client_of(server.url())
          ->stream(
              soon(), get("/"), 5s, [](const HttpResponse&) { return absl::OkStatus(); },
              [&](std::string_view chunk) {
                if (received == 0) {
                  // While this caller takes nothing, the server gets stuck well before the end: its count
                  // stands still.
                  size_t last = 0;
                  do {
                    last = sent;
                    held.wait_for(200ms);
                  } while (sent != last);
                  EXPECT_LT(sent, kPieces);
                }
                received += chunk.size();
                return absl::OkStatus();
              });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(received, kPiece * kPieces);
}

// ---- TLS

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

TEST(UrlEncode, LeavesOnlyUnreservedCharacters) {
  EXPECT_EQ(url_encode("aZ09-._~"), "aZ09-._~");
  EXPECT_EQ(url_encode("a/b c=d&e%\xc3\xa4"), "a%2Fb%20c%3Dd%26e%25%C3%A4");
}

}  // namespace
}  // namespace collage::base
