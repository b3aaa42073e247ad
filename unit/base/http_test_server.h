#pragma once

#include <gtest/gtest.h>
#include <httplib.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/http_client.h"
#include "unit/testing/test_tls.h"

// Servers for the tests of the HTTP client, from a real one to one driven byte by byte.
namespace collage::base {

using namespace std::chrono_literals;
using testing::Identity;

inline X509* certificate_of(const std::string& pem) {
  BIO* bio = BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
  X509* certificate = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
  BIO_free(bio);
  return certificate;
}

inline EVP_PKEY* key_of(const std::string& pem) {
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
    server_->set_socket_options([this](int socket) { socket_ = socket; });
  }
  ~TestServer() {
    server_->stop();
    if (thread_.joinable()) thread_.join();
  }

  httplib::Server* operator->() { return server_.get(); }
  int start(const std::string& host = "127.0.0.1") {
    port_ = server_->bind_to_any_port(host);
    // The library listens with a backlog of 5: a crowd of callers would wait for repeated SYNs.
    listen(socket_, 512);
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
  int socket_ = -1;
  int port_ = 0;
};

inline TestServer plain_server() {
  return TestServer(std::make_unique<httplib::Server>());
}

inline TestServer tls_server(const Identity& identity, const std::string& client_ca = "") {
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
inline std::string read_request(int fd) {
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

inline void write_text(int fd, std::string_view text) {
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

inline std::unique_ptr<HttpClient> client_of(const std::string& url, const TlsConfig& tls = {}) {
  auto client = make_http_client(url, tls);
  EXPECT_TRUE(client.ok()) << client.status();
  return client.ok() ? *std::move(client) : nullptr;
}

inline Context soon() {
  return Context().with_timeout(10s);
}

inline HttpRequest get(const std::string& path) {
  return {.path = path};
}
inline HttpRequest post(const std::string& path, const std::string& body) {
  return {.method = "POST", .path = path, .body = body};
}

}  // namespace collage::base
