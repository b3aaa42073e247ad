#include "operator/kube/lease.h"

#include <algorithm>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/log.h"
#include "base/metrics.h"
#include "base/retry.h"
#include "base/status.h"
#include "base/strings.h"
#include "operator/kube/lease_view.h"

namespace collage::kube {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr milliseconds kShortPause{1000};
// A process that lost the lease ends itself; an orderly end takes up to 25 s.
constexpr std::chrono::seconds kTimeToEnd{30};

const base::Gauge& leader() {
  static const base::Gauge gauge("collage_leader", "1 while this process holds the lease.", {"lease"});
  return gauge;
}

// Ends a watch whose purpose is fulfilled.
absl::Status enough() {
  return absl::AbortedError("enough");
}

milliseconds jittered(milliseconds pause) {
  return base::Backoff::delay(pause, pause, 1);
}

}  // namespace

struct Lease::State {
  State(Client& client_, LeaseOptions options_, const base::Clock& clock_)
      : client(client_),
        options(std::move(options_)),
        clock(clock_),
        view(options.identity, options.duration, std::min(options.renew_deadline, options.duration)),
        patience(shortest_patience()) {}

  nanoseconds wait() const {
    std::lock_guard lock(mutex);
    return view.wait(clock.boot_time());
  }
  absl::StatusOr<nanoseconds> holds_for() const {
    std::lock_guard lock(mutex);
    return view.holds_for(clock.boot_time());
  }
  void observe(const base::Json* lease) {
    std::lock_guard lock(mutex);
    view.observe(lease, clock.boot_time());
  }
  bool observed_as_holder() const {
    std::lock_guard lock(mutex);
    return view.observed_as_holder();
  }
  // Short enough that a dead connection leaves time for another try before the fence.
  nanoseconds shortest_patience() const {
    return std::max<milliseconds>(options.renew_deadline / 4, milliseconds(100));
  }
  // One call. A server that was too slow for it is given longer the next time, up to half of what a renewal
  // has: one that answers at all, however late, keeps its leader.
  template <typename Call>
  auto one_try(const base::Context& context, const Call& call) {
    const auto began = clock.now();
    const nanoseconds given = patience;
    auto answer = call(context.with_timeout(given));
    const bool too_slow = !answer.ok() && absl::IsDeadlineExceeded(answer.status()) && !context.stopped();
    if (too_slow)
      patience = std::max<nanoseconds>(given, std::min<nanoseconds>(2 * given, options.renew_deadline / 2));
    if (answer.ok() && clock.now() - began < shortest_patience() / 2) patience = shortest_patience();
    return answer;
  }
  // When to renew next. Earlier while the server is slow, so that two tries fit in before the fence.
  base::Clock::Monotonic renew_after(base::Clock::Monotonic began) const {
    return began +
           std::clamp<nanoseconds>(options.renew_deadline - 2 * patience, milliseconds(0), options.retry);
  }

  absl::Status look(const base::Context& context) {
    const auto lease = one_try(
        context, [&](const base::Context& bounded) { return client.get(bounded, kLeases, options.key); });
    if (absl::IsNotFound(lease.status())) {
      observe(nullptr);
      return absl::OkStatus();
    }
    if (!lease.ok()) return lease.status();
    observe(&*lease);
    return absl::OkStatus();
  }

  // Takes or renews. The fence counts from before the request is sent.
  absl::Status claim(const base::Context& context) {
    base::Json lease;
    bool exists = false;
    {
      std::lock_guard lock(mutex);
      lease = view.claim(options.key.name_space, options.key.name, clock.wall());
      exists = !view.resource_version().empty();
    }
    const nanoseconds sent = clock.boot_time();
    const auto answer = one_try(context, [&](const base::Context& bounded) {
      return exists ? client.replace(bounded, kLeases, options.key, lease, "")
                    : client.create(bounded, kLeases, options.key.name_space, lease);
    });
    if (!answer.ok()) return answer.status();
    std::lock_guard lock(mutex);
    view.held(*answer, sent);
    should_have_ended = sent + options.renew_deadline + kTimeToEnd;
    return absl::OkStatus();
  }

