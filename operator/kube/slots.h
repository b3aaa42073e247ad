#pragma once

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "absl/status/statusor.h"
#include "base/context.h"

namespace collage::kube::detail {

// How many may do something at the same time; the others wait for their turn. Thread safe.
class Slots {
 public:
  // One slot, given back at the end of its life.
  class Hold {
   public:
    explicit Hold(Slots& slots) : slots_(&slots) {}
    Hold(Hold&& other) noexcept : slots_(std::exchange(other.slots_, nullptr)) {}
    Hold& operator=(Hold&&) = delete;
    ~Hold() {
      if (slots_ != nullptr) slots_->give_back();
    }

   private:
    Slots* slots_;
  };

  explicit Slots(int count) : free_(count) {}

  // The context's error when that ended first.
  absl::StatusOr<Hold> take(const base::Context& context) {
    std::unique_lock lock(mutex_);
    while (free_ == 0) {
      if (absl::Status status = context.status(); !status.ok()) return status;
      // Not longer at once, since the context's clock need not be the one that condition variables know.
      given_back_.wait_for(lock, context.stop(),
                           std::min<std::chrono::nanoseconds>(context.remaining(), std::chrono::seconds(1)),
                           [this] { return free_ > 0; });
    }
    --free_;
    return Hold(*this);
  }

 private:
  void give_back() {
    {
      std::lock_guard lock(mutex_);
      ++free_;
    }
    given_back_.notify_one();
  }

  std::mutex mutex_;
  std::condition_variable_any given_back_;
  int free_;
};

}  // namespace collage::kube::detail
