#pragma once

#include <string>

#include "unit/testing/temp_dir.h"

namespace collage::testing {

// A file system of a given type in an image file, mounted over a loop device that only this process sees:
// what a share can do depends on its type. XFS clones files, ext4 does not. Make it on the main thread:
// threads started later see the mount.
class LoopShare {
 public:
  // make: "mkfs.xfs -q -m reflink=1", "mkfs.ext4 -q".
  LoopShare(const std::string& make, int64_t bytes);
  ~LoopShare();
  LoopShare(const LoopShare&) = delete;

  bool mounted() const { return mounted_; }  // false where the process may not mount
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  TempDir directory_;
  std::string path_;
  bool mounted_ = false;
};

}  // namespace collage::testing