  // Until the lease may be free: silent for as long as the others have to wait, given up, or deleted. Idle
  // candidates cost the server nothing but this watch.
  void watch_until_free(const base::Context& context, nanoseconds wait) {
    ListOptions only;
    only.name_space = options.key.name_space;
    only.field_selector = "metadata.name=" + options.key.name;
    only.idle_timeout = std::chrono::ceil<milliseconds>(wait);
    std::string version;
    {
      std::lock_guard lock(mutex);
      version = view.resource_version();
    }
    const absl::Status status =
        client.watch(context, kLeases, only, version, [this](const WatchEvent& event) {
          // A bookmark is not a sign of life; the next watch waits only for what is left.
          if (event.type == WatchEvent::Type::kBookmark) return enough();
          observe(event.type == WatchEvent::Type::kDeleted ? nullptr : event.object);
          return this->wait() == nanoseconds(0) || event.type == WatchEvent::Type::kDeleted
                     ? enough()
                     : absl::OkStatus();
        });
    const bool expected = status.ok() || absl::IsAborted(status) || absl::IsDeadlineExceeded(status);
    if (!expected) (void)context.sleep_for(jittered(std::min(options.retry, kShortPause)));
  }

  // One renewal, with what is known now. ABORTED: another holds the lease.
  absl::Status renew(const base::Context& context) {
    absl::Status status = claim(context);
    const bool unsure = absl::IsAborted(status) || absl::IsNotFound(status) || absl::IsAlreadyExists(status);
    if (!unsure) return status;
    // Perhaps our own last renewal, whose answer was lost: look and try once more.
    COLLAGE_RETURN_IF_ERROR(look(context));
    if (!observed_as_holder()) return absl::AbortedError("another process holds the lease");
    return claim(context);
  }

  // Writes that nobody holds the lease. The fence must be down already.
  absl::Status give_up(const base::Context& context) {
    base::Json lease;
    {
      std::lock_guard lock(mutex);
      lease = view.give_up(clock.wall());
    }
    const auto answer = one_try(context, [&](const base::Context& bounded) {
      return client.replace(bounded, kLeases, options.key, lease, "");
    });
    return answer.status();
  }

  // Renews until the stop, or until the lease is lost (false).
  bool renew_until_stop(const base::Context& context) {
    base::log::Seldom seldom;
    auto next = renew_after(clock.now());
    while (clock.sleep_until(context.stop(), next)) {
      const auto began = clock.now();
      const auto holds = holds_for();
      if (!holds.ok()) return false;
      const absl::Status status = renew(context.with_timeout(*holds));
      if (context.stopped()) return true;
      if (status.ok()) {
        next = renew_after(began);
        continue;
      }
      if (absl::IsAborted(status) && !observed_as_holder()) return false;
      if (seldom.tell(context, base::to_string(status))) {
        base::log::warning(context, "lease not renewed, trying again",
                           {{"lease", options.key.to_string()}, {"error", status}});
      }
      next = clock.now() + std::min<nanoseconds>(jittered(std::min(options.retry, kShortPause)), *holds);
    }
    return true;
  }

  Client& client;
  const LeaseOptions options;
  const base::Clock& clock;
  mutable std::mutex mutex;
  detail::LeaseView view;
  std::optional<nanoseconds> should_have_ended;  // boot time; none while nothing is held, or after a release
  nanoseconds patience;                          // of one call; used by one thread after the other
  std::jthread keeper;
};

Lease::Lease(Client& client, LeaseOptions options, const base::Clock& clock)
    : state_(std::make_unique<State>(client, std::move(options), clock)) {}

Lease::~Lease() = default;

