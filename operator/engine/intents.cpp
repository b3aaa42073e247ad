#include "operator/engine/intents.h"

#include <algorithm>
#include <condition_variable>
#include <list>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status.h"

// One thread writes; callers wait for it.
//
//   begin() --+                                  +--> saved: `durable_` is what was written, callers go on
//   end() ----+--> `open_` (what should be) --> save
//   flush() --+      ^                           +--> failed, perhaps written: load; ours? go on. Another's?
//   fenced
//                    |                           +--> ABORTED: fenced until load()
//                    +-- load()
//
// Crash windows: killed before the save, nothing was begun, since begin() had not returned; killed after it,
// the entry is found by the next process; killed after end() and before the next save, the entry is found,
// and so is the volume's object.
namespace collage::engine {
namespace {

using Entries = std::map<std::string, std::string>;

constexpr std::chrono::seconds kWriteTimeout(30);

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

struct Intents::State {
  // Somebody who waits: for an entry to be durable, or (no key) for everything pending to be written.
  struct Waiter {
    std::string key, value;
    std::optional<std::string> before;  // what was open under the key when it was admitted
    bool admitted = false;              // there was room: the entry is in open_
    bool in_batch = false;              // the write under way holds it
    std::optional<absl::Status> result;
    std::stop_source done;  // ends its sleep
    bool is_flush() const { return key.empty(); }
  };

  State(IntentStore& store, std::string backend, const base::Clock& clock)
      : store_(store), backend_(std::move(backend)), clock_(clock) {}

  absl::Status load(const base::Context& context);
  absl::Status begin(const base::Context& context, const std::string& key, const std::string& value);
  void end(const std::string& key);
  absl::Status flush(const base::Context& context);

  // With mutex_ held.
  absl::Status usable() const;
  bool surely_durable(const std::string& key, const std::string& value) const;
  absl::Status wait(std::unique_lock<std::mutex>& lock, const base::Context& context, Waiter& waiter);
  void admit();
  void retract(const Waiter& waiter);
  void finish(Waiter& waiter, absl::Status status);
  void finish_durable();
  void wake();
  void removal_pending();
  std::optional<base::Clock::Monotonic> next_due() const;
  void settle(IntentStore::Snapshot snapshot);
  void failed(const absl::Status& status);
  void fence();

  void run(std::stop_token stop);
  void write_once(std::stop_token stop);

  IntentStore& store_;
  const std::string backend_;
  const base::Clock& clock_;

