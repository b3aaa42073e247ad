#include "operator/kube/client.h"

#include <nlohmann/json.hpp>

#include "base/random.h"
#include "base/status.h"
#include "base/strings.h"
#include "operator/kube/answer.h"
#include "operator/kube/config.h"
#include "operator/kube/list_parser.h"
#include "operator/kube/managed_fields.h"
#include "operator/kube/transport.h"

namespace collage::kube {
namespace {

using base::Json;
using base::url_encode;
using detail::Call;

constexpr std::string_view kFieldManager = "collage";

std::string collection_path(const Resource& resource, const std::string& name_space) {
  std::string path = resource.group.empty() ? base::cat("/api/", resource.version)
                                            : base::cat("/apis/", resource.group, "/", resource.version);
  if (resource.namespaced && !name_space.empty()) path += "/namespaces/" + url_encode(name_space);
  return base::cat(path, "/", resource.plural);
}

std::string object_path(const Resource& resource, const Key& key) {
  return base::cat(collection_path(resource, key.name_space), "/", url_encode(key.name));
}

// "?a=b&c=d" of what is not empty.
std::string query(std::initializer_list<std::pair<std::string_view, std::string>> parameters) {
  std::string text;
  for (const auto& [name, value] : parameters) {
    if (value.empty()) continue;
    text += base::cat(text.empty() ? "?" : "&", name, "=", url_encode(value));
  }
  return text;
}

Call make_call(std::string_view verb, const Resource& resource, std::string name) {
  Call call;
  call.verb = verb;
  call.resource = resource.plural;
  call.name = std::move(name);
  return call;
}

Call make_write(std::string_view verb, std::string_view method, const Resource& resource, std::string name,
                std::string path, const Json& body, std::string_view content_type = "application/json") {
  Call call = make_call(verb, resource, std::move(name));
  call.write = true;
  call.request.method = std::string(method);
  call.request.path = std::move(path);
  call.request.headers["content-type"] = std::string(content_type);
  call.request.body = base::dump_json(body);
  return call;
}

std::string_view content_type(PatchType type) {
  switch (type) {
    case PatchType::kMerge:
      return "application/merge-patch+json";
    case PatchType::kJson:
      return "application/json-patch+json";
    case PatchType::kApply:
      return "application/apply-patch+yaml";  // JSON is YAML
  }
  return "";
}

// The server ends a watch after this; spread out, so that all of them do not come back at the same moment.
int watch_seconds() {
  return 300 + static_cast<int>(base::random_unit() * 300);
}

class HttpKubeClient final : public Client {
 public:
  explicit HttpKubeClient(std::unique_ptr<detail::Transport> transport) : transport_(std::move(transport)) {}

  absl::StatusOr<Json> get(const base::Context& context, const Resource& resource, const Key& key) override {
    Call call = make_call("get", resource, key.to_string());
    call.request.path = object_path(resource, key);
    return send(context, std::move(call));
  }

  absl::StatusOr<std::string> list(const base::Context& context, const Resource& resource,
                                   const ListOptions& options,
                                   const std::function<absl::Status(Json&)>& on_item) override {
    std::string token;
    while (true) {
      Call call = make_call("list", resource, options.name_space);
      call.request.path =
          collection_path(resource, options.name_space) + query({{"limit", base::cat(options.page_size)},
                                                                 {"labelSelector", options.label_selector},
                                                                 {"fieldSelector", options.field_selector},
                                                                 {"continue", token}});
      const std::string doing = call.doing();
      absl::StatusOr<std::string> body = transport_->send(context, std::move(call));
      if (!body.ok()) return body.status();
      const auto page = detail::parse_list(*body, on_item);
      if (!page.ok()) {
        if (absl::IsUnavailable(page.status())) garbled(context, doing, page.status());
        return base::annotate(page.status(), doing);
      }
      if (page->continue_token.empty()) return page->resource_version;
      token = page->continue_token;
    }
  }

