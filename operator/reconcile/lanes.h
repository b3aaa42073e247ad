#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "operator/kube/controller.h"

namespace collage::reconcile {

// A controller whose keys run in lanes, one lane a backend, each with threads of its own: a backend that is
// slow or hangs never holds up another's work. A lane is made when its first key comes. A key that changes
// lanes (rare: a claim whose class appeared late) moves to its new lane when its turn comes in the old one,
// and never runs twice at once. Thread safe.
class LanedController {
 public:
  // Which lane a key belongs to now. Called on whatever thread enqueues: reads caches only.
  using LaneOf = std::function<std::string(const std::string& key)>;

  LanedController(std::string name, int threads_per_lane, LaneOf lane_of,
                  kube::Controller::Reconcile reconcile);
  ~LanedController();

  void enqueue(const std::string& key);
  void enqueue_after(const std::string& key, std::chrono::nanoseconds delay);
  void start(const base::Context& context);
  // Waits for the reconciles under way. Keys that come later are dropped.
  void stop();
  size_t depth() const;

 private:
  // nullptr once stopped.
  kube::Controller* lane(const std::string& name);
  kube::Outcome run_locked(const base::Context& context, const std::string& lane, const std::string& key);

  const std::string name_;
  const int threads_;
  const LaneOf lane_of_;
  const kube::Controller::Reconcile reconcile_;
  mutable std::mutex mutex_;
  std::map<std::string, std::unique_ptr<kube::Controller>> lanes_;
  std::set<std::string> running_;  // keys in work
  base::Context context_;
  bool started_ = false;
  bool stopped_ = false;
};

}  // namespace collage::reconcile
