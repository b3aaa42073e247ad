#include "unit/testing/fake_api_server.h"

#include <nlohmann/json.hpp>
#include <thread>

#include "base/strings.h"
#include "unit/testing/fake_api_state.h"

// The test's side: faults, objects, counts.
namespace collage::testing {
namespace {

const FakeStore::Kind& kind_of(const FakeStore& store, const kube::Resource& resource) {
  const FakeStore::Kind* kind = store.find_kind(std::string(resource.group), std::string(resource.version),
                                                std::string(resource.plural));
  if (kind == nullptr) std::abort();
  return *kind;
}

}  // namespace

FakeApiServer::State::State() {
  imposter = std::make_unique<Imposter>(
      [this](const Imposter::Request& request, Exchange& exchange) { handle(request, exchange); });
}

FakeApiServer::FakeApiServer() : state_(std::make_unique<State>()) {}

FakeApiServer::~FakeApiServer() {
  state_->stopping = true;
  state_->store.wake();
  state_->imposter->stop();
}

kube::ClientConfig FakeApiServer::config() const {
  kube::ClientConfig config;
  config.server = state_->imposter->url();
  config.name_space = "default";
  return config;
}

std::unique_ptr<kube::Client> FakeApiServer::client(const kube::Fence* fence) const {
  auto client = kube::make_client(config(), fence, "collage-test");
  if (!client.ok()) std::abort();
  return std::move(*client);
}

FakeStore& FakeApiServer::store() {
  return state_->store;
}

void FakeApiServer::on_request(std::function<Fault(const ApiRequest&)> hook) {
  std::lock_guard lock(state_->mutex);
  state_->request_hooks.push_back(std::move(hook));
}

void FakeApiServer::fail_next(const std::string& verb, const std::string& resource, Fault fault, int times) {
  std::lock_guard lock(state_->mutex);
  state_->scripted.push_back({verb, resource, std::move(fault), times});
}

void FakeApiServer::clear_faults() {
  std::lock_guard lock(state_->mutex);
  state_->request_hooks.clear();
  state_->scripted.clear();
}

void FakeApiServer::on_change(const std::string& resource,
                              std::function<void(const FakeStore::Change&)> hook) {
  state_->store.add_hook(
      [resource, hook = std::move(hook)](const FakeStore::Kind& kind, const FakeStore::Change& change) {
        if (resource.empty() || kind.plural == resource) hook(change);
      });
}

void FakeApiServer::end_watches() {
  ++state_->end_epoch;
  state_->store.wake();
}

void FakeApiServer::break_watches() {
  ++state_->break_epoch;
  state_->store.wake();
}

void FakeApiServer::silence_watches(bool silent) {
  state_->silent = silent;
  state_->store.wake();
}

void FakeApiServer::stall_watches() {
  ++state_->stall_epoch;
}

void FakeApiServer::send_bookmarks() {
  ++state_->bookmark_epoch;
  state_->store.wake();
}

void FakeApiServer::bookmark_every(std::chrono::milliseconds interval) {
  state_->bookmark_ms = interval.count();
  state_->store.wake();
}

void FakeApiServer::compact() {
  state_->store.compact();
}

void FakeApiServer::expire_continue_tokens() {
  std::lock_guard lock(state_->mutex);
  state_->snapshots.clear();
}

int FakeApiServer::open_watches(const std::string& resource) const {
  std::lock_guard lock(state_->mutex);
  int result = 0;
  for (const auto& [name, count] : state_->watches)
    result += resource.empty() || name == resource ? count : 0;
  return result;
}

base::Json FakeApiServer::put(const base::Json& object) {
  return state_->store.put(object);
}

std::optional<base::Json> FakeApiServer::get(const kube::Resource& resource, const std::string& key) const {
  const auto object = state_->store.get(kind_of(state_->store, resource), key);
  return object ? std::optional(*object) : std::nullopt;
}

std::vector<base::Json> FakeApiServer::list(const kube::Resource& resource) const {
  std::vector<base::Json> result;
  for (const auto& object : state_->store.list(kind_of(state_->store, resource), ""))
    result.push_back(*object);
  return result;
}

bool FakeApiServer::update(const kube::Resource& resource, const std::string& key,
                           const std::function<void(base::Json&)>& change) {
  std::optional<base::Json> object = get(resource, key);
  if (!object) return false;
  change(*object);
  state_->store.put(std::move(*object));
  return true;
}

void FakeApiServer::remove(const kube::Resource& resource, const std::string& key) {
  state_->store.remove(kind_of(state_->store, resource), key, base::Json::object());
}

void FakeApiServer::erase(const kube::Resource& resource, const std::string& key) {
  state_->store.erase(kind_of(state_->store, resource), key);
}

int FakeApiServer::count(const std::string& verb, const std::string& resource) const {
  return static_cast<int>(requests(verb, resource).size());
}

int FakeApiServer::writes(const std::string& resource) const {
  std::lock_guard lock(state_->mutex);
  int result = 0;
  for (const ApiRequest& each : state_->requests) {
    const bool counted =
        resource.empty() ? each.resource != "events" && each.resource != "leases" : each.resource == resource;
    if (each.is_write() && counted) ++result;
  }
  return result;
}

std::vector<ApiRequest> FakeApiServer::requests(const std::string& verb, const std::string& resource) const {
  std::lock_guard lock(state_->mutex);
  std::vector<ApiRequest> result;
  for (const ApiRequest& each : state_->requests) {
    if ((verb.empty() || each.verb == verb) && (resource.empty() || each.resource == resource))
      result.push_back(each);
  }
  return result;
}

void FakeApiServer::reset_counts() {
  std::lock_guard lock(state_->mutex);
  state_->requests.clear();
}

int FakeApiServer::connections() const {
  return state_->imposter->connections();
}

bool FakeApiServer::wait_until(const std::function<bool()>& predicate,
                               std::chrono::milliseconds timeout) const {
  const auto end = std::chrono::steady_clock::now() + timeout;
  while (true) {
    const uint64_t revision = state_->store.revision();
    if (predicate()) return true;
    if (std::chrono::steady_clock::now() >= end) return false;
    state_->store.wait_beyond(revision, std::chrono::milliseconds(10));
  }
}

}  // namespace collage::testing
