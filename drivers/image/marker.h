#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "drivers/store/store_directory.h"

namespace collage::drivers {

// The file that tells a share from the empty directory it is mounted on: one line, the share's id.
inline constexpr char kMarkerFile[] = ".collage-system-id";

// The share's id. NOT_FOUND when there is no marker, DATA_LOSS when it is not an id.
absl::StatusOr<std::string> read_marker(const StoreDirectory& directory);

// Gives the share a new id. Of several nodes that do so at once one wins; each answers the winner's id. Never
// changes a marker.
absl::StatusOr<std::string> make_marker(const StoreDirectory& directory);

}  // namespace collage::drivers
