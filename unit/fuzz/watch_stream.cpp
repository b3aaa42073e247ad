#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "operator/kube/list_parser.h"
#include "operator/kube/objects.h"
#include "unit/fuzz/targets.h"

namespace collage::fuzz {
namespace {

using base::Json;
using kube::detail::LineSplitter;

// What an informer does with an object, for each sort of object.
void read_object(const Json& object) {
  (void)kube::parse<kube::Claim>(object);
  (void)kube::parse<kube::Volume>(object);
  (void)kube::parse<kube::Attachment>(object);
  (void)kube::parse<kube::StorageClass>(object);
  (void)kube::parse<kube::CsiNode>(object);
  (void)kube::parse<kube::Node>(object);
  (void)kube::parse<kube::BackendObject>(object);
  (void)kube::parse<kube::StorageNodeObject>(object);
  require(base::parse_json(base::dump_json(object)).ok(),
          "an object that was read can be written and read again");
}

absl::Status read_line(std::string_view line) {
  absl::StatusOr<Json> event = kube::detail::parse_event(line);
  if (!event.ok()) return event.status();
  return kube::detail::hand_over(*event, [](const kube::WatchEvent& seen) {
    read_object(*seen.object);
    return absl::OkStatus();
  });
}

std::vector<std::string> lines_of(std::string_view stream, size_t piece) {
  LineSplitter splitter;
  std::vector<std::string> lines;
  for (size_t at = 0; at < stream.size(); at += piece) {
    const absl::Status status = splitter.add(stream.substr(at, piece), [&](std::string_view line) {
      lines.emplace_back(line);
      return absl::OkStatus();
    });
    require(status.ok(), "short lines are never refused");
  }
  require(splitter.inside_line() == (!stream.empty() && stream.back() != '\n'), "the end of a line is known");
  return lines;
}

}  // namespace

void watch_stream(std::string_view input) {
  if (input.empty()) return;
  const size_t piece = 1 + static_cast<unsigned char>(input.front());
  const std::string_view stream = input.substr(1);
  const std::vector<std::string> lines = lines_of(stream, piece);
  require(lines == lines_of(stream, std::max<size_t>(1, stream.size())), "lines do not depend on the pieces");
  for (const std::string& line : lines) {
    if (!read_line(line).ok()) break;  // the stream is of no more use
  }
  (void)kube::detail::parse_list(stream, [](Json& item) {
    read_object(item);
    return absl::OkStatus();
  });
}

}  // namespace collage::fuzz
