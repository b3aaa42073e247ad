#include "operator/node/backend_table.h"

#include <condition_variable>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/log.h"
#include "base/status.h"
#include "drivers/metered_driver.h"
#include "drivers/operation.h"
#include "operator/node/backend_records.h"

namespace collage::node {

using base::Json;

struct BackendTable::State {
  explicit State(Options given) : options(std::move(given)), records(options.records_directory) {}

  const Options options;
  const BackendRecords records;
  std::function<void()> changed;  // never called with `mutex` held
  mutable std::mutex mutex;
  std::condition_variable_any wake;
  std::map<std::string, std::shared_ptr<Backend>> backends;
  bool soon = false;
  std::jthread rounds;

  std::shared_ptr<Backend> make(BackendConfig config) const;
  void run(std::stop_token stop);
  void probe(const std::shared_ptr<Backend>& backend, std::stop_token stop);
  absl::StatusOr<std::string> ask(const Backend& backend, std::stop_token stop) const;
};

namespace {

std::shared_ptr<drivers::Driver> make_driver(const drivers::Kind& kind, const BackendConfig& config,
                                             const std::string& node, std::string& problem) {
  absl::StatusOr<std::unique_ptr<drivers::Driver>> driver =
      drivers::make_driver(kind, {.backend = config.name,
                                  .block = config.block.get(),
                                  .credentials = {},
                                  .node = node,
                                  .system_id = config.system_id});
  if (driver.ok()) return std::move(*driver);
  problem = std::string(driver.status().message());
  return nullptr;
}

const drivers::Kind* find_kind(const std::vector<drivers::Kind>& kinds, const std::string& name) {
  for (const drivers::Kind& kind : kinds) {
    if (kind.info.kind == name) return &kind;
  }
  return nullptr;
}

}  // namespace

std::shared_ptr<BackendTable::Backend> BackendTable::State::make(BackendConfig config) const {
  auto backend = std::make_shared<Backend>();
  backend->kind = find_kind(*options.kinds, config.kind);
  backend->config = std::move(config);
  if (!backend->config.unreadable.empty()) {
    backend->message = backend->config.unreadable;
    return backend;
  }
  if (backend->kind == nullptr) {
    backend->message = absl::StrCat("this version has no driver of kind ", backend->config.kind);
    return backend;
  }
  backend->system_id = backend->owned() ? records.find(backend->config) : backend->config.system_id;
  backend->driver = make_driver(*backend->kind, backend->config, options.node_name, backend->message);
  if (backend->driver == nullptr) return backend;
  backend->message = "its storage was not looked at yet";
  backend->lane = std::make_shared<DriverLane>(DriverLane::Options{
      .where = absl::StrCat("backend ", backend->config.name, " on node ", options.node_name)});
  return backend;
}

// A round of probes, all at once, then a pause. Each ends with its deadline, whatever its storage does.
void BackendTable::State::run(std::stop_token stop) {
  std::unique_lock lock(mutex);
  while (!stop.stop_requested()) {
    soon = false;
    std::vector<std::shared_ptr<Backend>> due;
    for (const auto& [name, backend] : backends) {
      if (backend->driver != nullptr) due.push_back(backend);
    }
    lock.unlock();
    {
      std::vector<std::jthread> probes;
      for (const std::shared_ptr<Backend>& backend : due)
        probes.emplace_back([this, backend, stop] { probe(backend, stop); });
    }
    lock.lock();
    wake.wait_for(lock, stop, options.recheck, [this] { return soon; });
  }
}

// The id of the storage that is there.
absl::StatusOr<std::string> BackendTable::State::ask(const Backend& backend, std::stop_token stop) const {
  const base::Context context = base::Context(stop).with_timeout(options.probe_timeout);
  const drivers::Driver::ProbeOptions expected{.initialize = backend.owned() && backend.system_id.empty(),
                                               .expected_system_id = backend.system_id};
  COLLAGE_ASSIGN_OR_RETURN(
      const Json found,
      backend.lane->run(context, "probe", "",
                        [driver = backend.driver, expected](const base::Context& c) -> absl::StatusOr<Json> {
                          COLLAGE_ASSIGN_OR_RETURN(const drivers::ProbeResult result,
                                                   driver->probe(c, expected));
                          return Json(result.system_id);
                        }));
  return found.get<std::string>();
}

void BackendTable::State::probe(const std::shared_ptr<Backend>& backend, std::stop_token stop) {
  Backend seen;
  {
    std::lock_guard lock(mutex);
    seen = *backend;
  }
  absl::StatusOr<std::string> id = ask(seen, stop);
  if (stop.stop_requested()) return;
  absl::Status status = id.status();
  if (status.ok() && seen.owned() && seen.system_id.empty() && !id->empty()) {
    // Crash before it is noted: the next probe finds the marker and notes it.
    status = base::annotate(records.write(seen.config, *id),
                            absl::StrCat("the id of its storage cannot be noted below ",
                                         options.records_directory, ": make room there, make it writable"));
    if (status.ok()) seen.system_id = *id;
  }
  std::string message(status.message());
  {
    std::lock_guard lock(mutex);
    backend->system_id = seen.system_id;
    if (backend->ready == status.ok() && backend->message == message) return;
    backend->ready = status.ok();
    backend->message = std::move(message);
  }
  changed();
}

BackendTable::BackendTable(Options options, std::function<void()> changed)
    : state_(std::make_unique<State>(std::move(options))) {
  state_->changed = std::move(changed);
  state_->rounds = std::jthread([state = state_.get()](std::stop_token stop) { state->run(stop); });
}

BackendTable::~BackendTable() {
  state_->rounds.request_stop();
  state_->rounds.join();
}

void BackendTable::set(std::vector<BackendConfig> configs) {
  std::map<std::string, std::shared_ptr<Backend>> before;
  {
    std::lock_guard lock(state_->mutex);
    before = state_->backends;
  }
  state_->records.keep_only(configs);
  std::map<std::string, std::shared_ptr<Backend>> after;
  for (BackendConfig& config : configs) {
    const auto known = before.find(config.name);
    const bool same = known != before.end() && known->second->config == config;
    after[config.name] = same ? known->second : state_->make(config);
  }
  {
    std::lock_guard lock(state_->mutex);
    state_->backends = std::move(after);
    state_->soon = true;
  }
  state_->wake.notify_all();
}

std::optional<BackendTable::Backend> BackendTable::find(const std::string& name) const {
  std::lock_guard lock(state_->mutex);
  const auto backend = state_->backends.find(name);
  if (backend == state_->backends.end()) return std::nullopt;
  return *backend->second;
}

std::vector<BackendState> BackendTable::states() const {
  std::lock_guard lock(state_->mutex);
  std::vector<BackendState> states;
  for (const auto& [name, backend] : state_->backends)
    states.push_back({name, backend->ready, backend->ready ? "" : backend->message});
  return states;
}

std::vector<std::string> BackendTable::kinds() const {
  std::lock_guard lock(state_->mutex);
  std::set<std::string> kinds;
  for (const auto& [name, backend] : state_->backends) {
    if (backend->kind != nullptr) kinds.insert(backend->config.kind);
  }
  return {kinds.begin(), kinds.end()};
}

void BackendTable::recheck() {
  {
    std::lock_guard lock(state_->mutex);
    state_->soon = true;
  }
  state_->wake.notify_all();
}

}  // namespace collage::node
