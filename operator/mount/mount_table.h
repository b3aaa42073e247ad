#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace collage::mount {

// One line of /proc/self/mountinfo (proc(5)).
struct MountEntry {
  std::string mount_point;
  std::string root;    // what of the file system is mounted: "/" or, of a bind mount, a path within it
  std::string device;  // "7:3"
  std::string fs_type;
  std::string source;      // "/dev/loop3"
  bool read_only = false;  // of this mount
  bool super_read_only =
      false;  // of the whole file system: asked for, or forced by the kernel after an error
  friend bool operator==(const MountEntry&, const MountEntry&) = default;
};

// A loop device that is set up, as /sys/block/loop3/loop/backing_file shows it.
struct LoopEntry {
  std::string device;  // "/dev/loop3"
  std::string file;    // of its image, as some mount namespace names it; only the last two parts are certain
  friend bool operator==(const LoopEntry&, const LoopEntry&) = default;
};

// The mounts of this process's namespace, in the order in which they were made, and the loop devices of the
// machine. A value.
class MountTable {
 public:
  MountTable() = default;
  explicit MountTable(std::vector<MountEntry> entries, std::vector<LoopEntry> loops = {})
      : entries_(std::move(entries)), loops_(std::move(loops)) {}

  const std::vector<MountEntry>& entries() const { return entries_; }
  const std::vector<LoopEntry>& loops() const { return loops_; }
  // The topmost mount at exactly this path; nullptr when it is no mount point.
  const MountEntry* at(std::string_view path) const;
  // Whether this loop device has that image file, by the last two parts of its path.
  bool backs(std::string_view device, std::string_view file) const;
  // The loop devices of images that lie in a directory of this name: a volume's (drivers::LoopFile).
  std::vector<std::string> loops_in(std::string_view directory_name) const;

 private:
  std::vector<MountEntry> entries_;
  std::vector<LoopEntry> loops_;
};

// Lines that are not of the form are left out.
MountTable parse_mount_table(std::string_view mountinfo);
// Reading the table touches no mount and no image, so it never hangs.
absl::StatusOr<MountTable> read_mount_table();
// `block`: /sys/block.
std::vector<LoopEntry> read_loops(const std::string& block);

// The parent directory resolved, the last component as it is: the form in which the mount table shows a mount
// point. The path itself is not touched. A parent that does not exist leaves the path as it is.
std::string canonical_mount_point(const std::string& path);

}  // namespace collage::mount
