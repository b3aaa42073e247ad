#include "operator/reconcile/group_commit.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/retry.h"
#include "base/status.h"

namespace collage::reconcile {
namespace {

constexpr size_t kCrowd = 16;  // who wait, from which on the pause is the longest

}  // namespace

GroupCommit::GroupCommit(std::chrono::milliseconds spacing, std::chrono::milliseconds idle, Write write)
    : spacing_(spacing), idle_(idle), write_(std::move(write)) {}

GroupCommit::~GroupCommit() {
  stop();
}

void GroupCommit::start(const base::Context& context) {
  clock_ = &context.clock();
  thread_ = std::jthread([this, context](std::stop_token stop) { run(context, stop); });
}

void GroupCommit::stop() {
  if (thread_.joinable()) {
    thread_.request_stop();
    thread_.join();
  }
}

void GroupCommit::touch(size_t waiting) {
  {
    std::lock_guard lock(mutex_);
    waiting_ = std::max(waiting_, waiting);
    if (!std::exchange(dirty_, true)) nap_.request_stop();
  }
  changed_.notify_all();
}

void GroupCommit::touch_now() {
  {
    std::lock_guard lock(mutex_);
    dirty_ = true;
    earliest_ = std::min(earliest_, clock_->now());
    nap_.request_stop();
  }
  changed_.notify_all();
}

void GroupCommit::touch_later() {
  std::lock_guard lock(mutex_);
  due_by(clock_->now() + idle_);
}

void GroupCommit::touch_spaced(std::chrono::milliseconds pause) {
  std::lock_guard lock(mutex_);
  due_by(std::max(clock_->now(), last_ + pause));
}

void GroupCommit::due_by(base::Clock::Monotonic when) {
  if (when >= later_) return;
  later_ = when;
  nap_.request_stop();
  changed_.notify_all();
}

bool GroupCommit::wait_due(std::stop_token stop) {
  constexpr auto kNever = base::Clock::Monotonic::max();
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    const auto now = clock_->now();
    if (!dirty_ && later_ == kNever) {
      changed_.wait(lock, stop, [&] { return dirty_ || later_ != kNever; });
      continue;
    }
    const auto due = dirty_ ? earliest_ : std::max(later_, earliest_);
    if (due <= now) {
      earliest_ = now + spacing_ * std::clamp<size_t>(waiting_, 1, kCrowd) / kCrowd;
      last_ = now;
      waiting_ = 0;
      dirty_ = false;
      later_ = kNever;
      return true;
    }
    nap_ = std::stop_source();
    std::stop_source nap = nap_;
    lock.unlock();
    {
      const std::stop_callback stopped(stop, [&nap] { nap.request_stop(); });
      clock_->sleep_until(nap.get_token(), due);
    }
    lock.lock();
  }
  return false;
}

void GroupCommit::run(const base::Context& context, std::stop_token stop) {
  base::Backoff backoff(std::chrono::milliseconds(100), std::chrono::seconds(10));
  const base::Context mine = context.with_stop(stop);
  while (wait_due(stop)) {
    absl::Status status = write_(mine);
    if (status.ok()) {
      backoff.reset();
      continue;
    }
    if (mine.stopped()) return;
    base::log::warning(mine, "write failed, trying again", {{"error", status}});
    if (!mine.sleep_for(backoff.next()).ok()) return;
    touch();
  }
}

}  // namespace collage::reconcile
