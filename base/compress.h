#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace collage::base {

// As quickly as zlib can (RFC 1950).
std::string compress(std::string_view data);

// INVALID_ARGUMENT when it is not what compress() makes; RESOURCE_EXHAUSTED when it would be longer than
// `limit` bytes.
absl::StatusOr<std::string> decompress(std::string_view compressed, size_t limit);

}  // namespace collage::base
