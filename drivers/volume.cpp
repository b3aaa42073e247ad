#include "drivers/volume.h"

#include "absl/strings/str_cat.h"

namespace collage::drivers {

std::string volume_handle(std::string_view backend, std::string_view id) {
  return std::string(backend) + "/" + std::string(id);
}

absl::StatusOr<Handle> parse_handle(std::string_view handle) {
  const size_t slash = handle.find('/');
  if (slash == 0 || slash == std::string_view::npos || slash + 1 == handle.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "volume handle \"", std::string(handle), "\": must be <backend>/<provider id>, such as fast/vol-1"));
  }
  return Handle{std::string(handle.substr(0, slash)), std::string(handle.substr(slash + 1))};
}

}  // namespace collage::drivers
