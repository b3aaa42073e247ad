#include <nlohmann/json.hpp>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "base/strings.h"
#include "unit/testing/fake_api_state.h"
#include "unit/testing/fake_selector.h"

// Watches of FakeApiServer.
namespace collage::testing {
namespace {

using base::Json;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLookAtPeer{50};

std::string parameter(const ApiRequest& request, const std::string& name) {
  const auto found = request.query.find(name);
  return found == request.query.end() ? "" : found->second;
}

bool selected(const ApiRequest& request, const FakeStore::Object& object) {
  if (!object) return false;
  if (!request.name_space.empty() && base::get_string(*object, "/metadata/namespace") != request.name_space)
    return false;
  return matches_labels(*object, parameter(request, "labelSelector")) &&
         matches_fields(*object, parameter(request, "fieldSelector"));
}

}  // namespace

struct FakeApiServer::State::Watching {
  Exchange& exchange;
  Fault::Kind fault;      // kHalfBody, kHalfJson: the first event is cut in half
  uint64_t revision = 0;  // everything up to here was sent

  bool send(const char* type, const Json& object) {
    const std::string line = base::dump_json({{"type", type}, {"object", object}}) + "\n";
    if (fault == Fault::Kind::kHalfJson) {
      fault = Fault::Kind::kNone;
      return exchange.write(line.substr(0, line.size() / 2) + "\n");
    }
    if (fault != Fault::Kind::kHalfBody) return exchange.write(line);
    exchange.write(line.substr(0, line.size() / 2));
    exchange.drop();
    return false;
  }

  bool bookmark(const FakeStore::Kind& kind) {
    return send(
        "BOOKMARK",
        {{"kind", kind.kind},
         {"apiVersion", kind.api_version()},
         {"metadata", {{"resourceVersion", std::to_string(revision)}, {"creationTimestamp", nullptr}}}});
  }
};

bool FakeApiServer::State::send_initial(Watching& watching, const ApiRequest& request,
                                        const FakeStore::Kind& kind) {
  for (const FakeStore::Object& object : store.list(kind, request.name_space, &watching.revision)) {
    if (selected(request, object) && !watching.send("ADDED", *object)) return false;
  }
  return true;
}

// An object that begins or ceases to match the selectors is added or deleted for this watch.
bool FakeApiServer::State::send_changes(Watching& watching, const ApiRequest& request,
                                        const FakeStore::Kind& kind) {
  const uint64_t now = store.revision();
  const auto changes = store.changes_since(kind, watching.revision);
  if (!changes) {
    watching.send(
        "ERROR",
        FakeStore::error(410, "Expired", base::cat("too old resource version: ", watching.revision)).body);
    return false;
  }
  for (const FakeStore::Change& change : *changes) {
    const bool before = selected(request, change.before);
    const bool after = change.type != "DELETED" && selected(request, change.object);
    const char* type = before && after ? "MODIFIED" : after ? "ADDED" : before ? "DELETED" : nullptr;
    if (type != nullptr && !watching.send(type, *change.object)) return false;
    watching.revision = change.revision;
  }
  watching.revision = std::max(watching.revision, now);
  return true;
}

void FakeApiServer::State::watch(const ApiRequest& request, const FakeStore::Kind& kind, const Fault& fault,
                                 Exchange& exchange) {
  const uint64_t end_at = end_epoch, break_at = break_epoch, stall_at = stall_epoch;
  uint64_t bookmark_at = bookmark_epoch;
  {
    std::lock_guard lock(mutex);
    ++watches[kind.plural];
  }
  const auto leave = absl::MakeCleanup([&] {
    std::lock_guard lock(mutex);
    --watches[kind.plural];
  });
  Watching watching{exchange, fault.kind};
  const std::string from = parameter(request, "resourceVersion");
  const bool from_now = from.empty() || from == "0";
  if (!from_now && !absl::SimpleAtoi(from, &watching.revision)) {
    // 500 is what the real one answers.
    const FakeStore::Answer refusal =
        FakeStore::error(500, "InternalError", "resourceVersion: Invalid value: \"" + from + "\"");
    return exchange.answer(refusal.status, {{"Content-Type", "application/json"}},
                           base::dump_json(refusal.body));
  }
  exchange.begin_stream(200, {{"Content-Type", "application/json"}});
  if (from_now && !send_initial(watching, request, kind)) return;
  uint64_t timeout = 1800;
  (void)absl::SimpleAtoi(parameter(request, "timeoutSeconds"), &timeout);
  const auto end = Clock::now() + std::chrono::seconds(timeout);
  const bool bookmarks = parameter(request, "allowWatchBookmarks") == "true";
  auto last_bookmark = Clock::now();
  while (!stopping && Clock::now() < end && end_epoch == end_at && !exchange.dropped() &&
         !exchange.peer_gone()) {
    if (break_epoch != break_at) return exchange.drop();
    const uint64_t seen = store.revision();
    if (!silent && stall_epoch == stall_at) {
      if (!send_changes(watching, request, kind)) break;
      const bool due = Clock::now() - last_bookmark >= std::chrono::milliseconds(bookmark_ms) ||
                       bookmark_epoch != bookmark_at;
      if (bookmarks && due) {
        bookmark_at = bookmark_epoch;
        last_bookmark = Clock::now();
        if (!watching.bookmark(kind)) break;
      }
    }
    // With silence the revision may be ahead of what was sent: it is looked at again with the next wake() or
    // tick.
    store.wait_beyond(
        seen, std::min<std::chrono::milliseconds>(kLookAtPeer, std::chrono::milliseconds(bookmark_ms)));
  }
  if (!exchange.dropped()) exchange.end_stream();
}

}  // namespace collage::testing
