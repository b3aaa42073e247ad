#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/context.h"
#include "base/http_client.h"
#include "operator/kube/client.h"
#include "operator/kube/server_health.h"
#include "operator/kube/slots.h"
#include "operator/kube/token.h"

namespace collage::kube::detail {

// One request, with the labels of its metrics and the words of its errors.
struct Call {
  std::string_view verb;      // as RBAC names it: get, list, watch, create, update, patch, delete
  std::string_view resource;  // plural
  std::string name;           // of the object, for messages
  base::HttpRequest request;
  bool write = false;
  std::string doing() const;  // "create persistentvolumes pvc-x"
};

// Sends calls: credentials, the fence, waits that the server asks for, repeats that are safe, metrics.
//
//   a request that certainly was not sent      repeated at once, then with back-off, up to 5 times
//   429, and 503 with Retry-After              the server did nothing: waited as told and repeated, up to 10
//   times 401                                        token read again, repeated once a read that failed with
//   UNAVAILABLE        repeated with back-off, up to 3 times a write whose answer was lost, any other
//   answered
//
// At most kAtOnce at the same time: each is a connection of its own, and more of them make an API server
// slower, not faster. Streams do not count. The fence is asked right before each send of a write, and the
// send's deadline ends before the fence does. Thread safe.
class Transport {
 public:
  static constexpr int kAtOnce = 32;

  Transport(std::unique_ptr<base::HttpClient> http, std::string server, TokenSource token, const Fence* fence,
            std::string user_agent);

  // The body of a 2xx answer.
  absl::StatusOr<std::string> send(const base::Context& context, Call call);
  // on_chunk sees the body of a 2xx answer only. OK when the server ended it. Repeated inside only after a
  // 401 and the waits that the server asks for.
  absl::Status stream(const base::Context& context, Call call, std::chrono::milliseconds idle,
                      const std::function<absl::Status(std::string_view)>& on_chunk);
  // Noted by every call; what only the reader of an answer can know is noted by that one.
  ServerHealth& health() { return health_; }

 private:
  absl::StatusOr<base::HttpResponse> send_once(const base::Context& context, const Call& call);
  void prepare(Call& call);
  void note(const base::Context& context, const Call& call, int http_status, const absl::Status& status);

  const std::unique_ptr<base::HttpClient> http_;
  TokenSource token_;
  const Fence* const fence_;
  const std::string user_agent_;
  ServerHealth health_;
  Slots slots_;
};

}  // namespace collage::kube::detail
