#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/context.h"
#include "base/json.h"
#include "operator/kube/resource.h"

// The Kubernetes API over HTTP (kubernetes.io/docs/reference/using-api/api-concepts).
//
// Errors, from the Status object of the answer; the message is the server's:
//   NOT_FOUND 404 · ALREADY_EXISTS 409 AlreadyExists · ABORTED 409 Conflict · OUT_OF_RANGE 410 (watch or page
//   expired) INVALID_ARGUMENT 400, 422 · PERMISSION_DENIED 403 · UNAUTHENTICATED 401 or an untrusted
//   certificate RESOURCE_EXHAUSTED 429 (after the waits the server asked for) · UNAVAILABLE 5xx or no
//   connection · DEADLINE_EXCEEDED 504 FAILED_PRECONDITION the fence: this process leads no more, nothing was
//   sent
// A write whose answer was lost is UNAVAILABLE with base::sent_of() kUnknown; one that certainly was not sent
// is repeated inside. A call without a deadline gets one of 30 s (each page of a list; watches excepted).
// Messages name the call: "create persistentvolumes pvc-x: <the server's message>".
namespace collage::kube {

enum class PatchType { kMerge, kJson, kApply };

struct ListOptions {
  std::string name_space;  // "" for all
  std::string label_selector;
  std::string field_selector;
  int page_size = 500;
  // watch() only: a stream that is silent for so long is given up (DEADLINE_EXCEEDED).
  std::chrono::milliseconds idle_timeout = std::chrono::minutes(10);
};

struct WatchEvent {
  enum class Type { kAdded, kModified, kDeleted, kBookmark };
  Type type;
  base::Json* object;  // valid during the callback; may be moved from
};

struct PatchOptions {
  std::string subresource;  // "status" or ""
  std::string field_manager = "collage";
  bool force = true;  // kApply only: take over fields of other managers
};

struct Preconditions {
  std::string uid;
  std::string resource_version;
};

// Says whether writes may be sent now. Checked before each send; the deadline of a write ends before the
// fence does.
class Fence {
 public:
  virtual ~Fence() = default;
  // OK and how long from now it surely holds, or FAILED_PRECONDITION.
  virtual absl::StatusOr<std::chrono::nanoseconds> holds_for() const = 0;
};

class Client {
 public:
  virtual ~Client() = default;

  virtual absl::StatusOr<base::Json> get(const base::Context& context, const Resource& resource,
                                         const Key& key) = 0;
  // Every object, page after page, each handed over as soon as it is parsed. Answers the list's
  // resourceVersion. The objects of lists and watches come without metadata.managedFields, and those of lists
  // without kind and apiVersion.
  virtual absl::StatusOr<std::string> list(const base::Context& context, const Resource& resource,
                                           const ListOptions& options,
                                           const std::function<absl::Status(base::Json&)>& on_item) = 0;
  // Until the server ends the stream (OK), an error event (its code, 410 is OUT_OF_RANGE), the callback
  // fails, or the context ends.
  virtual absl::Status watch(const base::Context& context, const Resource& resource,
                             const ListOptions& options, const std::string& resource_version,
                             const std::function<absl::Status(const WatchEvent&)>& on_event) = 0;
  virtual absl::StatusOr<base::Json> create(const base::Context& context, const Resource& resource,
                                            const std::string& name_space, const base::Json& object) = 0;
  // ABORTED when the object has another resourceVersion by now. Without managedFields these stay.
  // subresource: "status" or "".
  virtual absl::StatusOr<base::Json> replace(const base::Context& context, const Resource& resource,
                                             const Key& key, const base::Json& object,
                                             const std::string& subresource) = 0;
  virtual absl::StatusOr<base::Json> patch(const base::Context& context, const Resource& resource,
                                           const Key& key, PatchType type, const base::Json& patch,
                                           const PatchOptions& options) = 0;
  // OK when it is gone already.
  virtual absl::Status remove(const base::Context& context, const Resource& resource, const Key& key,
                              const Preconditions& preconditions) = 0;
  // {"major":"1","minor":"35","gitVersion":...}
  virtual absl::StatusOr<base::Json> version(const base::Context& context) = 0;
  // How the server answered the last call: OK, or UNAVAILABLE with its address and what is wrong. Calls
  // nobody.
  virtual absl::Status server_health() const = 0;
};

struct ClientConfig;  // config.h

// fence may be nullptr (the lease's own client, the node role). user_agent e.g. "collage-operator/0.1.0".
absl::StatusOr<std::unique_ptr<Client>> make_client(const ClientConfig& config, const Fence* fence,
                                                    const std::string& user_agent);

}  // namespace collage::kube
