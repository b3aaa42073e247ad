#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "base/context.h"

namespace collage::reconcile {

// One writer of one object: changes come from many threads and leave in as few writes as possible. One write
// is in flight at a time and takes whatever was changed meanwhile. The first after a rest starts at once; the
// pause from one to the next grows with how many wait for an answer, up to `spacing` from sixteen on, so that
// calls that come one by one hardly wait and a crowd shares a write. A change that can wait leaves with the
// next write, or after `idle` (`touch_later`), or a while after the last write (`touch_spaced`). A failed
// write is tried again with back-off for as long as the context lives. Thread safe.
class GroupCommit {
 public:
  using Write = std::function<absl::Status(const base::Context&)>;

  GroupCommit(std::chrono::milliseconds spacing, std::chrono::milliseconds idle, Write write);
  ~GroupCommit();

  void start(const base::Context& context);
  void stop();
  // waiting: how many, this one included, wait for what the writes bring about.
  void touch(size_t waiting = 1);
  void touch_now();  // no more is to be expected soon: there is nothing to pause for
  void touch_later();
  void touch_spaced(std::chrono::milliseconds pause);  // at once, when the last write is that long ago

 private:
  void due_by(base::Clock::Monotonic when);
  void run(const base::Context& context, std::stop_token stop);
  // Waits for the next moment to write; false when stopped.
  bool wait_due(std::stop_token stop);

  const std::chrono::milliseconds spacing_;
  const std::chrono::milliseconds idle_;
  const Write write_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  bool dirty_ = false;  // beside what can wait
  size_t waiting_ = 0;  // the most since the last write
  base::Clock::Monotonic later_ = base::Clock::Monotonic::max();
  base::Clock::Monotonic earliest_{};  // the next write
  base::Clock::Monotonic last_{};      // the last write began
  std::stop_source nap_;               // ends the sleep before a write
  const base::Clock* clock_ = &base::Clock::real();
  std::jthread thread_;
};

}  // namespace collage::reconcile
