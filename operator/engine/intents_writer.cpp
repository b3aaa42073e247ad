#include <algorithm>
#include <optional>
#include <stop_token>
#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "operator/engine/intents_state.h"

namespace collage::engine {
namespace {

constexpr std::chrono::seconds kWriteTimeout(30);

}  // namespace

// When the next write is due; nothing when there is none to make.
std::optional<base::Clock::Monotonic> Intents::State::next_due() const {
  if (!usable().ok()) return std::nullopt;
  const bool awaited =
      std::any_of(waiters_.begin(), waiters_.end(), [](const Waiter* waiter) { return !waiter->result; });
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
  for (Waiter* waiter : waiters_) waiter->in_batch = true;
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

}  // namespace collage::engine
