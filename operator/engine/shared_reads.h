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
    if (reads.next == nullptr) reads.next = std::make_shared<Round>();
    const std::shared_ptr<Round> mine = reads.next;
    ++reads.callers;
    bool led = false;
    Answer answer = wait(lock, context, key, reads, *mine, &led);
    --reads.callers;
    const std::shared_ptr<Round> next = reads.next;
    const bool done = mine->done;
    lock.unlock();  // those who are called want it
    if (done && led) mine->changed.notify_all();
    if (!done) mine->changed.notify_one();
    // To one who waits, since a caller goes who led, or was woken to lead.
    if (next != nullptr && (led || !done)) next->changed.notify_one();
    return answer;
  }

  // How many wait for an answer now.
  int callers(const std::string& key) const {
    std::lock_guard lock(mutex_);
    const auto found = reads_.find(key);
    return found == reads_.end() ? 0 : found->second.callers;
  }

 private:
  struct Round {  // those whom one read answers
    bool done = false;
    Answer answer = nullptr;
    std::condition_variable_any changed;
  };
  struct Reads {                        // of one key
    std::shared_ptr<Round> next;        // not begun; nullptr: nobody waits for it
    bool led = false;                   // a caller sees to the next read, or makes it
    base::Clock::Monotonic earliest{};  // the next read
    int callers = 0;
  };

  Answer wait(std::unique_lock<std::mutex>& lock, const base::Context& context, const std::string& key,
              Reads& reads, Round& mine, bool* led) {
    while (!mine.done) {
      if (absl::Status status = context.status(); !status.ok()) return status;
      if (!reads.led) {
        *led = true;
        return lead(lock, context, key, reads, mine);
      }
      mine.changed.wait_for(lock, context.stop(), std::chrono::seconds(1),
                            [&] { return !reads.led || mine.done; });
    }
    return mine.answer;
  }

  Answer lead(std::unique_lock<std::mutex>& lock, const base::Context& context, const std::string& key,
              Reads& reads, Round& mine) {
    reads.led = true;
    const auto earliest = std::min(reads.earliest, context.deadline());
    lock.unlock();
    context.clock().sleep_until(context.stop(), earliest);
    lock.lock();
    Answer answer = nullptr;
    if (absl::Status status = context.status(); !status.ok()) {
      answer = status;
    } else {
      if (reads.next.get() == &mine) reads.next = nullptr;
      reads.earliest = context.clock().now() + spacing_ * std::clamp(reads.callers, 1, crowd_) / crowd_;
      lock.unlock();
      answer = read_(context, key);
      lock.lock();
      // The end of one caller's context is no answer for the others: the next one leads.
      if (answer.ok() || context.status().ok()) {
        mine.answer = answer;
        mine.done = true;
      }
    }
    reads.led = false;
    return answer;
  }

  const std::chrono::milliseconds spacing_;
  const int crowd_;
  const Read read_;
  mutable std::mutex mutex_;
  std::map<std::string, Reads> reads_;  // entries stay, one a key
};

}  // namespace collage::engine
