#include "operator/kube/list_parser.h"

#include <nlohmann/json.hpp>

#include "base/strings.h"
#include "operator/kube/answer.h"
#include "operator/kube/managed_fields.h"

namespace collage::kube::detail {
namespace {

using base::Json;

constexpr size_t kMaxLine = 64 << 20;
constexpr int kMaxDepth = 200;  // as base::parse_json: values are destroyed, copied and printed recursively

// Depths as the parser counts them: keys of the list itself are at 1, an item is an object at 2, its keys are
// at 3.
class ListReader {
 public:
  explicit ListReader(const std::function<absl::Status(Json&)>& on_item) : on_item_(on_item) {}

  // False discards what was parsed.
  bool on_event(int depth, Json::parse_event_t event, Json& parsed) {
    switch (event) {
      case Json::parse_event_t::object_start:
      case Json::parse_event_t::array_start:
        if (depth < kMaxDepth) return true;
        if (status_.ok())
          status_ = absl::UnavailableError(base::cat("the list is nested deeper than ", kMaxDepth));
        return false;
      case Json::parse_event_t::key:
        if (depth == 1) in_items_ = parsed == "items";
        if (depth == 3) in_metadata_ = in_items_ && parsed == "metadata";
        return !(depth == 4 && in_metadata_ && parsed == "managedFields");
      case Json::parse_event_t::object_end:
        if (depth != 2 || !in_items_) return true;
        if (status_.ok()) status_ = on_item_(parsed);
        return false;
      default:
        return true;
    }
  }
  const absl::Status& status() const { return status_; }

 private:
  const std::function<absl::Status(Json&)>& on_item_;
  absl::Status status_;
  bool in_items_ = false;
  bool in_metadata_ = false;
};

}  // namespace

absl::StatusOr<ListPage> parse_list(std::string_view body,
                                    const std::function<absl::Status(Json&)>& on_item) {
  ListReader reader(on_item);
  Json list;
  try {
    list = Json::parse(body, [&](int depth, Json::parse_event_t event, Json& parsed) {
      return reader.on_event(depth, event, parsed);
    });
  } catch (const Json::exception& error) {
    // Cut short on its way; whoever asked reads the page again.
    return absl::UnavailableError(base::cat("the list is ", base::not_json(error)));
  }
  if (!reader.status().ok()) return reader.status();
  if (!list.is_object()) return absl::UnavailableError("the list is not a JSON object");
  return ListPage{base::get_string(list, "/metadata/resourceVersion"),
                  base::get_string(list, "/metadata/continue")};
}

absl::Status LineSplitter::add(std::string_view chunk,
                               const std::function<absl::Status(std::string_view)>& on_line) {
  while (!chunk.empty()) {
    const size_t end = chunk.find('\n');
    if (end == std::string_view::npos) {
      if (partial_.size() + chunk.size() > kMaxLine)
        return absl::ResourceExhaustedError("a line of the watch is too long");
      partial_.append(chunk);
      return absl::OkStatus();
    }
    std::string_view line = chunk.substr(0, end);
    std::string whole;
    if (!partial_.empty()) {
      whole = std::move(partial_);
      partial_.clear();
      whole.append(line);
      line = whole;
    }
    chunk.remove_prefix(end + 1);
    if (line.empty()) continue;
    if (absl::Status status = on_line(line); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<Json> parse_event(std::string_view line) {
  absl::StatusOr<Json> event = base::parse_json(without_managed_fields(line));
  if (!event.ok()) return absl::UnavailableError(base::cat("an event is ", event.status().message()));
  const Json* object = base::find(*event, "/object");
  if (object == nullptr || !object->is_object()) return absl::UnavailableError("an event without an object");
  return event;
}

absl::Status hand_over(Json& event, const std::function<absl::Status(const WatchEvent&)>& on_event) {
  const std::string type = base::get_string(event, "/type");
  Json& object = event["object"];
  if (type == "ERROR") {
    return status_of_object(object, static_cast<int>(base::get_int(object, "/code", 500)));
  }
  if (type == "ADDED") return on_event({WatchEvent::Type::kAdded, &object});
  if (type == "MODIFIED") return on_event({WatchEvent::Type::kModified, &object});
  if (type == "DELETED") return on_event({WatchEvent::Type::kDeleted, &object});
  if (type == "BOOKMARK") return on_event({WatchEvent::Type::kBookmark, &object});
  return absl::OkStatus();
}

}  // namespace collage::kube::detail
