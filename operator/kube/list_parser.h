#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/json.h"
#include "operator/kube/client.h"

// The two shapes in which the API server sends many objects: the pages of a list, and the lines of a watch.
// Whatever the bytes are, the answer is a status. Inside operator/kube only.
namespace collage::kube::detail {

struct ListPage {
  std::string resource_version;
  std::string continue_token;  // "" for the last page
};

// Hands over each element of "items" as soon as it is parsed, and drops it: the DOM of a whole page is never
// built. metadata.managedFields, the bulk of many objects, is left out. on_item's first error ends it and is
// answered.
absl::StatusOr<ListPage> parse_list(std::string_view body,
                                    const std::function<absl::Status(base::Json&)>& on_item);

// Puts the lines of a stream together from its chunks.
class LineSplitter {
 public:
  // Calls on_line for each line that is complete now, without its end; empty lines are left out. The
  // callback's error ends it. RESOURCE_EXHAUSTED for a line beyond 64 MiB.
  absl::Status add(std::string_view chunk, const std::function<absl::Status(std::string_view)>& on_line);
  bool inside_line() const { return !partial_.empty(); }

 private:
  std::string partial_;
};

// A line of a watch, {"type":"ADDED","object":{...}}. UNAVAILABLE when it is none: the stream is of no more
// use.
absl::StatusOr<base::Json> parse_event(std::string_view line);
// Hands over what it tells, without metadata.managedFields. The code of an ERROR event, the callback's error,
// or OK; a type of a later version of the protocol is passed over.
absl::Status hand_over(base::Json& event, const std::function<absl::Status(const WatchEvent&)>& on_event);

}  // namespace collage::kube::detail
