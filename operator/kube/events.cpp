#include "operator/kube/events.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <unordered_map>

#include "base/log.h"
#include "base/metrics.h"
#include "base/random.h"
#include "base/strings.h"
#include "operator/kube/queue.h"

namespace collage::kube {
namespace {

using base::Json;
using Time = base::Clock::Monotonic;

constexpr std::chrono::minutes kSameFor{10};              // the same event again within this counts up
constexpr std::chrono::seconds kPatchEvery{10};           // at most, of one event
constexpr std::chrono::minutes kBurstRefill{5};           // one more event a target after this
constexpr double kBurst = 25;                             // new events of one target at once
constexpr std::chrono::milliseconds kRoutineRefill{500};  // one more routine event after this
constexpr double kRoutineBurst = 50;                      // new ones of all targets at once
constexpr size_t kMaxWaiting = 1000;
constexpr size_t kMaxKnown = 4000;    // events and targets that are remembered
constexpr size_t kMaxMessage = 1024;  // the API server's limit
constexpr size_t kMaxName = 200;      // of the target's name inside the event's
constexpr std::chrono::seconds kSendTimeout{10};
constexpr int kMaxTries = 5;

struct EventMetrics {
  base::Counter sent{"collage_events_total", "Events written to the API server.", {"type"}};
  base::Counter dropped{"collage_events_dropped_total", "Events that were not written.", {"why"}};
};

EventMetrics& metrics() {
  static EventMetrics metrics;
  return metrics;
}

std::string_view type_name(EventType type) {
  return type == EventType::kWarning ? "Warning" : "Normal";
}

// Cut at the border of a character.
std::string cut(const std::string& text, size_t max) {
  if (text.size() <= max) return text;
  size_t end = max - 3;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "...";
}

// One event of the API server: made by the first occurrence, counted up by the others.
struct Recorded {
  EventTarget target;
  EventType type = EventType::kNormal;
  std::string reason, message;
  std::string name;  // of the Event object
  base::Clock::Wall first{}, last{};
  Time last_seen{}, last_sent{};
  int count = 0;
  int sent_count = 0;  // 0: not created yet
  int tries = 0;
};

// How many new events there may be: `burst` at once, one more each `refill`.
struct Tokens {
  double left;
  Time refilled;
  bool take(Time now, double burst, std::chrono::nanoseconds refill) {
    const std::chrono::duration<double> passed = now - refilled;
    left = std::min(burst, left + passed / std::chrono::duration<double>(refill));
    refilled = now;
    if (left < 1) return false;
    left -= 1;
    return true;
  }
};

}  // namespace

// recorded: all of the last ten minutes, keyed by what makes two events the same. queue: the keys with
// something to send.
struct EventRecorder::State {
  State(Client& client_, std::string component_, std::string instance_, const base::Clock& clock_)
      : client(client_),
        component(std::move(component_)),
        instance(std::move(instance_)),
        clock(clock_),
        queue("events", clock_, std::chrono::milliseconds(500), kPatchEvery) {}

  std::string key_of(const EventTarget& target, EventType type, const std::string& reason,
                     const std::string& message) const {
    std::string key;
    for (const std::string_view part :
         {std::string_view(target.kind), std::string_view(target.name_space), std::string_view(target.name),
          std::string_view(target.uid), type_name(type), std::string_view(reason),
          std::string_view(message)}) {
      key.append(part);
      key.push_back('\0');
    }
    return key;
  }

  // Why there may be no new event of this target; nullptr when there may.
  const char* refusal(const EventTarget& target, EventType type, Time now) {
    if (type == EventType::kRoutine && !routine.take(now, kRoutineBurst, kRoutineRefill)) return "routine";
    const std::string key = base::cat(target.kind, "/", target.name_space, "/", target.name, "/", target.uid);
    Tokens& own = tokens.try_emplace(key, Tokens{kBurst, now}).first->second;
    return own.take(now, kBurst, kBurstRefill) ? nullptr : "burst";
  }