  std::mutex io_mutex_;  // held over a call of store_; taken before mutex_
  std::mutex mutex_;
  bool loaded_ = false;
  bool fenced_ = false;
  bool uncertain_ = false;          // a write failed that may have been done all the same
  Entries open_;                    // what should be stored
  Entries durable_;                 // what was stored last for certain
  std::string version_;             // of durable_
  std::optional<Entries> attempt_;  // of the write under way, or of the one whose outcome is not known
  std::list<Waiter*> waiters_;      // first come, first admitted
  std::optional<base::Clock::Monotonic> flush_at_;  // finished keys leave then, if no other write takes them
  base::Clock::Monotonic next_write_ = base::Clock::Monotonic::min();
  std::condition_variable_any changed_;
  std::stop_source nap_;  // ends the writer's sleep
  std::jthread thread_;   // last: it uses all of the above
};

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

// ---- Waiting

absl::Status Intents::State::wait(std::unique_lock<std::mutex>& lock, const base::Context& context,
                                  Waiter& waiter) {
  waiters_.push_back(&waiter);
  admit();
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

// Lets waiters in as far as there is room. An entry that replaces one needs none.
void Intents::State::admit() {
  for (Waiter* waiter : waiters_) {
    if (waiter->is_flush() || waiter->admitted || waiter->result) continue;
    const auto found = open_.find(waiter->key);
    if (found == open_.end() && open_.size() >= kMaxEntries) return;
    if (found != open_.end()) waiter->before = found->second;
    open_[waiter->key] = waiter->value;
    waiter->admitted = true;
  }
}

// begin() failed: its caller begins nothing, so the entry must not stay, unless somebody else wants it too.
void Intents::State::retract(const Waiter& waiter) {
  if (!waiter.admitted || !holds(open_, waiter.key, waiter.value)) return;
  const bool shared = std::any_of(waiters_.begin(), waiters_.end(), [&](const Waiter* other) {
    return other->admitted && other->key == waiter.key;
  });
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
    if (waiter->is_flush() ? !attempt_ && open_ == durable_
                           : waiter->admitted && surely_durable(waiter->key, waiter->value)) {
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
  admit();
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
  // many is found to be done and ended; one too few may be a leak.
  open_.insert(durable_.begin(), durable_.end());
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
  Waiter waiter{.key = key, .value = value};
  absl::Status status = wait(lock, context, waiter);
  if (status.ok()) return status;
  if (!waiter.admitted) {
    status = base::annotate(status, absl::StrCat("backend ", backend_, " has ", kMaxEntries,
                                                 " creates under way, waiting for room"));
  }
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

// ---- What the writer does

// When the next write is due; nothing when there is none to make.
std::optional<base::Clock::Monotonic> Intents::State::next_due() const {
  if (!usable().ok()) return std::nullopt;
  const bool awaited = std::any_of(waiters_.begin(), waiters_.end(), [](const Waiter* waiter) {
    return !waiter->result && (waiter->is_flush() || waiter->admitted);
  });
  if (awaited) return next_write_;
  if (flush_at_) return std::max(*flush_at_, next_write_);
  return std::nullopt;
}

void Intents::State::run(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    const auto due = next_due();
    if (!due) {
      changed_.wait(lock, stop, [&] { return next_due().has_value(); });
      continue;
    }
    if (*due > clock_.now()) {
      nap_ = std::stop_source();
      std::stop_source nap = nap_;
      lock.unlock();
      {
        const std::stop_callback stopped(stop, [&nap] { nap.request_stop(); });
        clock_.sleep_until(nap.get_token(), *due);
      }
      lock.lock();
      continue;
    }
    lock.unlock();
    write_once(stop);
    lock.lock();
  }
}

void Intents::State::write_once(std::stop_token stop) {
  std::lock_guard io(io_mutex_);
  const base::Context context =
      base::Context(std::move(stop), clock_).with_timeout(kWriteTimeout).with_field("backend", backend_);
  std::unique_lock lock(mutex_);
  if (!usable().ok()) return;
  next_write_ = clock_.now() + kWriteInterval;
  flush_at_.reset();
  if (uncertain_) {
    lock.unlock();
    absl::StatusOr<IntentStore::Snapshot> snapshot = store_.load(context, backend_);
    lock.lock();
    for (Waiter* waiter : waiters_) waiter->in_batch = true;
    if (!snapshot.ok()) return failed(snapshot.status());
    settle(*std::move(snapshot));
    if (fenced_) return;
  }
  if (open_ == durable_) return finish_durable();
  Entries batch = open_;
  attempt_ = batch;
  for (Waiter* waiter : waiters_) waiter->in_batch = waiter->is_flush() || waiter->admitted;
  const std::string version = version_;
  lock.unlock();
  absl::StatusOr<std::string> saved = store_.save(context, backend_, batch, version);
  lock.lock();
  if (!saved.ok()) return failed(saved.status());
  durable_ = std::move(batch);
  version_ = *std::move(saved);
  attempt_.reset();
  for (Waiter* waiter : waiters_) {
    if (waiter->is_flush() && waiter->in_batch && !waiter->result) finish(*waiter, absl::OkStatus());
  }
  finish_durable();
}

// The last write failed, and may have been done: what is stored tells. Only this process knows what it tried
// to write, so the same entries under another version are its own.
void Intents::State::settle(IntentStore::Snapshot snapshot) {
  if (snapshot.version != version_) {
    if (snapshot.entries != attempt_) return fence();
    durable_ = std::move(snapshot.entries);
    version_ = std::move(snapshot.version);
  }
  attempt_.reset();
  uncertain_ = false;
  finish_durable();
}

void Intents::State::fence() {
  fenced_ = true;
  attempt_.reset();
  uncertain_ = false;
  for (Waiter* waiter : waiters_) {
    if (!waiter->result) finish(*waiter, usable());
  }
}

void Intents::State::failed(const absl::Status& status) {
  base::log::warning(base::Context(), "intents not written", {{"backend", backend_}, {"error", status}});
  if (absl::IsAborted(status)) return fence();
  uncertain_ = attempt_.has_value();
  for (Waiter* waiter : waiters_) {
    if (waiter->in_batch && !waiter->result) finish(*waiter, status);
  }
  // Nobody may be waiting for what is left.
  flush_at_ = clock_.now() + kFlushAfter;
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

absl::Status Intents::flush(const base::Context& context) {
  return state_->flush(context);
}

}  // namespace collage::engine
