#include "unit/drivers/loop_share.h"

#include <sys/mount.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "unit/drivers/scratch.h"

namespace collage::testing {

LoopShare::LoopShare(const std::string& make, int64_t bytes) : path_(directory_.path() + "/mnt") {
  const std::string image = directory_.path() + "/disk";
  mkdir(path_.c_str(), 0700);
  std::ofstream(image).close();
  std::filesystem::resize_file(image, static_cast<uintmax_t>(bytes));
  mounted_ = own_mounts() && std::system((make + " " + image + " >/dev/null").c_str()) == 0 &&
             std::system(("mount -o loop " + image + " " + path_).c_str()) == 0;
}

LoopShare::~LoopShare() {
  if (mounted_) umount2(path_.c_str(), MNT_DETACH);
}

}  // namespace collage::testing