  // Forgets what is over, and beyond the limit whatever is oldest and not waiting to be sent.
  void prune(Time now) {
    if (now < next_prune && recorded.size() < kMaxKnown && tokens.size() < kMaxKnown) return;
    next_prune = now + std::chrono::minutes(1);
    std::erase_if(recorded, [&](const auto& each) {
      const Recorded& event = each.second;
      return event.sent_count == event.count &&
             (now - event.last_seen > kSameFor || recorded.size() >= kMaxKnown);
    });
    std::erase_if(tokens, [&](const auto& each) {
      return now - each.second.refilled > kBurst * kBurstRefill || tokens.size() >= kMaxKnown;
    });
  }

  void record(const EventTarget& target, EventType type, const std::string& reason,
              const std::string& full_message) {
    const std::string message = cut(full_message, kMaxMessage);
    const std::string key = key_of(target, type, reason, message);
    std::lock_guard lock(mutex);
    const Time now = clock.now();
    prune(now);
    auto known = recorded.find(key);
    if (known != recorded.end() && now - known->second.last_seen > kSameFor && known->second.sent_count > 0) {
      recorded.erase(known);
      known = recorded.end();
    }
    if (known == recorded.end()) {
      if (const char* why = refusal(target, type, now)) {
        metrics().dropped.add({why});
        return;
      }
      known = recorded.emplace(key, Recorded{target, type, reason, message}).first;
      known->second.first = clock.wall();
      known->second.name = target.name.substr(0, kMaxName) + "." + base::random_hex(8);
      waiting.push_back(key);
      drop_oldest();
    }
    Recorded& event = known->second;
    ++event.count;
    event.last = clock.wall();
    event.last_seen = now;
    const bool patched_lately = event.sent_count > 0 && now - event.last_sent < kPatchEvery;
    queue.add_after(key, patched_lately ? event.last_sent + kPatchEvery - now : std::chrono::nanoseconds(0));
  }

  // Only those never sent count: the others are one number each.
  void drop_oldest() {
    if (waiting.size() <= kMaxWaiting) return;
    std::erase_if(waiting, [&](const std::string& key) {
      const auto event = recorded.find(key);
      return event == recorded.end() || event->second.sent_count > 0;
    });
    while (waiting.size() > kMaxWaiting) {
      recorded.erase(waiting.front());
      waiting.pop_front();
      metrics().dropped.add({"full"});
    }
  }

  Json body_of(const Recorded& event) const {
    const EventTarget& target = event.target;
    // An event of an object without a namespace lives in "default"; its involvedObject has none.
    const std::string name_space = target.name_space.empty() ? "default" : target.name_space;
    Json object = {{"apiVersion", target.api_version},
                   {"kind", target.kind},
                   {"name", target.name},
                   {"uid", target.uid}};
    if (!target.name_space.empty()) object["namespace"] = target.name_space;
    if (!target.resource_version.empty()) object["resourceVersion"] = target.resource_version;
    return {{"apiVersion", "v1"},
            {"kind", "Event"},
            {"metadata", {{"name", event.name}, {"namespace", name_space}}},
            {"involvedObject", std::move(object)},
            {"type", type_name(event.type)},
            {"reason", event.reason},
            {"message", event.message},
            {"source", {{"component", component}, {"host", instance}}},
            {"reportingComponent", component},
            {"reportingInstance", instance},
            {"count", event.count},
            {"firstTimestamp", base::rfc3339(event.first)},
            {"lastTimestamp", base::rfc3339(event.last)}};
  }

  absl::Status write(const base::Context& context, const Recorded& event) {
    const std::string name_space = event.target.name_space.empty() ? "default" : event.target.name_space;
    if (event.sent_count > 0) {
      const Json patch = {{"count", event.count}, {"lastTimestamp", base::rfc3339(event.last)}};
      const absl::Status status =
          client.patch(context, kEvents, {name_space, event.name}, PatchType::kMerge, patch, {}).status();
      // Events live for an hour; this one was removed before: make it anew.
      if (!absl::IsNotFound(status)) return status;
    }
    const absl::Status status = client.create(context, kEvents, name_space, body_of(event)).status();
    return absl::IsAlreadyExists(status) ? absl::OkStatus() : status;  // our own, its answer was lost
  }

