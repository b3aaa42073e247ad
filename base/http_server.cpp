#include "base/http_server.h"

#include <httplib.h>
#include <sys/socket.h>

#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "base/metrics.h"
#include "base/status.h"
#include "base/strings.h"

namespace collage::base {
namespace {

constexpr size_t kThreads = 4;
constexpr size_t kMaxBody = 1 << 20;
constexpr std::chrono::seconds kPatience(5);  // for a client's next bytes

struct NamedCheck {
  std::string name;
  HttpServer::Check check;
};

struct Address {
  std::string host;  // without brackets
  int port = 0;
};

absl::StatusOr<Address> parse_address(const std::string& text) {
  const size_t colon = text.rfind(':');
  Address address;
  if (colon == std::string::npos || !absl::SimpleAtoi(text.substr(colon + 1), &address.port) ||
      address.port < 0 || address.port > 65535) {
    return absl::InvalidArgumentError(
        cat("\"", text, "\" is not an address such as 127.0.0.1:8080, [::]:8080 or :8080"));
  }
  address.host = text.substr(0, colon);
  if (address.host.starts_with('[') && address.host.ends_with(']')) {
    address.host = address.host.substr(1, address.host.size() - 2);
  }
  return address;
}

void answer(const HttpAnswer& from, httplib::Response& to) {
  to.status = from.status;
  to.set_content(from.body, from.content_type);
}

}  // namespace

struct HttpServer::Impl {
  httplib::Server server;
  std::thread acceptor;
  int socket = -1;  // the library's, once it listens
  std::mutex mutex;
  std::vector<NamedCheck> health;
  std::vector<NamedCheck> readiness;

  HttpAnswer run(const std::vector<NamedCheck>& which) {
    std::vector<NamedCheck> checks;
    {
      std::lock_guard lock(mutex);
      checks = which;
    }
    std::string failed;
    for (const NamedCheck& check : checks) {
      if (const absl::Status status = check.check(); !status.ok())
        failed += cat(check.name, ": ", to_string(status), "\n");
    }
    if (failed.empty()) return {.body = "ok"};
    return {.status = 503, .body = std::move(failed)};
  }

  // -1 when the address cannot be bound; errno says why.
  int bind(const std::string& host, int port) {
    if (port == 0) return server.bind_to_any_port(host);
    return server.bind_to_port(host, port) ? port : -1;
  }
};

HttpServer::HttpServer() : impl_(new Impl) {
  httplib::Server& server = impl_->server;
  server.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
  // A connection occupies a thread as long as it lives: with keep-alive four idle clients would lock out a
  // probe.
  server.set_keep_alive_max_count(1);
  server.set_read_timeout(kPatience);
  server.set_write_timeout(kPatience);
  server.set_payload_max_length(kMaxBody);
  server.set_tcp_nodelay(true);
  // The library's own options share a port with other processes in silence.
  server.set_socket_options([impl = impl_.get()](int socket) {
    const int yes = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    impl->socket = socket;
  });
  server.set_exception_handler([](const httplib::Request&, httplib::Response& response, std::exception_ptr) {
    answer({.status = 500, .body = "internal error\n"}, response);
  });
  get("/metrics", [](const std::string&) {
    return HttpAnswer{.content_type = "text/plain; version=0.0.4; charset=utf-8", .body = metrics_text()};
  });
  get("/healthz", [impl = impl_.get()](const std::string&) { return impl->run(impl->health); });
  get("/readyz", [impl = impl_.get()](const std::string&) { return impl->run(impl->readiness); });
}

HttpServer::~HttpServer() {
  stop();
}

void HttpServer::get(const std::string& path, Handler handler) {
  impl_->server.Get(
      path, [handler = std::move(handler)](const httplib::Request& request, httplib::Response& response) {
        answer(handler(request.body), response);
      });
}

void HttpServer::post(const std::string& path, Handler handler) {
  impl_->server.Post(
      path, [handler = std::move(handler)](const httplib::Request& request, httplib::Response& response) {
        answer(handler(request.body), response);
      });
}

void HttpServer::add_health_check(std::string name, Check check) {
  std::lock_guard lock(impl_->mutex);
  impl_->health.push_back({std::move(name), std::move(check)});
}

void HttpServer::add_readiness_check(std::string name, Check check) {
  std::lock_guard lock(impl_->mutex);
  impl_->readiness.push_back({std::move(name), std::move(check)});
}

absl::StatusOr<int> HttpServer::listen(const std::string& text) {
  if (impl_->acceptor.joinable()) return absl::FailedPreconditionError("already listening");
  COLLAGE_ASSIGN_OR_RETURN(const Address address, parse_address(text));
  int port = -1;
  int error = 0;
  // ":8080" is every address: of both families where there is IPv6.
  const std::vector<std::string> hosts = address.host.empty() ? std::vector<std::string>{"::", "0.0.0.0"}
                                                              : std::vector<std::string>{address.host};
  for (const std::string& host : hosts) {
    errno = 0;
    port = impl_->bind(host, address.port);
    error = errno;
    if (port >= 0 || error == EADDRINUSE) break;
  }
  if (port < 0) {
    if (error == EADDRINUSE) {
      return absl::FailedPreconditionError(
          cat("listen on ", text, ": the address is in use by another process"));
    }
    return error != 0 ? errno_status(error, cat("listen on ", text))
                      : absl::InvalidArgumentError(cat("listen on ", text, ": no such address here"));
  }
  // The library's own backlog of 5 makes the clients of a burst wait a second for their second SYN.
  ::listen(impl_->socket, 128);
  impl_->acceptor = std::thread([impl = impl_.get()] { impl->server.listen_after_bind(); });
  return port;
}

void HttpServer::stop() {
  if (!impl_->acceptor.joinable()) return;
  // The library forgets a stop that comes before its loop has begun.
  while (!impl_->server.is_running()) std::this_thread::yield();
  impl_->server.stop();
  impl_->acceptor.join();
}

}  // namespace collage::base
