#pragma once

#include <string>

namespace collage::drivers {

// The loop device of this machine that an image below `directory` backs ("/dev/loop3"), "" when none does.
// `sysfs` is /sys. Reads only; what cannot be read counts as not in use.
std::string loop_device_below(const std::string& directory, const std::string& sysfs);

}  // namespace collage::drivers
