#include <algorithm>
#include <optional>
#include <stop_token>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "operator/engine/intents_state.h"

// What callers do; what the writer does is in intents_writer.cpp.
namespace collage::engine {
namespace {

using Entries = std::map<std::string, std::string>;

bool holds(const Entries& entries, const std::string& key, const std::string& value) {
  const auto found = entries.find(key);
  return found != entries.end() && found->second == value;
}

// What a ConfigMap takes as a key.
absl::Status check(const std::string& key, const std::string& value) {
  const bool good_key = !key.empty() && key.size() <= 253 && std::all_of(key.begin(), key.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
  });
  if (!good_key)
    return absl::InvalidArgumentError(
        absl::StrCat("intent \"", key, "\": a key is 1 to 253 letters, digits, '-', '_' and '.'"));
  if (value.size() > Intents::kMaxValueBytes) {
    return absl::InvalidArgumentError(absl::StrCat("intent ", key, ": the value has ", value.size(),
                                                   " bytes, at most ", Intents::kMaxValueBytes,
                                                   " are allowed"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Intents::State::usable() const {
  if (!loaded_) {
    return absl::FailedPreconditionError(
        absl::StrCat("the intents of backend ", backend_, " are not loaded yet"));
  }
  if (fenced_) {
    return absl::AbortedError(
        absl::StrCat("the intents of backend ", backend_,
                     " were written by another process: they must be loaded again before a create begins"));
  }
  return absl::OkStatus();
}

absl::Status Intents::State::may_begin(const std::string& key) const {
  if (closed_)
    return absl::FailedPreconditionError(absl::StrCat("StorageBackend \"", backend_, "\" is being deleted"));
  if (open_.size() < kMaxEntries || open_.contains(key)) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("StorageBackend \"", backend_, "\" has ", kMaxEntries,
                                                   " creates under way, as many as it may have: this one "
                                                   "begins when one of them ends"));
}

// ---- Waiting

absl::Status Intents::State::wait(std::unique_lock<std::mutex>& lock, const base::Context& context,
                                  Waiter& waiter) {
  waiters_.push_back(&waiter);
  finish_durable();
  wake();
  {
    const std::stop_callback stopped(context.stop(), [done = waiter.done]() mutable { done.request_stop(); });
    while (!waiter.result) {
      if (absl::Status status = context.status(); !status.ok()) {
        waiter.result = std::move(status);
        break;
      }
      lock.unlock();
      context.clock().sleep_until(waiter.done.get_token(), context.deadline());
      lock.lock();
    }
  }
  waiters_.remove(&waiter);
  return *waiter.result;
}

// begin() failed: its caller begins nothing, so the entry must not stay, unless somebody else wants it too.
void Intents::State::retract(const Waiter& waiter) {
  if (!holds(open_, waiter.key, waiter.value)) return;
  const bool shared = std::any_of(waiters_.begin(), waiters_.end(),
                                  [&](const Waiter* other) { return other->key == waiter.key; });
  if (shared) return;
  if (waiter.before) {
    open_[waiter.key] = *waiter.before;
  } else {
    open_.erase(waiter.key);
  }
  removal_pending();
}

void Intents::State::finish(Waiter& waiter, absl::Status status) {
  waiter.result = std::move(status);
  waiter.done.request_stop();
}

bool Intents::State::surely_durable(const std::string& key, const std::string& value) const {
  return holds(durable_, key, value) && (!attempt_ || holds(*attempt_, key, value));
}

void Intents::State::finish_durable() {
  for (Waiter* waiter : waiters_) {
    if (waiter->result) continue;
    if (waiter->is_flush() ? !attempt_ && open_ == durable_ : surely_durable(waiter->key, waiter->value)) {
      finish(*waiter, absl::OkStatus());
    }
  }
}

void Intents::State::wake() {
  nap_.request_stop();
  changed_.notify_all();
}

// Something should leave the store, but nobody waits for it.
void Intents::State::removal_pending() {
  if (!flush_at_) flush_at_ = clock_.now() + kFlushAfter;
  wake();
}

// ---- What callers do

absl::Status Intents::State::load(const base::Context& context) {
  std::lock_guard io(io_mutex_);
  COLLAGE_ASSIGN_OR_RETURN(IntentStore::Snapshot snapshot, store_.load(context, backend_));
  std::lock_guard lock(mutex_);
  durable_ = std::move(snapshot.entries);
  version_ = std::move(snapshot.version);
  attempt_.reset();
  uncertain_ = false;
  fenced_ = false;
  loaded_ = true;
  // Loaded again: what this process has begun stays open, whatever became of the stored copy. An entry too
  // many is found to be done and ended; one too few may be a leak. What it had from another process, and is
  // there no more, somebody has ended.
  for (const std::string& key : inherited_) {
    if (!durable_.contains(key)) open_.erase(key);
  }
  std::erase_if(inherited_, [&](const std::string& key) { return !open_.contains(key); });
  for (const auto& [key, value] : durable_) {
    if (open_.emplace(key, value).second) inherited_.insert(key);
  }
  if (open_ != durable_) removal_pending();
  if (!thread_.joinable()) thread_ = std::jthread([this](std::stop_token stop) { run(std::move(stop)); });
  finish_durable();
  wake();
  return absl::OkStatus();
}

absl::Status Intents::State::begin(const base::Context& context, const std::string& key,
                                   const std::string& value) {
  COLLAGE_RETURN_IF_ERROR(check(key, value));
  std::unique_lock lock(mutex_);
  COLLAGE_RETURN_IF_ERROR(usable());
  if (holds(open_, key, value) && surely_durable(key, value)) return absl::OkStatus();
  COLLAGE_RETURN_IF_ERROR(may_begin(key));
  Waiter waiter{.key = key, .value = value};
  inherited_.erase(key);
  std::string& open = open_[key];
  if (!open.empty()) waiter.before = open;
  open = value;
  absl::Status status = wait(lock, context, waiter);
  if (status.ok()) return status;
  retract(waiter);
  return base::annotate(status, absl::StrCat("note the begin of create ", key));
}

void Intents::State::end(const std::string& key) {
  std::lock_guard lock(mutex_);
  if (open_.erase(key) > 0) removal_pending();
}

absl::Status Intents::State::flush(const base::Context& context) {
  std::unique_lock lock(mutex_);
  if (!loaded_) return absl::OkStatus();
  COLLAGE_RETURN_IF_ERROR(usable());
  Waiter waiter;
  return base::annotate(wait(lock, context, waiter), absl::StrCat("write the intents of backend ", backend_));
}

// ---- The public face

Intents::Intents(IntentStore& store, std::string backend, const base::Clock& clock)
    : state_(std::make_unique<State>(store, std::move(backend), clock)) {}

Intents::~Intents() = default;

absl::Status Intents::load(const base::Context& context) {
  return state_->load(context);
}

bool Intents::loaded() const {
  std::lock_guard lock(state_->mutex_);
  return state_->usable().ok();
}

std::map<std::string, std::string> Intents::open() const {
  std::lock_guard lock(state_->mutex_);
  return state_->open_;
}

absl::Status Intents::begin(const base::Context& context, const std::string& key, const std::string& value) {
  return state_->begin(context, key, value);
}

void Intents::end(const std::string& key) {
  state_->end(key);
}

size_t Intents::room() const {
  std::lock_guard lock(state_->mutex_);
  return kMaxEntries - std::min(kMaxEntries, state_->open_.size());
}

bool Intents::close() {
  std::lock_guard lock(state_->mutex_);
  if (!state_->open_.empty()) return false;
  state_->closed_ = true;
  return true;
}

absl::Status Intents::flush(const base::Context& context) {
  return state_->flush(context);
}

}  // namespace collage::engine
