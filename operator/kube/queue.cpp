#include "operator/kube/queue.h"

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <stop_token>
#include <tuple>
#include <unordered_map>

#include "base/metrics.h"
#include "base/retry.h"

namespace collage::kube {
namespace {

using Time = base::Clock::Monotonic;

// The names that dashboards for Kubernetes controllers know.
struct QueueMetrics {
  base::Gauge depth{"workqueue_depth", "Keys waiting in the queue.", {"name"}};
  base::Counter adds{"workqueue_adds_total", "Keys added to the queue.", {"name"}};
  base::Counter retries{"workqueue_retries_total", "Keys added again after a failure.", {"name"}};
  base::Histogram waited{
      "workqueue_queue_duration_seconds", "Time from when a key was due until it was handed out.", {"name"}};
  base::Histogram worked{"workqueue_work_duration_seconds", "Time a key was worked on.", {"name"}};
};

QueueMetrics& metrics() {
  static QueueMetrics metrics;
  return metrics;
}

double seconds(std::chrono::nanoseconds duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

// waiting: key -> its place in `order`. working: keys handed out, with the time they were added again
// meanwhile, if they were.
//
// One waiter at most (the timer) sleeps until the first key is due; the others wait for a notification.
// Whoever takes a key wakes the next waiter, so a burst wakes as many threads as there are keys, one by one.
struct WorkQueue::State {
  using Place = std::tuple<Time, uint64_t>;  // equal times in the order of adding
  struct Work {
    Time since;
    std::optional<Time> again;
  };

  State(std::string name_, const base::Clock& clock_, std::chrono::milliseconds initial,
        std::chrono::milliseconds max)
      : name(std::move(name_)), clock(clock_), backoff_initial(initial), backoff_max(max) {}

  void insert(const std::string& key, Time due) {
    const auto found = waiting.find(key);
    if (found != waiting.end()) {
      if (std::get<Time>(found->second) <= due) return;
      order.erase(found->second);
      waiting.erase(found);
    }
    const Place place{due, ++sequence};
    const auto at = order.emplace(place, key).first;
    waiting.emplace(key, place);
    metrics().adds.add({name});
    metrics().depth.set(static_cast<double>(waiting.size()), {name});
    if (at != order.begin()) return;  // somebody waits for an earlier key already, or will take it first
    if (timer_active) {
      timer.request_stop();
    } else {
      changed.notify_one();
    }
  }

  void add_at(const std::string& key, Time due) {
    if (stopped) return;
    const auto busy = working.find(key);
    if (busy == working.end()) {
      insert(key, due);
      return;
    }
    if (!busy->second.again || due < *busy->second.again) busy->second.again = due;
  }

  // Sleeps until the first key is due, a key with an earlier time comes, or the queue stops.
  void wait_as_timer(std::unique_lock<std::mutex>& lock) {
    timer_active = true;
    timer = std::stop_source();
    const std::stop_token token = timer.get_token();
    const Time due = std::get<Time>(order.begin()->first);
    lock.unlock();
    clock.sleep_until(token, due);
    lock.lock();
    timer_active = false;
  }

  const std::string name;
  const base::Clock& clock;
  const std::chrono::milliseconds backoff_initial;
  const std::chrono::milliseconds backoff_max;

  mutable std::mutex mutex;
  std::condition_variable changed;
  std::map<Place, std::string> order;
  std::unordered_map<std::string, Place> waiting;
  std::unordered_map<std::string, Work> working;
  std::unordered_map<std::string, int> failures;
  uint64_t sequence = 0;
  bool stopped = false;
  bool timer_active = false;
  std::stop_source timer;
};

WorkQueue::WorkQueue(std::string name, const base::Clock& clock, std::chrono::milliseconds backoff_initial,
                     std::chrono::milliseconds backoff_max)
    : state_(std::make_unique<State>(std::move(name), clock, backoff_initial, backoff_max)) {}

WorkQueue::~WorkQueue() {
  stop();
}

void WorkQueue::add(const std::string& key) {
  add_after(key, std::chrono::nanoseconds(0));
}

void WorkQueue::add_after(const std::string& key, std::chrono::nanoseconds delay) {
  std::lock_guard lock(state_->mutex);
  const Time now = state_->clock.now();
  const bool endless = delay > Time::max() - now;
  state_->add_at(key, endless ? Time::max() : now + std::max(delay, std::chrono::nanoseconds(0)));
}

void WorkQueue::add_failed(const std::string& key) {
  std::lock_guard lock(state_->mutex);
  const int failures = ++state_->failures[key];
  metrics().retries.add({state_->name});
  state_->add_at(key, state_->clock.now() +
                          base::Backoff::delay(state_->backoff_initial, state_->backoff_max, failures));
}

void WorkQueue::forget_failures(const std::string& key) {
  std::lock_guard lock(state_->mutex);
  state_->failures.erase(key);
}

std::optional<std::string> WorkQueue::get() {
  std::unique_lock lock(state_->mutex);
  while (!state_->stopped) {
    if (state_->order.empty() || state_->timer_active) {
      // With the timer active a key may be due already: the timer is being woken and will take it.
      state_->changed.wait(lock);
      continue;
    }
    const auto first = state_->order.begin();
    const Time due = std::get<Time>(first->first);
    const Time now = state_->clock.now();
    if (due > now) {
      state_->wait_as_timer(lock);
      continue;
    }
    std::string key = std::move(first->second);
    state_->order.erase(first);
    state_->waiting.erase(key);
    state_->working.emplace(key, State::Work{now, std::nullopt});
    metrics().depth.set(static_cast<double>(state_->waiting.size()), {state_->name});
    metrics().waited.observe(seconds(now - due), {state_->name});
    if (!state_->order.empty()) state_->changed.notify_one();
    return key;
  }
  // The notification that woke this thread may have been meant for any of them.
  state_->changed.notify_all();
  return std::nullopt;
}

void WorkQueue::done(const std::string& key) {
  std::lock_guard lock(state_->mutex);
  const auto found = state_->working.find(key);
  if (found == state_->working.end()) return;
  const State::Work work = found->second;
  state_->working.erase(found);
  metrics().worked.observe(seconds(state_->clock.now() - work.since), {state_->name});
  if (work.again && !state_->stopped) state_->insert(key, *work.again);
}

void WorkQueue::stop() {
  std::lock_guard lock(state_->mutex);
  state_->stopped = true;
  state_->timer.request_stop();
  state_->changed.notify_all();
}

size_t WorkQueue::depth() const {
  std::lock_guard lock(state_->mutex);
  return state_->waiting.size();
}

int WorkQueue::failures(const std::string& key) const {
  std::lock_guard lock(state_->mutex);
  const auto found = state_->failures.find(key);
  return found == state_->failures.end() ? 0 : found->second;
}

}  // namespace collage::kube
