#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/json.h"

namespace collage::base {

// Every document of a YAML text as JSON, by the YAML 1.1 core rules that Kubernetes' tools follow: a quoted
// scalar stays a string; plain yes/no/on/off/true/false are booleans; null, ~ and empty are null; decimal, 0x
// and 0o integers and floats are numbers. Refused with INVALID_ARGUMENT and "line L, column C": duplicate
// keys, keys that are not scalars, unknown tags, aliases that expand beyond 1 MiB. Empty documents are
// skipped.
absl::StatusOr<std::vector<Json>> yaml_to_json(std::string_view text);

}  // namespace collage::base
