#include "base/workers.h"

#include <pthread.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace collage::base {

struct Workers::State {
  const std::string name;
  const size_t limit;
  mutable std::mutex mutex;
  std::condition_variable wake;
  std::deque<std::function<void()>> queue;
  std::vector<std::thread> threads;
  size_t idle = 0;
  bool stopping = false;

  void run() {
    // What top and a debugger show; the kernel keeps 15 bytes.
    pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
    std::unique_lock lock(mutex);
    while (true) {
      ++idle;
      wake.wait(lock, [this] { return stopping || !queue.empty(); });
      --idle;
      if (stopping) return;
      auto work = std::move(queue.front());
      queue.pop_front();
      lock.unlock();
      work();
      work = nullptr;  // what it captured is released without the lock
      lock.lock();
    }
  }
};

Workers::Workers(std::string name, size_t threads)
    : state_(new State{.name = std::move(name), .limit = threads == 0 ? 1 : threads}) {}

Workers::~Workers() {
  stop();
}

bool Workers::submit(std::function<void()> work) {
  std::lock_guard lock(state_->mutex);
  if (state_->stopping) return false;
  state_->queue.push_back(std::move(work));
  // Idle threads that have been woken but not yet run still count as idle: compare with what is queued.
  if (state_->queue.size() > state_->idle && state_->threads.size() < state_->limit) {
    state_->threads.emplace_back([state = state_.get()] { state->run(); });
  }
  state_->wake.notify_one();
  return true;
}

void Workers::stop() {
  std::deque<std::function<void()>> dropped;
  std::vector<std::thread> threads;
  {
    std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    dropped.swap(state_->queue);
    threads.swap(state_->threads);
  }
  state_->wake.notify_all();
  for (std::thread& thread : threads) thread.join();
}

size_t Workers::queued() const {
  std::lock_guard lock(state_->mutex);
  return state_->queue.size();
}

}  // namespace collage::base
