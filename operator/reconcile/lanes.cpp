#include "operator/reconcile/lanes.h"

#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

namespace collage::reconcile {
namespace {

// How long a key waits that still runs in the lane it came from.
constexpr std::chrono::milliseconds kBusy{100};

}  // namespace

LanedController::LanedController(std::string name, int threads_per_lane, LaneOf lane_of,
                                 kube::Controller::Reconcile reconcile)
    : name_(std::move(name)),
      threads_(threads_per_lane),
      lane_of_(std::move(lane_of)),
      reconcile_(std::move(reconcile)) {}

LanedController::~LanedController() {
  stop();
}

void LanedController::enqueue(const std::string& key) {
  if (kube::Controller* const controller = lane(lane_of_(key))) controller->enqueue(key);
}

void LanedController::enqueue_after(const std::string& key, std::chrono::nanoseconds delay) {
  if (kube::Controller* const controller = lane(lane_of_(key))) controller->enqueue_after(key, delay);
}

void LanedController::start(const base::Context& context) {
  std::lock_guard lock(mutex_);
  if (started_ || stopped_) return;
  started_ = true;
  context_ = context;
  for (auto& [name, controller] : lanes_) controller->start(context_);
}

// Lanes stay in the map until destruction: another thread may be about to enqueue into one, which a stopped
// controller ignores.
void LanedController::stop() {
  std::vector<kube::Controller*> controllers;
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    for (auto& [name, controller] : lanes_) controllers.push_back(controller.get());
  }
  // Not under the lock: a reconcile under way may enqueue.
  for (kube::Controller* const controller : controllers) controller->stop();
}

size_t LanedController::depth() const {
  std::lock_guard lock(mutex_);
  size_t depth = 0;
  for (const auto& [name, controller] : lanes_) depth += controller->depth();
  return depth;
}

kube::Controller* LanedController::lane(const std::string& name) {
  std::lock_guard lock(mutex_);
  if (stopped_) return nullptr;
  std::unique_ptr<kube::Controller>& controller = lanes_[name];
  if (controller == nullptr) {
    controller = std::make_unique<kube::Controller>(
        name.empty() ? name_ : absl::StrCat(name_, "/", name), threads_,
        [this, name](const base::Context& context, const std::string& key) {
          return run_locked(context, name, key);
        });
    if (started_) controller->start(context_);
  }
  return controller.get();
}

kube::Outcome LanedController::run_locked(const base::Context& context, const std::string& lane,
                                          const std::string& key) {
  const std::string belongs = lane_of_(key);
  if (belongs != lane) {
    if (kube::Controller* const other = this->lane(belongs)) other->enqueue(key);
    return kube::Done{};
  }
  {
    std::lock_guard lock(mutex_);
    if (!running_.insert(key).second) return kube::RequeueAfter{kBusy};
  }
  const absl::Cleanup finished = [this, &key] {
    std::lock_guard lock(mutex_);
    running_.erase(key);
  };
  return reconcile_(context, key);
}

}  // namespace collage::reconcile
