#include "operator/node/backend_table.h"

#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/log.h"

namespace collage::node {

// Shared with the probes, which may outlive the table.
struct BackendTable::State : std::enable_shared_from_this<State> {
  struct Entry : Backend {
    bool probing = false;
  };

  Options options;
  // Under a mutex of its own, held during the call: the table's end waits for it, and a probe that comes back
  // later tells nobody.
  std::mutex telling;
  std::function<void()> changed, tick;
  mutable std::mutex mutex;
  std::condition_variable_any wake;  // the rounds: a probe came back, or one is wanted soon
  std::map<std::string, std::shared_ptr<Entry>> entries;
  bool soon = false;
  std::stop_source stop;
  std::jthread rounds;

  void tell(std::function<void()> State::*what) {
    std::lock_guard lock(telling);
    if (this->*what) (this->*what)();
  }
  void run(std::stop_token stop);
  void probe(const std::shared_ptr<Entry>& entry, std::stop_token stop, std::unique_lock<std::mutex>& lock);
  // True when it differs from before. The lock is held.
  static bool apply(Entry& entry, bool ready, std::string message) {
    if (entry.ready == ready && entry.message == message) return false;
    entry.ready = ready;
    entry.message = std::move(message);
    return true;
  }
};

namespace {

std::shared_ptr<drivers::Driver> make_driver(const drivers::Kind& kind, const BackendConfig& config,
                                             const std::string& node, std::string& problem) {
  absl::StatusOr<std::unique_ptr<drivers::Driver>> driver =
      kind.make({.backend = config.name, .block = config.block.get(), .credentials = {}, .node = node});
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

// A round of probes, then a pause; a hung one is passed over until it comes back.
void BackendTable::State::run(std::stop_token stop) {
  std::unique_lock lock(mutex);
  while (!stop.stop_requested()) {
    soon = false;
    std::vector<std::shared_ptr<Entry>> due;
    for (const auto& [name, entry] : entries) {
      if (entry->driver != nullptr && !entry->probing) due.push_back(entry);
    }
    for (const std::shared_ptr<Entry>& entry : due) {
      if (!stop.stop_requested()) probe(entry, stop, lock);
    }
    if (soon) continue;
    lock.unlock();
    tell(&State::tick);
    lock.lock();
    wake.wait_for(lock, stop, options.recheck, [this] { return soon; });
  }
}

// The driver's own file calls may hang for ever: they run on a thread that nothing but its end waits for.
void BackendTable::State::probe(const std::shared_ptr<Entry>& entry, std::stop_token rounds_stop,
                                std::unique_lock<std::mutex>& lock) {
  entry->probing = true;
  const drivers::Driver::ProbeOptions expected{.initialize = false,
                                               .expected_system_id = entry->config.system_id};
  const base::Context context = base::Context(stop.get_token()).with_timeout(options.probe_timeout);
  std::thread([keep = shared_from_this(), entry, driver = entry->driver, expected, context] {
    const absl::Status status = driver->probe(context, expected).status();
    bool changed = false;
    {
      std::lock_guard lock(keep->mutex);
      entry->probing = entry->hung = false;
      changed = apply(*entry, status.ok(), std::string(status.message()));
    }
    keep->wake.notify_all();
    if (changed) keep->tell(&State::changed);
  }).detach();
  if (wake.wait_for(lock, rounds_stop, options.probe_timeout, [&] { return !entry->probing; })) return;
  if (rounds_stop.stop_requested()) return;
  entry->hung = true;
  const bool changed =
      apply(*entry, false, "its storage does not answer this node; is the server of the share up?");
  lock.unlock();
  if (changed) tell(&State::changed);
  lock.lock();
}

BackendTable::BackendTable(Options options, std::function<void()> changed, std::function<void()> tick)
    : state_(std::make_shared<State>()) {
  state_->options = std::move(options);
  state_->changed = std::move(changed);
  state_->tick = std::move(tick);
  state_->rounds = std::jthread([state = state_](std::stop_token stop) { state->run(stop); });
}

BackendTable::~BackendTable() {
  state_->stop.request_stop();
  state_->rounds.request_stop();
  state_->rounds.join();
  std::lock_guard lock(state_->telling);
  state_->changed = state_->tick = nullptr;
}

void BackendTable::set(std::vector<BackendConfig> configs) {
  {
    std::lock_guard lock(state_->mutex);
    std::map<std::string, std::shared_ptr<State::Entry>> entries;
    for (BackendConfig& config : configs) {
      const auto before = state_->entries.find(config.name);
      if (before != state_->entries.end() && before->second->config == config) {
        entries[config.name] = before->second;
        continue;
      }
      auto entry = std::make_shared<State::Entry>();
      entry->kind = find_kind(*state_->options.kinds, config.kind);
      entry->message.clear();
      if (entry->kind == nullptr) {
        entry->message = absl::StrCat("this version has no driver of kind ", config.kind);
      } else {
        entry->driver = make_driver(*entry->kind, config, state_->options.node_name, entry->message);
      }
      entry->config = std::move(config);
      entries[entry->config.name] = std::move(entry);
    }
    state_->entries = std::move(entries);
    state_->soon = true;
  }
  state_->wake.notify_all();
}

std::optional<BackendTable::Backend> BackendTable::find(const std::string& name) const {
  std::lock_guard lock(state_->mutex);
  const auto entry = state_->entries.find(name);
  if (entry == state_->entries.end()) return std::nullopt;
  return *entry->second;
}

std::vector<BackendState> BackendTable::states() const {
  std::lock_guard lock(state_->mutex);
  std::vector<BackendState> states;
  for (const auto& [name, entry] : state_->entries)
    states.push_back({name, entry->ready, entry->ready ? "" : entry->message});
  return states;
}

std::vector<std::string> BackendTable::kinds() const {
  std::lock_guard lock(state_->mutex);
  std::set<std::string> kinds;
  for (const auto& [name, entry] : state_->entries) {
    if (entry->kind != nullptr) kinds.insert(entry->config.kind);
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
