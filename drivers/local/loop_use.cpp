#include "drivers/local/loop_use.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/files.h"

namespace collage::drivers {

std::string loop_device_below(const std::string& directory, const std::string& sysfs) {
  const std::string prefix = absl::StrCat(directory, "/");
  const auto devices = base::list_directory(absl::StrCat(sysfs, "/block"));
  if (!devices.ok()) return "";
  for (const std::string& device : *devices) {
    if (!absl::StartsWith(device, "loop")) continue;
    // Only a device that is set up has this file.
    const auto backing = base::read_file(absl::StrCat(sysfs, "/block/", device, "/loop/backing_file"));
    if (backing.ok() && absl::StartsWith(*backing, prefix)) return absl::StrCat("/dev/", device);
  }
  return "";
}

}  // namespace collage::drivers
