#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "base/json.h"

namespace collage::drivers {

// Reads the spec's block {"directory": "/srv/share"} of kind `kind`, without I/O, and answers the directory:
// an absolute path in its one normal form. INVALID_ARGUMENT "spec.<kind>.<field>: <problem>, such as
// <example>".
absl::StatusOr<std::string> directory_of_block(const std::string& kind, const std::string& example,
                                               const base::Json& block);

}  // namespace collage::drivers