  // Sends what `key` has to send, if anything. On the sender's thread only.
  void send(const base::Context& context, const std::string& key) {
    std::unique_lock lock(mutex);
    const auto found = recorded.find(key);
    if (found == recorded.end() || found->second.sent_count == found->second.count) return;
    const auto since = clock.now() - found->second.last_sent;
    if (found->second.sent_count > 0 && since < kPatchEvery && !flushing) {
      queue.add_after(key, kPatchEvery - since);
      return;
    }
    const Recorded event = found->second;
    lock.unlock();
    const absl::Status status = write(context.with_timeout(kSendTimeout), event);
    lock.lock();
    const auto still = recorded.find(key);
    if (still == recorded.end()) return;
    Recorded& now_known = still->second;
    if (status.ok()) {
      metrics().sent.add({type_name(event.type)});
      now_known.sent_count = event.count;
      now_known.last_sent = clock.now();
      now_known.tries = 0;
      queue.forget_failures(key);
      if (now_known.count > event.count) queue.add(key);
      return;
    }
    const bool again =
        absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsResourceExhausted(status);
    if (again && ++now_known.tries < kMaxTries) {
      queue.add_failed(key);
      return;
    }
    // Forbidden, the namespace is gone, we lead no more: an event is not worth more.
    if (!absl::IsCancelled(status)) {
      base::log::debug(context, "event not written",
                       {{"reason", event.reason}, {"object", event.target.name}, {"error", status}});
      metrics().dropped.add({"failed"});
    }
    recorded.erase(still);
  }

  void run(const base::Context& context) {
    while (const std::optional<std::string> key = queue.get()) {
      send(context, *key);
      queue.done(*key);
      sent.notify_all();
    }
  }

  // With the mutex held.
  bool all_sent() const {
    return std::all_of(recorded.begin(), recorded.end(),
                       [](const auto& each) { return each.second.sent_count == each.second.count; });
  }

  Client& client;
  const std::string component;
  const std::string instance;
  const base::Clock& clock;
  WorkQueue queue;
  mutable std::mutex mutex;
  std::condition_variable_any sent;
  std::unordered_map<std::string, Recorded> recorded;
  std::unordered_map<std::string, Tokens> tokens;
  Tokens routine{kRoutineBurst, Time{}};
  std::deque<std::string>
      waiting;  // keys in the order of their first occurrence, those sent meanwhile included
  Time next_prune{};
  int flushing = 0;  // patches do not wait meanwhile
  std::stop_source stop;
  std::jthread sender;
};

EventRecorder::EventRecorder(Client& client, std::string component, std::string instance,
                             const base::Clock& clock)
    : state_(std::make_unique<State>(client, std::move(component), std::move(instance), clock)) {
  State* const state = state_.get();
  state->sender = std::jthread([state] { state->run(base::Context(state->stop.get_token(), state->clock)); });
}

EventRecorder::~EventRecorder() {
  state_->stop.request_stop();
  state_->queue.stop();
}

void EventRecorder::event(const EventTarget& target, EventType type, const std::string& reason,
                          const std::string& message) {
  state_->record(target, type, reason, message);
}

void EventRecorder::flush(const base::Context& context) {
  State& state = *state_;
  std::unique_lock lock(state.mutex);
  ++state.flushing;
  for (const auto& [key, event] : state.recorded) {
    if (event.sent_count < event.count) state.queue.add(key);
  }
  while (context.status().ok() && !state.all_sent()) {
    // Short waits, since the context's clock need not be the one that condition variables know.
    state.sent.wait_for(lock, context.stop(), std::chrono::milliseconds(20),
                        [&] { return state.all_sent(); });
  }
  --state.flushing;
}

}  // namespace collage::kube
