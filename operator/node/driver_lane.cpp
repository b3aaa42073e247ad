#include "operator/node/driver_lane.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/metrics.h"

namespace collage::node {
namespace {

using base::Context;
using base::Json;
using Time = base::Clock::Monotonic;

const base::Gauge& overdue_calls() {
  static const base::Gauge gauge("collage_node_overdue_driver_calls",
                                 "Calls of drivers that did not come back at their deadline.");
  return gauge;
}

// wait_until() with the far end of time overflows in some implementations.
Time not_for_ever(Time time, std::chrono::milliseconds later) {
  const Time far = std::chrono::steady_clock::now() + std::chrono::hours(24 * 365);
  return std::min(time, far) + later;
}

}  // namespace

struct DriverLane::State {
  struct Call {
    std::string doing;
    std::optional<absl::StatusOr<Json>> result;
    std::condition_variable_any changed;  // for the one who waits for it
  };

  explicit State(Options options) : options(std::move(options)) {}
  const Options options;
  std::mutex mutex;
  std::condition_variable_any freed;        // for those who have not begun
  std::set<std::shared_ptr<Call>> running;  // those left behind too
  std::set<std::string> subjects;
  std::set<std::shared_ptr<Call>> overdue;

  std::string stuck() const {  // the mutex is held
    if (overdue.empty()) return "";
    return absl::StrCat(options.where, ": its storage does not answer this node: \"",
                        (*overdue.begin())->doing,
                        "\" has not come back; is the disk sound, the server of the share up?");
  }
};

DriverLane::DriverLane(Options options) : state_(std::make_shared<State>(std::move(options))) {}

std::string DriverLane::stuck() const {
  std::lock_guard lock(state_->mutex);
  return state_->stuck();
}

absl::StatusOr<Json> DriverLane::run(const Context& context, const std::string& doing,
                                     const std::string& subject, Work work) {
  State& state = *state_;
  std::unique_lock lock(state.mutex);
  const auto free = [&] {
    return !state.overdue.empty() ||
           (state.running.size() < state.options.at_once && !state.subjects.contains(subject));
  };
  if (!state.freed.wait_until(lock, context.stop(), not_for_ever(context.deadline(), {}), free)) {
    return absl::UnavailableError(
        absl::StrCat(state.options.where, ": \"", doing, "\" waited in vain for calls before it"));
  }
  if (!state.overdue.empty()) return absl::UnavailableError(state.stuck());

  auto call = std::make_shared<State::Call>();
  call->doing = doing;
  state.running.insert(call);
  if (!subject.empty()) state.subjects.insert(subject);
  std::thread([keep = state_, call, context, subject, work = std::move(work)]() mutable {
    absl::StatusOr<Json> result = work(context);
    work = nullptr;
    {
      std::lock_guard lock(keep->mutex);
      call->result = std::move(result);
      keep->running.erase(call);
      keep->subjects.erase(subject);
      if (keep->overdue.erase(call) > 0) overdue_calls().add(-1);
    }
    call->changed.notify_all();
    keep->freed.notify_all();
  }).detach();

  // When the context is stopped before its deadline, the call has the same time to end by itself.
  const auto done = [&] { return call->result.has_value() || !state.overdue.empty(); };
  call->changed.wait_until(lock, context.stop(), not_for_ever(context.deadline(), state.options.grace), done);
  if (!done() && context.stopped()) call->changed.wait_for(lock, state.options.grace, done);
  if (call->result.has_value()) return *std::move(call->result);
  if (state.overdue.empty() || context.remaining().count() == 0) {
    state.overdue.insert(call);
    overdue_calls().add(1);
    for (const auto& other : state.running) other->changed.notify_all();
    state.freed.notify_all();
  }
  return absl::UnavailableError(state.stuck());
}

}  // namespace collage::node
