#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace collage::base {

struct HttpAnswer {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

// A small HTTP server: /metrics, /healthz, /readyz and whatever a role adds. Own threads (at most 4), bodies
// up to 1 MiB.
class HttpServer {
 public:
  using Handler = std::function<HttpAnswer(const std::string& body)>;
  // A check says OK or what is wrong; /healthz and /readyz answer 200 "ok" or 503 and one line a failed
  // check.
  using Check = std::function<absl::Status()>;

  HttpServer();
  ~HttpServer();  // stops

  void get(const std::string& path, Handler handler);
  void post(const std::string& path, Handler handler);
  void add_health_check(std::string name, Check check);
  void add_readiness_check(std::string name, Check check);

  // address "127.0.0.1:0" or "[::]:8080" or ":8080" (all addresses); answers the port. FAILED_PRECONDITION
  // names the address when it is in use.
  absl::StatusOr<int> listen(const std::string& address);
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace collage::base
