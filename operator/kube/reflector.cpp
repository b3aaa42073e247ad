#include <malloc.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/retry.h"
#include "base/strings.h"
#include "operator/kube/answer.h"
#include "operator/kube/informer.h"

namespace collage::kube {
namespace {

// A stream that ends sooner than this is followed by a pause, so that a server that closes at once is not
// called in a loop.
constexpr std::chrono::seconds kShortWatch{1};
// So many answers of the kind 5xx in a row to the same resume point, and it is taken for the cause.
constexpr int kMaxRefusals = 5;
constexpr size_t kMany = 1000;  // objects of a list

struct ReflectorMetrics {
  base::Counter lists{"collage_informer_lists_total", "Whole lists read by an informer.", {"resource"}};
  base::Counter watches{"collage_informer_watches_total", "Watches ended, by how.", {"resource", "end"}};
  base::Gauge objects{"collage_informer_objects", "Objects seen by the last whole list.", {"resource"}};
};

ReflectorMetrics& metrics() {
  static ReflectorMetrics metrics;
  return metrics;
}

enum class State { kEmpty, kWatching, kRelisting };

class Reflector {
 public:
  Reflector(const base::Context& context, Client& client, const Resource& resource,
            const ReflectorOptions& options, ReflectorSink& sink)
      : context_(context.with_field("resource", resource.plural)),
        client_(client),
        resource_(resource),
        options_(options),
        sink_(sink),
        backoff_(options.backoff_initial, options.backoff_max) {
    options_.selector.idle_timeout = options.idle_timeout;
  }

  void run() {
    State state = State::kEmpty;
    while (context_.status().ok()) {
      switch (state) {
        case State::kEmpty:
        case State::kRelisting:
          state = list(state);
          break;
        case State::kWatching:
          state = watch();
          break;
      }
    }
  }

 private:
  // kWatching once the whole list was handed over, else the same state after a pause. A page token that
  // expired half-way is such a failure: the next list begins a new generation, and nothing is deleted by a
  // half one.
  State list(State state) {
    sink_.begin_relist();
    size_t count = 0;
    const auto version = client_.list(context_, resource_, options_.selector, [&](base::Json& object) {
      ++count;
      keep(object);
      return absl::OkStatus();
    });
    if (!version.ok()) {
      pause("list failed", version.status());
      return state;
    }
    version_ = *version;
    refusals_ = 0;
    sink_.position(version_);
    sink_.end_relist();
    // What the parser needed for the pages goes back to the system: the copy itself is small. Looking for it
    // takes time in proportion to all that is free, for a short list more than it gives back.
    if (count >= kMany) malloc_trim(0);
    metrics().lists.add({resource_.plural});
    metrics().objects.set(static_cast<double>(count), {resource_.plural});
    base::log::debug(context_, "listed", {{"objects", count}, {"resource_version", version_}});
    return State::kWatching;
  }

  State watch() {
    const auto began = context_.clock().now();
    received_ = false;
    const absl::Status status = client_.watch(context_, resource_, options_.selector, version_,
                                              [this](const WatchEvent& event) { return handle(event); });
    if (!context_.status().ok()) return State::kWatching;  // run() ends
    metrics().watches.add({resource_.plural, absl::StatusCodeToString(status.code())});
    if (received_) {
      backoff_.reset();
      seldom_.forget();
    }
    refusals_ = !received_ && detail::http_status_of(status) >= 500 ? refusals_ + 1 : 0;
    switch (status.code()) {
      case absl::StatusCode::kOk:
        // The server ends every watch after some minutes.
        if (context_.clock().now() - began < kShortWatch) pause("watch ended at once", status);
        return State::kWatching;
      case absl::StatusCode::kDeadlineExceeded:
        // Silent for too long: perhaps the connection is dead and nobody told us. Nothing is lost by
        // resuming.
        base::log::warning(context_, "watch was silent for too long, resuming",
                           {{"silent_seconds", std::chrono::duration<double>(options_.idle_timeout).count()},
                            {"resource_version", version_}});
        if (context_.clock().now() - began < kShortWatch) pause("watch was silent", status);
        return State::kWatching;
      case absl::StatusCode::kUnavailable:
      case absl::StatusCode::kResourceExhausted:
        pause("watch broke", status);
        return refusals_ < kMaxRefusals ? State::kWatching : State::kRelisting;
      case absl::StatusCode::kOutOfRange:
        // 410: the server's history no longer reaches back to where we were.
        base::log::info(context_, "watch expired, listing again", {{"resource_version", version_}});
        if (!received_) pause("watch expired at once", status);
        return State::kRelisting;
      default:
        // An answer that resuming would only repeat: start over.
        pause("watch failed, listing again", status);
        return State::kRelisting;
    }
  }

  absl::Status handle(const WatchEvent& event) {
    received_ = true;
    const std::string version = base::get_string(*event.object, "/metadata/resourceVersion");
    switch (event.type) {
      case WatchEvent::Type::kAdded:
      case WatchEvent::Type::kModified:
        keep(*event.object);
        break;
      case WatchEvent::Type::kDeleted:
        sink_.remove(*event.object);
        break;
      case WatchEvent::Type::kBookmark:
        sink_.position(version);
        break;
    }
    if (!version.empty()) version_ = version;
    return absl::OkStatus();
  }

  void keep(const base::Json& object) {
    const absl::Status status = sink_.upsert(object);
    if (status.ok()) return;
    base::log::warning(context_, "object skipped",
                       {{"name", base::get_string(object, "/metadata/name")}, {"error", status}});
  }

  void pause(std::string_view what, const absl::Status& status) {
    if (!context_.status().ok()) return;
    const auto delay = backoff_.next();
    // One break is the daily life of a watch; what goes on is a warning.
    const bool tell = seldom_.tell(context_, base::cat(what, absl::StatusCodeToString(status.code())));
    const auto level = !tell                     ? base::log::Level::kDebug
                       : backoff_.failures() > 1 ? base::log::Level::kWarning
                                                 : base::log::Level::kInfo;
    base::log::write(level, context_, what, {{"error", status}, {"retry_ms", delay.count()}});
    (void)context_.sleep_for(delay);
  }

  const base::Context context_;
  Client& client_;
  const Resource& resource_;
  ReflectorOptions options_;
  ReflectorSink& sink_;
  base::Backoff backoff_;
  base::log::Seldom seldom_;
  int refusals_ = 0;       // in a row
  std::string version_;    // where the watch resumes
  bool received_ = false;  // anything, by the present watch
};

}  // namespace

uint64_t version_number(std::string_view resource_version) {
  uint64_t number = 0;
  return absl::SimpleAtoi(base::absl_view(resource_version), &number) ? number : 0;
}

void run_reflector(const base::Context& context, Client& client, const Resource& resource,
                   const ReflectorOptions& options, ReflectorSink& sink) {
  Reflector(context, client, resource, options, sink).run();
}

}  // namespace collage::kube
