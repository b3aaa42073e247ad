#pragma once

#include <mutex>
#include <set>
#include <string>

#include "unit/node/disk.h"
#include "unit/node/node_fixture.h"

namespace collage::testing {

// A node whose agent can be killed at every single instant of what it does: before each change of the
// kernel's state, after each, and before each call that changes the journal's directory. A reboot takes with
// it what was not synced.
class CrashingNode : public NodeFixture {
 public:
  // The n-th change to disk or kernel from now on, and all after it, do not happen; the half of the points
  // that lie after a change: it happened.
  void crash_at(int point) {
    {
      const std::lock_guard lock(mutex_);
      points_ = 0;
    }
    const auto goes_on = [this, point](const std::string& step) {
      const std::lock_guard lock(mutex_);
      steps_.insert(step);
      return ++points_ < point;
    };
    kernel.on_step([goes_on](const std::string& step) {
      return goes_on(step) ? absl::OkStatus() : absl::UnavailableError("killed");
    });
    disk.on_step(goes_on);
  }
  void no_crash() {
    kernel.on_step({});
    disk.on_step({});
  }
  bool came_to(int point) const {
    const std::lock_guard lock(mutex_);
    return points_ >= point;
  }
  std::set<std::string> steps() const {  // that there were
    const std::lock_guard lock(mutex_);
    return steps_;
  }

  // The agent is gone by now, or goes here.
  void reboot() {
    agent.reset();
    kernel.reboot();
    disk.lose_power();
    boot_id = "boot-" + std::to_string(++boots_);
  }

  // A new agent, with its backend when `backend`.
  void start_again(bool backend) {
    start();  // the former one, which is dead, changes nothing any more
    no_crash();
    ASSERT_TRUE(agent->recover({}).ok());
    if (!backend) return;
    set_backends();
    ASSERT_TRUE(wait_ready(true));
  }

  Disk disk{directory / "volumes"};

 private:
  mutable std::mutex mutex_;
  int points_ = 0;
  int boots_ = 1;
  std::set<std::string> steps_;
};

}  // namespace collage::testing
