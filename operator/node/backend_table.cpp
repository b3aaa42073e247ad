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
struct BackendTable::State {
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

BackendTable::BackendTable(Options options, std::function<void()> changed, std::function<void()> tick)
    : state_(std::make_shared<State>()) {
  state_->options = std::move(options);
  state_->changed = std::move(changed);
  state_->tick = std::move(tick);
  state_->rounds =
      std::jthread([state = state_.get(), shared = std::weak_ptr<State>(state_)](std::stop_token stop) {
        std::unique_lock lock(state->mutex);
        while (!stop.stop_requested()) {
          state->soon = false;
          std::vector<std::shared_ptr<State::Entry>> due;
          for (const auto& [name, entry] : state->entries) {
            if (entry->driver != nullptr && !entry->probing) due.push_back(entry);
          }
          for (const std::shared_ptr<State::Entry>& entry : due) {
            if (stop.stop_requested()) break;
            entry->probing = true;
            const drivers::Driver::ProbeOptions options{.initialize = false,
                                                        .expected_system_id = entry->config.system_id};
            const base::Context context =
                base::Context(state->stop.get_token()).with_timeout(state->options.probe_timeout);
            std::thread([keep = shared.lock(), entry, driver = entry->driver, options, context] {
              const absl::Status status = driver->probe(context, options).status();
              bool changed = false;
              {
                std::lock_guard lock(keep->mutex);
                entry->probing = entry->hung = false;
                changed = State::apply(*entry, status.ok(), std::string(status.message()));
              }
              keep->wake.notify_all();
              if (changed) keep->tell(&State::changed);
            }).detach();
            const bool back = state->wake.wait_for(lock, stop, state->options.probe_timeout,
                                                   [&] { return !entry->probing; });
            if (back || stop.stop_requested()) continue;
            entry->hung = true;
            const bool changed = State::apply(
                *entry, false, "its storage does not answer this node; is the server of the share up?");
            lock.unlock();
            if (changed) state->tell(&State::changed);
            lock.lock();
          }
          if (state->soon) continue;
          lock.unlock();
          state->tell(&State::tick);
          lock.lock();
          state->wake.wait_for(lock, stop, state->options.recheck, [&] { return state->soon; });
        }
      });
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
      entry->message = "not probed yet";
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