  absl::Status watch(const base::Context& context, const Resource& resource, const ListOptions& options,
                     const std::string& resource_version,
                     const std::function<absl::Status(const WatchEvent&)>& on_event) override {
    Call call = make_call("watch", resource, options.name_space);
    call.request.path =
        collection_path(resource, options.name_space) + query({{"watch", "true"},
                                                               {"allowWatchBookmarks", "true"},
                                                               {"timeoutSeconds", base::cat(watch_seconds())},
                                                               {"labelSelector", options.label_selector},
                                                               {"fieldSelector", options.field_selector},
                                                               {"resourceVersion", resource_version}});
    const std::string doing = call.doing();
    detail::LineSplitter lines;
    COLLAGE_RETURN_IF_ERROR(
        transport_->stream(context, std::move(call), options.idle_timeout, [&](std::string_view chunk) {
          return lines.add(chunk, [&](std::string_view line) {
            absl::StatusOr<Json> event = detail::parse_event(line);
            if (!event.ok()) garbled(context, doing, event.status());
            return event.ok() ? detail::hand_over(*event, on_event) : event.status();
          });
        }));
    if (lines.inside_line()) return absl::UnavailableError(doing + ": the stream ended inside an event");
    return absl::OkStatus();
  }

  absl::StatusOr<Json> create(const base::Context& context, const Resource& resource,
                              const std::string& name_space, const Json& object) override {
    std::string name =
        base::get_string(object, "/metadata/name", base::get_string(object, "/metadata/generateName"));
    return send(context, make_write("create", "POST", resource, Key{name_space, std::move(name)}.to_string(),
                                    collection_path(resource, name_space) +
                                        query({{"fieldManager", std::string(kFieldManager)}}),
                                    object));
  }

  absl::StatusOr<Json> replace(const base::Context& context, const Resource& resource, const Key& key,
                               const Json& object, const std::string& subresource) override {
    std::string path = object_path(resource, key);
    if (!subresource.empty()) path += "/" + subresource;
    path += query({{"fieldManager", std::string(kFieldManager)}});
    return send(context, make_write("update", "PUT", resource, key.to_string(), std::move(path), object));
  }

  absl::StatusOr<Json> patch(const base::Context& context, const Resource& resource, const Key& key,
                             PatchType type, const Json& patch, const PatchOptions& options) override {
    std::string path = object_path(resource, key);
    if (!options.subresource.empty()) path += "/" + options.subresource;
    path += query({{"fieldManager", options.field_manager},
                   {"force", type == PatchType::kApply && options.force ? "true" : ""}});
    return send(context, make_write("patch", "PATCH", resource, key.to_string(), std::move(path), patch,
                                    content_type(type)));
  }

  absl::Status remove(const base::Context& context, const Resource& resource, const Key& key,
                      const Preconditions& preconditions) override {
    Json options = {{"apiVersion", "v1"}, {"kind", "DeleteOptions"}};
    if (!preconditions.uid.empty()) options["preconditions"]["uid"] = preconditions.uid;
    if (!preconditions.resource_version.empty())
      options["preconditions"]["resourceVersion"] = preconditions.resource_version;
    const auto body = transport_->send(context, make_write("delete", "DELETE", resource, key.to_string(),
                                                           object_path(resource, key), options));
    if (body.ok() || absl::IsNotFound(body.status())) return absl::OkStatus();
    return body.status();
  }

  absl::StatusOr<Json> version(const base::Context& context) override {
    Call call;
    call.verb = "get";
    call.resource = "version";
    call.request.path = "/version";
    return send(context, std::move(call));
  }

  absl::Status server_health() const override { return transport_->health().status(); }

 private:
  absl::StatusOr<Json> send(const base::Context& context, Call call) {
    const std::string doing = call.doing();
    const absl::StatusOr<std::string> body = transport_->send(context, std::move(call));
    if (!body.ok()) return body.status();
    absl::StatusOr<Json> object = base::parse_json(detail::without_managed_fields(*body));
    // The server had accepted it: like a write whose answer was lost.
    if (!object.ok()) {
      garbled(context, doing, object.status());
      return absl::UnavailableError(base::cat(doing, ": the answer is ", object.status().message()));
    }
    return object;
  }

  void garbled(const base::Context& context, const std::string& doing, const absl::Status& status) {
    transport_->health().bad(context, detail::Problem::kGarbled, doing, status);
  }

  const std::unique_ptr<detail::Transport> transport_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> make_client(const ClientConfig& config, const Fence* fence,
                                                    const std::string& user_agent) {
  auto http = base::make_http_client(config.server, config.tls);
  if (!http.ok()) return base::annotate(http.status(), "API server " + config.server);
  auto transport = std::make_unique<detail::Transport>(std::move(*http), config.server,
                                                       detail::TokenSource(config.token, config.token_file),
                                                       fence, user_agent);
  return std::make_unique<HttpKubeClient>(std::move(transport));
}

}  // namespace collage::kube
