#include "operator/reconcile/group_commit.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/retry.h"
#include "base/status.h"

namespace collage::reconcile {

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

void GroupCommit::touch() {
  {
    std::lock_guard lock(mutex_);
    dirty_ = true;
  }
  changed_.notify_all();
}

void GroupCommit::touch_later() {
  {
    std::lock_guard lock(mutex_);
    later_ = std::min(later_, clock_->now() + idle_);
  }
  changed_.notify_all();
}

bool GroupCommit::wait_due(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    const auto now = clock_->now();
    const auto due = dirty_ ? last_write_ + spacing_ : std::max(later_, last_write_ + spacing_);
    if ((dirty_ || later_ != base::Clock::Monotonic::max()) && due <= now) {
      dirty_ = false;
      later_ = base::Clock::Monotonic::max();
      last_write_ = now;
      return true;
    }
    if (!dirty_ && later_ == base::Clock::Monotonic::max()) {
      changed_.wait(lock, stop, [this] { return dirty_ || later_ != base::Clock::Monotonic::max(); });
      continue;
    }
    const bool was_dirty = dirty_;
    changed_.wait_until(lock, stop, due, [this, was_dirty] { return dirty_ != was_dirty; });
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
