#include "drivers/local/loop_use.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/files.h"
#include "drivers/store/image_store.h"

namespace collage::drivers {

namespace {

// Whether `device` is known to be backed by another file than `image`.
bool backed_by_another(const std::string& device, const std::string& image) {
  struct stat file {};
  loop_info64 info{};
  base::UniqueFd fd(open(device.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd || ioctl(fd.get(), LOOP_GET_STATUS64, &info) != 0 || stat(image.c_str(), &file) != 0) return false;
  return info.lo_inode != file.st_ino || info.lo_device != file.st_dev;
}

}  // namespace

std::string loop_device_of(const std::string& volume_directory, const LoopPaths& paths) {
  const std::string name = volume_directory.substr(volume_directory.rfind('/'));  // "/pvc-1"
  const auto devices = base::list_directory(paths.block);
  if (!devices.ok()) return "";
  for (const std::string& device : *devices) {
    if (!absl::StartsWith(device, "loop")) continue;
    // Only a device that is set up has this file.
    const auto text = base::read_file(absl::StrCat(paths.block, "/", device, "/loop/backing_file"));
    if (!text.ok()) continue;
    const absl::string_view backing = absl::StripSuffix(*text, "\n");
    const size_t slash = backing.rfind('/');
    if (slash == absl::string_view::npos || !generation_of(backing.substr(slash + 1), "image.").has_value())
      continue;
    const absl::string_view directory = backing.substr(0, slash);
    if (!absl::EndsWith(directory, name)) continue;
    const std::string node = absl::StrCat(paths.dev, "/", device);
    const std::string image = absl::StrCat(volume_directory, backing.substr(slash));
    if (directory == volume_directory || !backed_by_another(node, image)) return node;
  }
  return "";
}

}  // namespace collage::drivers
