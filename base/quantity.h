#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace collage::base {

// A Kubernetes resource.Quantity as bytes: "10Gi", "1.5G", "1e3", "500m" (rounded up to a whole byte), "-1".
// INVALID_ARGUMENT when it is not a quantity, OUT_OF_RANGE when beyond int64.
absl::StatusOr<int64_t> parse_quantity(std::string_view text);
// The canonical shortest binary form: 1073741824 -> "1Gi", 1000 -> "1000", 1536 -> "1536", 1048576 -> "1Mi".
std::string format_quantity(int64_t bytes);
// For messages: "1.5 GiB".
std::string human_bytes(int64_t bytes);

}  // namespace collage::base
