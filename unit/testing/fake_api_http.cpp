#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/strings.h"
#include "unit/testing/fake_api_state.h"
#include "unit/testing/fake_selector.h"

// The HTTP side of FakeApiServer: paths, lists, answers, faults.
namespace collage::testing {
namespace {

using base::Json;

struct Place {
  std::string group, version, plural, subresource, name_space, name;
};

// /api/v1/..., /apis/<group>/<version>/..., then [namespaces/<ns>/]<plural>[/<name>[/<subresource>]].
std::optional<Place> parse_path(const std::string& path) {
  std::vector<std::string> parts;
  for (const auto& part : std::vector<std::string>(absl::StrSplit(path, '/', absl::SkipEmpty())))
    parts.push_back(url_decode(part));
  Place place;
  size_t at = 0;
  if (parts.size() >= 3 && parts[0] == "api") {
    place.version = parts[1];
    at = 2;
  } else if (parts.size() >= 4 && parts[0] == "apis") {
    place.group = parts[1];
    place.version = parts[2];
    at = 3;
  } else {
    return std::nullopt;
  }
  const bool in_namespace = parts[at] == "namespaces" && parts.size() >= at + 3 && parts[at + 2] != "status";
  if (in_namespace) {
    place.name_space = parts[at + 1];
    at += 2;
  }
  place.plural = parts[at++];
  if (at < parts.size()) place.name = parts[at++];
  if (at < parts.size()) place.subresource = parts[at++];
  return at == parts.size() ? std::optional(place) : std::nullopt;
}

std::string verb_of(const Imposter::Request& request, const Place& place) {
  if (request.method == "GET") {
    const auto watch = request.query.find("watch");
    if (watch != request.query.end() && (watch->second == "true" || watch->second == "1")) return "watch";
    return place.name.empty() ? "list" : "get";
  }
  if (request.method == "POST") return "create";
  if (request.method == "PUT") return "update";
  if (request.method == "PATCH") return "patch";
  return request.method == "DELETE" ? "delete" : "";
}

std::string parameter(const ApiRequest& request, const std::string& name) {
  const auto found = request.query.find(name);
  return found == request.query.end() ? "" : found->second;
}

const std::map<std::string, std::string> kJsonType{{"Content-Type", "application/json"}};

void answer(Imposter::Exchange& exchange, const FakeStore::Answer& with,
            const std::map<std::string, std::string>& headers = kJsonType) {
  exchange.answer(with.status, headers, base::dump_json(with.body));
}

}  // namespace

void FakeApiServer::State::handle(const Imposter::Request& request, Exchange& exchange) {
  if (request.path == "/version") {
    return answer(exchange, {200, {{"major", "1"}, {"minor", "35"}, {"gitVersion", "v1.35.0-fake"}}});
  }
  const std::optional<Place> place = parse_path(request.path);
  const FakeStore::Kind* kind =
      place ? store.find_kind(place->group, place->version, place->plural) : nullptr;
  if (kind == nullptr)
    return answer(exchange,
                  FakeStore::error(404, "NotFound", "the server could not find the requested resource"));
  ApiRequest understood{verb_of(request, *place), place->plural, place->subresource,
                        place->name_space,        place->name,   request.query,
                        request.headers,          request.body};
  const Fault fault = fault_for(understood);
  {
    std::lock_guard lock(mutex);
    requests.push_back(understood);
  }
  dispatch(understood, *kind, fault, exchange);
}

Fault FakeApiServer::State::fault_for(const ApiRequest& request) {
  std::unique_lock lock(mutex);
  for (Scripted& each : scripted) {
    const bool meant = (each.verb.empty() || each.verb == request.verb) &&
                       (each.resource.empty() || each.resource == request.resource);
    if (!meant || each.times == 0) continue;
    --each.times;
    return each.fault;
  }
  const auto hooks = request_hooks;
  lock.unlock();
  for (const auto& hook : hooks) {
    Fault fault = hook(request);
    if (fault.kind != Fault::Kind::kNone || fault.delay.count() > 0 || fault.done) return fault;
  }
  return {};
}

void FakeApiServer::State::dispatch(const ApiRequest& request, const FakeStore::Kind& kind,
                                    const Fault& fault, Exchange& exchange) {
  const auto until = std::chrono::steady_clock::now() + fault.delay;
  while (!stopping && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  switch (fault.kind) {
    case Fault::Kind::kAnswer: {
      std::map<std::string, std::string> headers = fault.headers;
      headers.insert(kJsonType.begin(), kJsonType.end());
      return answer(exchange, FakeStore::error(fault.status, fault.reason, "injected"), headers);
    }
    case Fault::Kind::kDropBefore:
      return exchange.drop();
    case Fault::Kind::kNone:
    case Fault::Kind::kDropAfter:
    case Fault::Kind::kHalfBody:
    case Fault::Kind::kHalfJson:
      break;
  }
  if (request.verb == "watch") return watch(request, kind, fault, exchange);
  const FakeStore::Answer with = perform(request, kind);
  if (fault.done) fault.done();
  if (fault.kind == Fault::Kind::kDropAfter) return exchange.drop();
  if (fault.kind == Fault::Kind::kHalfBody)
    return exchange.answer_half(with.status, kJsonType, base::dump_json(with.body));
  if (fault.kind == Fault::Kind::kHalfJson) {
    const std::string whole = base::dump_json(with.body);
    return exchange.answer(with.status, kJsonType, whole.substr(0, whole.size() / 2));
  }
  answer(exchange, with);
}

FakeStore::Answer FakeApiServer::State::perform(const ApiRequest& request, const FakeStore::Kind& kind) {
  if (request.verb == "list") return list(request, kind);
  const std::string key = FakeStore::key_of(request.name_space, request.name);
  if (kind.namespaced == request.name_space.empty()) {
    return FakeStore::error(404, "NotFound", "the server could not find the requested resource");
  }
  if (!request.subresource.empty() && !(request.subresource == "status" && kind.status)) {
    return FakeStore::error(404, "NotFound", "the server could not find the requested resource");
  }
  if (request.verb == "get") {
    const FakeStore::Object object = store.get(kind, key);
    if (!object)
      return FakeStore::error(404, "NotFound", base::cat(kind.plural, " \"", request.name, "\" not found"));
    return {200, *object};
  }
  absl::StatusOr<Json> body = base::parse_json(request.body.empty() ? "{}" : request.body);
  if (!body.ok()) return FakeStore::error(400, "BadRequest", std::string(body.status().message()));
  if (request.verb == "create") return store.create(kind, request.name_space, std::move(*body));
  if (request.verb == "update") return store.update(kind, key, request.subresource, std::move(*body));
  if (request.verb == "delete") return store.remove(kind, key, *body);
  if (request.verb == "patch") {
    const auto type = request.headers.find("content-type");
    FakeStore::Patch patch{type == request.headers.end() ? "" : type->second, std::move(*body),
                           parameter(request, "fieldManager"), parameter(request, "force") == "true"};
    return store.patch(kind, key, request.subresource, patch);
  }
  return FakeStore::error(405, "MethodNotAllowed",
                          "the server does not allow this method on the requested resource");
}

FakeStore::Answer FakeApiServer::State::list(const ApiRequest& request, const FakeStore::Kind& kind) {
  const std::string token = parameter(request, "continue");
  Snapshot snapshot;
  std::unique_lock lock(mutex);
  if (token.empty()) {
    lock.unlock();
    for (FakeStore::Object& object : store.list(kind, request.name_space, &snapshot.revision)) {
      if (matches_labels(*object, parameter(request, "labelSelector")) &&
          matches_fields(*object, parameter(request, "fieldSelector"))) {
        snapshot.objects.push_back(std::move(object));
      }
    }
    lock.lock();
  } else {
    const auto found = snapshots.find(token);
    if (found == snapshots.end()) {
      return FakeStore::error(
          410, "Expired", "The provided continue parameter is too old to display a consistent list result.");
    }
    snapshot = std::move(found->second);
    snapshots.erase(found);
  }
  size_t limit = snapshot.objects.size();
  if (uint64_t asked = 0; absl::SimpleAtoi(parameter(request, "limit"), &asked) && asked > 0) limit = asked;
  Json items = Json::array();
  while (snapshot.next < snapshot.objects.size() && items.size() < limit) {
    Json item = *snapshot.objects[snapshot.next++];
    // Items of a list of a built-in kind come without these.
    item.erase("apiVersion");
    item.erase("kind");
    items.push_back(std::move(item));
  }
  Json metadata = {{"resourceVersion", std::to_string(snapshot.revision)}};
  if (const size_t left = snapshot.objects.size() - snapshot.next; left > 0) {
    const std::string next = base::cat("token-", ++next_token);
    metadata["continue"] = next;
    metadata["remainingItemCount"] = left;
    snapshots[next] = std::move(snapshot);
  }
  return {200,
          {{"kind", kind.kind + "List"},
           {"apiVersion", kind.api_version()},
           {"metadata", metadata},
           {"items", std::move(items)}}};
}

}  // namespace collage::testing
