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

// The mounts of this process's namespace, in the order in which they were made. A value.
class MountTable {
 public:
  MountTable() = default;
  explicit MountTable(std::vector<MountEntry> entries) : entries_(std::move(entries)) {}

  const std::vector<MountEntry>& entries() const { return entries_; }
  // The topmost mount at exactly this path; nullptr when it is no mount point.
  const MountEntry* at(std::string_view path) const;

 private:
  std::vector<MountEntry> entries_;
};

// Lines that are not of the form are left out.
MountTable parse_mount_table(std::string_view mountinfo);
// Reading the table touches no mount, so it never hangs.
absl::StatusOr<MountTable> read_mount_table();

// The parent directory resolved, the last component as it is: the form in which the mount table shows a mount
// point. The path itself is not touched. A parent that does not exist leaves the path as it is.
std::string canonical_mount_point(const std::string& path);

}  // namespace collage::mount
