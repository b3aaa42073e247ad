#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "base/context.h"

namespace collage::engine {

// Reads that many ask for at the same time, each key by itself: one read answers all who wait. What a caller
// gets was always read after it asked, so that it is as good as a read of its own. The first read of a key
// starts at once; the pause until the next grows with how many shared the last, up to `spacing` from `crowd`
// of them on. Thread safe.
template <typename T>
class SharedReads {
 public:
  using Answer = absl::StatusOr<std::shared_ptr<const T>>;
  using Read = std::function<Answer(const base::Context& context, const std::string& key)>;

  SharedReads(std::chrono::milliseconds spacing, int crowd, Read read)
      : spacing_(spacing), crowd_(crowd), read_(std::move(read)) {}

  Answer get(const base::Context& context, const std::string& key) {
    std::unique_lock lock(mutex_);
    Reads& reads = reads_[key];
    ++reads.callers;
    const uint64_t mine = reads.begun + 1;
    Answer answer = wait(lock, context, key, reads, mine);
    if (--reads.callers == 0) reads.answer = nullptr;
    return answer;
  }

  // How many wait for an answer now.
  int callers(const std::string& key) const {
    std::lock_guard lock(mutex_);
    const auto found = reads_.find(key);
    return found == reads_.end() ? 0 : found->second.callers;
  }

 private:
  struct Reads {  // of one key; numbered from 1
    uint64_t begun = 0, answered = 0;
    bool led = false;  // a caller sees to the next read
    Answer answer = nullptr;
    base::Clock::Monotonic earliest{};  // the next read
    int callers = 0;
    std::condition_variable_any changed;
  };

  Answer wait(std::unique_lock<std::mutex>& lock, const base::Context& context, const std::string& key,
              Reads& reads, uint64_t mine) {
    while (reads.answered < mine) {
      if (absl::Status status = context.status(); !status.ok()) return status;
      if (!reads.led) return lead(lock, context, key, reads);
      reads.changed.wait_for(lock, context.stop(), std::chrono::seconds(1),
                             [&] { return !reads.led || reads.answered >= mine; });
    }
    return reads.answer;
  }

  Answer lead(std::unique_lock<std::mutex>& lock, const base::Context& context, const std::string& key,
              Reads& reads) {
    reads.led = true;
    const auto earliest = std::min(reads.earliest, context.deadline());
    lock.unlock();
    context.clock().sleep_until(context.stop(), earliest);
    lock.lock();
    Answer answer = nullptr;
    if (absl::Status status = context.status(); !status.ok()) {
      answer = status;
    } else {
      const uint64_t number = ++reads.begun;
      reads.earliest = context.clock().now() + spacing_ * std::clamp(reads.callers, 1, crowd_) / crowd_;
      lock.unlock();
      answer = read_(context, key);
      lock.lock();
      // The end of one caller's context is no answer for the others: the next one leads.
      if (answer.ok() || context.status().ok()) {
        reads.answer = answer;
        reads.answered = number;
      }
    }
    reads.led = false;
    reads.changed.notify_all();
    return answer;
  }

  const std::chrono::milliseconds spacing_;
  const int crowd_;
  const Read read_;
  mutable std::mutex mutex_;
  std::map<std::string, Reads> reads_;  // entries stay: one a key, without an answer when nobody waits
};

}  // namespace collage::engine
