#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/context.h"
#include "base/secret.h"

namespace collage::base {

struct HttpRequest {
  std::string method = "GET";
  std::string path;  // with its query, already percent-encoded: "/api/v1/nodes?limit=500"
  std::map<std::string, std::string> headers;
  std::string body;
  // Sent as "Authorization: Bearer ..."; empty for none.
  Secret bearer_token;
};

struct HttpResponse {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

struct TlsConfig {
  std::string ca_pem;  // trusted roots; empty: the system's
  std::string client_certificate_pem;
  Secret client_key_pem;
  bool skip_verify = false;  // a person's explicit choice only
  std::string server_name;   // checked instead of the host of the URL when set
};

// How far a request that failed got. NotSent: the server cannot have seen it, send it again at once. Unknown:
// the server may have acted on it, read back before repeating a write.
enum class Sent { kNotSent, kUnknown };
// Which of the two a failed status of HttpClient means; kNotSent only when positively known.
Sent sent_of(const absl::Status& status);

// One server. Connections are kept alive and shared. Thread safe.
// Errors: UNAVAILABLE (no connection, or it broke), DEADLINE_EXCEEDED and CANCELLED (the context ended),
// UNAUTHENTICATED (the server's certificate is not trusted; the message names the reason). Any HTTP status is
// an answer, not an error.
class HttpClient {
 public:
  virtual ~HttpClient() = default;
  virtual absl::StatusOr<HttpResponse> send(const Context& context, const HttpRequest& request) = 0;
  // Calls on_headers once (its body is empty), then on_chunk with pieces of the body as they arrive, until
  // the end, until a callback returns an error (answered as it is), or until `idle` passes with nothing
  // received (DEADLINE_EXCEEDED).
  virtual absl::Status stream(const Context& context, const HttpRequest& request,
                              std::chrono::milliseconds idle,
                              const std::function<absl::Status(const HttpResponse&)>& on_headers,
                              const std::function<absl::Status(std::string_view)>& on_chunk) = 0;
};

// base_url: "https://10.96.0.1:443". INVALID_ARGUMENT on a bad URL or PEM.
absl::StatusOr<std::unique_ptr<HttpClient>> make_http_client(const std::string& base_url,
                                                             const TlsConfig& tls);

// Percent-encodes everything but unreserved characters, for one path segment or query value.
std::string url_encode(std::string_view text);

// Starts the client library's pool with `threads` and sets its environment; first thing in main, once, before
// any thread. Its threads move bytes and never wait, so that one serves hundreds of requests a second;
// several mostly wake each other.
void init_http_client(int threads);

}  // namespace collage::base
