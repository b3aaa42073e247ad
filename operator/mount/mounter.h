#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/context.h"
#include "drivers/access.h"
#include "operator/mount/mount_table.h"

// The kernel's side of a volume: the port that the node's state machine acts through. One mounter for each
// alternative of drivers::Access stands behind it.
//
// Every call is idempotent, ends with its context, and names its volume: a step that the kernel does not let
// end is given up, and until it does end, each further call for that volume answers UNAVAILABLE. Other
// volumes are not affected. Thread safe; calls for one volume must not overlap.
namespace collage::mount {

// A volume made reachable on this node.
struct Reached {
  std::string path;    // "/dev/loop3", or a directory
  std::string number;  // of a device, "7:3" as in the mount table; "" for a directory
  uint64_t file_device =
      0;  // of a loop device's image file: how it is found again, without touching the share
  uint64_t file_inode = 0;
  friend bool operator==(const Reached&, const Reached&) = default;
};

enum class Writing { kAllowed, kReadOnly };

// What is done with a device that is provably blank.
enum class Blank { kFormat, kRefuse };

struct FileSystem {
  std::string type;     // "ext4"; unused for a directory
  std::string options;  // of mount_options()
  Writing writing = Writing::kAllowed;
  Blank blank = Blank::kFormat;
};

enum class Leftover { kKeep, kRemove };  // the directory or file that was mounted on

struct PathInfo {
  enum class Type { kMissing, kDirectory, kFile, kBlock, kOther } type = Type::kMissing;
  std::string number;  // of a block device
  bool read_only = false;
  int64_t total_bytes = 0, used_bytes = 0, available_bytes = 0;  // a block device: its size, 0, 0
  int64_t total_inodes = 0, used_inodes = 0, available_inodes = 0;
};

class Mounter {
 public:
  virtual ~Mounter() = default;

  // Finds or makes the device, or the directory. UNIMPLEMENTED for an access that has no mounter yet.
  virtual absl::StatusOr<Reached> attach(const base::Context& context, const std::string& volume,
                                         const drivers::Access& access, Writing writing) = 0;
  // Mounts at `target`; a device that is provably blank is formatted first (or refused), one that holds
  // anything but a file system of this type is refused (FAILED_PRECONDITION). Mounted there already: OK.
  // Something else is: FAILED_PRECONDITION.
  virtual absl::Status mount(const base::Context& context, const std::string& volume, const Reached& reached,
                             const FileSystem& file_system, const std::string& target) = 0;
  // Shows a staged directory, or a block device, at one more path. The target is created; it must not be a
  // mount point.
  virtual absl::Status bind(const base::Context& context, const std::string& volume,
                            const std::string& source, const std::string& target, Writing writing) = 0;
  // Not mounted, not there: OK. FAILED_PRECONDITION while a process uses it.
  virtual absl::Status unmount(const base::Context& context, const std::string& volume,
                               const std::string& target, Leftover leftover) = 0;
  // The reverse of attach. `reached` may be empty (what attach() answered was lost in a crash), or only the
  // device of a LoopFile without a path (the journal was lost). Not attached: OK.
  virtual absl::Status detach(const base::Context& context, const std::string& volume,
                              const drivers::Access& access, const Reached& reached) = 0;
  virtual absl::StatusOr<PathInfo> inspect(const base::Context& context, const std::string& volume,
                                           const std::string& path) = 0;
  virtual absl::StatusOr<MountTable> table() = 0;
  // Until a mount was made or undone by anybody since the last call, or the context ends. One caller.
  virtual void wait_for_change(const base::Context& context) = 0;
};

// Acts through the helper program (collage-mount). `lock_directory` (created) holds one lock file a volume.
absl::StatusOr<std::unique_ptr<Mounter>> make_kernel_mounter(const std::string& helper,
                                                             const std::string& lock_directory);

}  // namespace collage::mount