absl::Status Lease::acquire(const base::Context& context, MissingLease missing) {
  State& state = *state_;
  if (missing == MissingLease::kFree) state.view.nobody_led();
  base::Backoff backoff(std::min(state.options.retry, kShortPause), state.options.retry);
  std::optional<std::string> waiting_for;
  base::log::Seldom seldom;
  while (true) {
    COLLAGE_RETURN_IF_ERROR(context.status());
    absl::Status status = state.look(context);
    if (status.ok() && state.wait() > nanoseconds(0)) {
      backoff.reset();
      if (const std::string holder = state.view.holder(); holder != waiting_for) {
        base::log::info(context,
                        holder.empty() ? "the lease is missing: waiting until nobody can hold it any more"
                                       : "waiting for the lease",
                        {{"lease", state.options.key.to_string()}, {"holder", holder}});
        waiting_for = holder;
      }
      state.watch_until_free(context, state.wait());
      continue;
    }
    if (status.ok()) status = state.claim(context);
    if (status.ok()) {
      base::log::info(context, "lease acquired",
                      {{"lease", state.options.key.to_string()}, {"identity", state.options.identity}});
      leader().set(1, {state.options.key.name});
      return status;
    }
    if (!context.status().ok()) return context.status();
    // Another was faster: look again at once. Anything else is worth a line and a pause.
    if (absl::IsAborted(status) || absl::IsAlreadyExists(status)) continue;
    if (seldom.tell(context, base::to_string(status))) {
      base::log::warning(context, "lease not acquired, trying again",
                         {{"lease", state.options.key.to_string()}, {"error", status}});
    }
    (void)context.sleep_for(backoff.next());
  }
}

void Lease::keep(const base::Context& context, std::function<void()> on_lost) {
  State* const state = state_.get();
  state->keeper = std::jthread([state, context, on_lost = std::move(on_lost)](std::stop_token stop) {
    std::stop_source either;
    const std::stop_callback on_stop(stop, [&either] { either.request_stop(); });
    const std::stop_callback on_context(context.stop(), [&either] { either.request_stop(); });
    if (state->renew_until_stop(context.with_stop(either.get_token()))) return;
    {
      std::lock_guard lock(state->mutex);
      state->view.lost();
    }
    leader().set(0, {state->options.key.name});
    base::log::error(context, "lease lost", {{"lease", state->options.key.to_string()}});
    if (on_lost) on_lost();
  });
}

void Lease::release(const base::Context& context) {
  State& state = *state_;
  state.keeper.request_stop();
  if (state.keeper.joinable()) state.keeper.join();
  {
    std::lock_guard lock(state.mutex);
    if (!state.view.holds_for(state.clock.boot_time()).ok()) return;
    // Before the others hear of it: from here on the fence lets nothing through.
    state.view.lost();
    state.should_have_ended.reset();
  }
  leader().set(0, {state.options.key.name});
  absl::Status status = state.give_up(context);
  if (absl::IsAborted(status)) {
    // A renewal of ours arrived whose answer was cut off by the stop.
    status = state.look(context);
    if (status.ok() && !state.observed_as_holder()) return;
    if (status.ok()) status = state.give_up(context);
  }
  if (status.ok()) {
    base::log::info(context, "lease released", {{"lease", state.options.key.to_string()}});
    return;
  }
  // It runs out by itself.
  base::log::warning(context, "lease not released",
                     {{"lease", state.options.key.to_string()}, {"error", status}});
}

absl::Status Lease::healthy() const {
  const State& state = *state_;
  std::lock_guard lock(state.mutex);
  if (!state.should_have_ended || state.clock.boot_time() < *state.should_have_ended) return absl::OkStatus();
  return absl::FailedPreconditionError(
      base::cat("the lease ", state.options.key.to_string(),
                " ran out long ago and this process has not ended: it should be restarted"));
}

absl::StatusOr<nanoseconds> Lease::holds_for() const {
  return state_->holds_for();
}

}  // namespace collage::kube
