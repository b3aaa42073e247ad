#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace collage::mount {

// The options of a class (its mountOptions) as one string for mount(2). Words for mount(8) alone are left out
// (_netdev, nofail, x-...). INVALID_ARGUMENT, naming it, for an option that would make another kind of mount
// than the one asked for: bind, remount, loop, offset and the like. xfs always gets nouuid, since a clone of
// a volume has the uuid of its source.
absl::StatusOr<std::string> mount_options(const std::string& fs_type, const std::vector<std::string>& flags);

}  // namespace collage::mount
