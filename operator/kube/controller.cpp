#include "operator/kube/controller.h"

#include <algorithm>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "base/log.h"
#include "base/metrics.h"
#include "base/random.h"

namespace collage::kube {
namespace {

const base::Counter& reconciles() {
  static const base::Counter counter("collage_reconcile_total", "Reconciles by how they ended.",
                                     {"controller", "outcome"});
  return counter;
}

}  // namespace

struct Controller::State {
  State(std::string name_, int workers_, Reconcile reconcile_, const base::Clock& clock)
      : name(std::move(name_)),
        workers(std::max(1, workers_)),
        reconcile(std::move(reconcile_)),
        queue(name, clock) {}

  // Threads are started as keys come: one always waits for the next key, until there are `workers`. A lane
  // that is rarely used costs one thread.
  void add_thread(const base::Context& context) {
    std::lock_guard lock(mutex);
    if (stopping || idle > 0 || threads.size() >= static_cast<size_t>(workers)) return;
    try {
      threads.emplace_back([this, context] { work(context); });
      ++idle;
    } catch (const std::system_error& error) {
      // Those that run go on. Without any, nothing would ever be done.
      if (threads.empty()) throw;
      base::log::warning(context, "no further thread can be started",
                         {{"controller", name}, {"threads", threads.size()}, {"error", error.what()}});
    }
  }

  std::optional<std::string> next(const base::Context& context) {
    std::optional<std::string> key = queue.get();
    {
      std::lock_guard lock(mutex);
      --idle;
    }
    if (key) add_thread(context);
    return key;
  }

  void work(const base::Context& context) {
    while (const std::optional<std::string> key = next(context)) {
      // With every line that is logged below, so that one reconcile can be followed through the log.
      const base::Context one = context.with_field("controller", name)
                                    .with_field("key", *key)
                                    .with_field("reconcile", base::random_hex(4));
      finish(one, *key, reconcile(one, *key));
      queue.done(*key);
      std::lock_guard lock(mutex);
      ++idle;
    }
  }

  // Adds the key again before done(), which keeps the earlier of this time and that of a change seen
  // meanwhile.
  void finish(const base::Context& context, const std::string& key, const Outcome& outcome) {
    if (std::holds_alternative<Done>(outcome)) {
      reconciles().add({name, "done"});
      queue.forget_failures(key);
      return;
    }
    if (const auto* after = std::get_if<RequeueAfter>(&outcome)) {
      reconciles().add({name, "requeue_after"});
      queue.forget_failures(key);
      queue.add_after(key, after->delay);
      return;
    }
    if (const auto* retry = std::get_if<Retry>(&outcome)) {
      reconciles().add({name, "retry"});
      const bool stopping = retry->status.code() == absl::StatusCode::kCancelled && context.stopped();
      if (stopping) return;
      queue.add_failed(key);
      base::log::warning(context, "reconcile failed, will be retried",
                         {{"error", retry->status}, {"failures", queue.failures(key)}});
      return;
    }
    const auto& terminal = std::get<Terminal>(outcome);
    reconciles().add({name, "terminal"});
    queue.forget_failures(key);
    base::log::warning(context, "reconcile failed, waiting for a change of the object",
                       {{"error", terminal.status}});
  }

  const std::string name;
  const int workers;
  const Reconcile reconcile;
  WorkQueue queue;
  std::mutex mutex;
  std::vector<std::jthread> threads;
  int idle = 0;  // threads that wait for a key, or were started to
  bool stopping = false;
  std::unique_ptr<std::stop_callback<std::function<void()>>> on_stop;
};

Controller::Controller(std::string name, int workers, Reconcile reconcile, const base::Clock& clock)
    : state_(std::make_unique<State>(std::move(name), workers, std::move(reconcile), clock)) {}

Controller::~Controller() {
  stop();
}

void Controller::enqueue(const std::string& key) {
  state_->queue.add(key);
}

void Controller::enqueue_after(const std::string& key, std::chrono::nanoseconds delay) {
  state_->queue.add_after(key, delay);
}

void Controller::start(const base::Context& context) {
  State* const state = state_.get();
  state->on_stop = std::make_unique<std::stop_callback<std::function<void()>>>(
      context.stop(), [state] { state->queue.stop(); });
  state->add_thread(context);
}

void Controller::stop() {
  state_->on_stop.reset();
  state_->queue.stop();
  std::vector<std::jthread> threads;
  {
    std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    threads.swap(state_->threads);
  }
  // Joins, not under the lock: who ends takes it.
}

const std::string& Controller::name() const {
  return state_->name;
}

size_t Controller::depth() const {
  return state_->queue.depth();
}

}  // namespace collage::kube
