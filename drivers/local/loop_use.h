#pragma once

#include <string>

namespace collage::drivers {

// Where loop devices show themselves: /sys/block and /dev.
struct LoopPaths {
  std::string block = "/sys/block";
  std::string dev = "/dev";
};

// The loop device of this machine that an image of the volume in `volume_directory` backs ("/dev/loop3"), ""
// when none does. The path that the kernel shows is the one of the mount namespace that set the device up,
// and loses its first part when that namespace is gone (an agent that was started anew): then the file itself
// is compared, and when that cannot be done the device counts as using it. Reads only.
std::string loop_device_of(const std::string& volume_directory, const LoopPaths& paths = {});

}  // namespace collage::drivers
