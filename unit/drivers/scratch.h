#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "unit/testing/temp_dir.h"

namespace collage::testing {

// Gives the process mounts of its own, once. False where that is not permitted.
bool own_mounts();

// An empty file system of a given size, in memory, that only this process sees: what fills or refuses it is
// the test alone. Where the process may not mount, the directory is an ordinary temporary one and mounted()
// is false. Make it on the main thread: threads started later see the mount.
class Scratch {
 public:
  explicit Scratch(int64_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  bool mounted() const { return mounted_; }
  // From now on, or no more, the file system refuses every change.
  bool set_read_only(bool read_only);

 private:
  TempDir directory_;
  std::string path_;
  bool mounted_ = false;
};

}  // namespace collage::testing
