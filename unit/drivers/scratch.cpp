#include "unit/drivers/scratch.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <string>

namespace collage::testing {

bool own_mounts() {
  static const bool done =
      unshare(CLONE_NEWNS) == 0 && mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  return done;
}

Scratch::Scratch(int64_t bytes) : path_(directory_.path() + "/store") {
  mkdir(path_.c_str(), 0700);
  const std::string options = "mode=0700,size=" + std::to_string(bytes);
  mounted_ = own_mounts() && mount("scratch", path_.c_str(), "tmpfs", 0, options.c_str()) == 0;
}

Scratch::~Scratch() {
  if (mounted_) umount2(path_.c_str(), MNT_DETACH);
}

bool Scratch::set_read_only(bool read_only) {
  return mounted_ &&
         mount("scratch", path_.c_str(), "tmpfs", MS_REMOUNT | (read_only ? MS_RDONLY : 0), nullptr) == 0;
}

}  // namespace collage::testing
