#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"

namespace collage::kube {

// Keys to look at. A key that is waiting is there once (the earlier time wins); a key that is being worked on
// is never handed out a second time: added meanwhile, it comes again after done(). Failures of a key are
// counted for its back-off. Thread safe.
class WorkQueue {
 public:
  WorkQueue(std::string name, const base::Clock& clock,
            std::chrono::milliseconds backoff_initial = std::chrono::seconds(1),
            std::chrono::milliseconds backoff_max = std::chrono::minutes(5));
  ~WorkQueue();

  void add(const std::string& key);
  void add_after(const std::string& key, std::chrono::nanoseconds delay);
  // With the key's own growing, jittered delay.
  void add_failed(const std::string& key);
  void forget_failures(const std::string& key);
  // Blocks for the next key that is due; nullopt after stop().
  std::optional<std::string> get();
  void done(const std::string& key);
  void stop();

  size_t depth() const;  // due or waiting, without those in work
  int failures(const std::string& key) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace collage::kube
