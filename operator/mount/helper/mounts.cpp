// mount, bind and unmount. Nothing is ever mounted over a mount: each looks at the mount table first.
#include <fcntl.h>
#include <libmount/libmount.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "base/status.h"
#include "operator/mount/helper/helper.h"

namespace collage::mount::helper {
namespace {

constexpr int kMostStacked = 16;

struct Options {
  unsigned long flags = 0;
  std::string data;  // what is left for the file system
};

absl::StatusOr<Options> split_options(const std::string& options) {
  Options split;
  if (options.empty()) return split;
  char* vfs = nullptr;
  char* fs = nullptr;
  const int result = mnt_split_optstr(options.c_str(), nullptr, &vfs, &fs, MNT_NOMTAB, 0);
  if (result == 0 && vfs != nullptr)
    mnt_optstr_get_flags(vfs, &split.flags, mnt_get_builtin_optmap(MNT_LINUX_MAP));
  if (result == 0 && fs != nullptr) split.data = fs;
  std::free(vfs);
  std::free(fs);
  if (result != 0) return absl::InvalidArgumentError("mount options \"" + options + "\" cannot be read");
  return split;
}

enum class Shape { kDirectory, kFile };

// Creates what is mounted on, if it is not there. Its parent is the caller's to make.
absl::Status make_target(const std::string& target, Shape shape) {
  struct stat node {};
  if (::lstat(target.c_str(), &node) == 0) {
    const bool fits = shape == Shape::kDirectory ? S_ISDIR(node.st_mode) : S_ISREG(node.st_mode);
    if (fits) return absl::OkStatus();
    return absl::FailedPreconditionError(target + " exists and is not a " +
                                         (shape == Shape::kDirectory ? "directory" : "regular file"));
  }
  if (errno != ENOENT) return errno_status(errno, "stat " + target);
  if (shape == Shape::kDirectory) {
    if (::mkdir(target.c_str(), 0750) == 0) return absl::OkStatus();
  } else {
    const Fd fd(::open(target.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0640));
    if (fd) return absl::OkStatus();
  }
  if (errno == ENOENT)
    return absl::FailedPreconditionError("the parent directory of " + target + " is missing");
  return errno_status(errno, "create " + target);
}

// For kernels before 5.12, and for seccomp filters that do not know the calls: in two steps.
absl::Status bind_in_two_steps(const std::string& source, const std::string& target, bool read_only) {
  if (::mount(source.c_str(), target.c_str(), nullptr, MS_BIND, nullptr) != 0) {
    return errno_status(errno, "bind " + source + " to " + target);
  }
  if (!read_only) return absl::OkStatus();
  struct statvfs now {};
  unsigned long flags = MS_BIND | MS_REMOUNT | MS_RDONLY;
  if (::statvfs(target.c_str(), &now) == 0) {
    flags |= (now.f_flag & ST_NOSUID ? MS_NOSUID : 0) | (now.f_flag & ST_NODEV ? MS_NODEV : 0) |
             (now.f_flag & ST_NOEXEC ? MS_NOEXEC : 0) | (now.f_flag & ST_NOATIME ? MS_NOATIME : 0) |
             (now.f_flag & ST_RELATIME ? MS_RELATIME : 0);
  }
  if (::mount(nullptr, target.c_str(), nullptr, flags, nullptr) == 0) return absl::OkStatus();
  const int error = errno;
  ::umount2(target.c_str(), UMOUNT_NOFOLLOW);
  return errno_status(error, "make " + target + " read-only");
}

// The mount appears at the target read-only from its first instant: no crash leaves a writable one.
absl::Status bind_at_once(const std::string& source, const std::string& target, bool read_only) {
  const Fd tree(
      ::open_tree(AT_FDCWD, source.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW));
  if (!tree) {
    if (errno == ENOSYS || errno == EPERM) return bind_in_two_steps(source, target, read_only);
    return errno_status(errno, "bind " + source);
  }
  if (read_only) {
    struct mount_attr attributes {};
    attributes.attr_set = MOUNT_ATTR_RDONLY;
    if (::mount_setattr(tree.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0) {
      if (errno == ENOSYS || errno == EPERM) return bind_in_two_steps(source, target, read_only);
      return errno_status(errno, "make " + target + " read-only");
    }
  }
  if (::move_mount(tree.get(), "", AT_FDCWD, target.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0) {
    return errno_status(errno, "bind " + source + " to " + target);
  }
  return absl::OkStatus();
}

absl::Status set_device_read_only(const std::string& device, bool read_only) {
  COLLAGE_ASSIGN_OR_RETURN(const Fd fd, open_path(device, O_RDONLY | O_NONBLOCK));
  int now = 0;
  if (::ioctl(fd.get(), BLKROGET, &now) != 0) return errno_status(errno, "look at " + device);
  if ((now != 0) == read_only) return absl::OkStatus();
  const int wanted = read_only ? 1 : 0;
  if (::ioctl(fd.get(), BLKROSET, &wanted) != 0)
    return errno_status(errno, "set " + device + (read_only ? " read-only" : " writable"));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Json> mount_device(const Json& request) {
  COLLAGE_ASSIGN_OR_RETURN(const std::string device, required_text(request, "device"));
  COLLAGE_ASSIGN_OR_RETURN(const std::string path, required_text(request, "target"));
  COLLAGE_ASSIGN_OR_RETURN(const std::string fs_type, required_text(request, "fsType"));
  COLLAGE_ASSIGN_OR_RETURN(Options options, split_options(text(request, "options")));
  if (flag(request, "readOnly")) options.flags |= MS_RDONLY;
  const std::string target = canonical_target(path);
  struct stat node {};
  if (::stat(device.c_str(), &node) != 0) return errno_status(errno, "stat " + device);
  COLLAGE_ASSIGN_OR_RETURN(const MountLookup there, mounted_at(target));
  if (there.found) {
    if (there.mount.device == device_number(node.st_rdev)) return Json{{"already", true}};
    return absl::FailedPreconditionError(target + " is a mount point already, of " + there.mount.source);
  }
  COLLAGE_RETURN_IF_ERROR(make_target(target, Shape::kDirectory));
  if (::mount(device.c_str(), target.c_str(), fs_type.c_str(), options.flags, options.data.c_str()) == 0) {
    return Json{{"already", false}};
  }
  const int error = errno;
  const absl::Status status = errno_status(error, "mount " + device + " (" + fs_type + ") at " + target);
  if (error == EINVAL) {
    return absl::InvalidArgumentError(
        std::string(status.message()) + ": an option of \"" + text(request, "options") +
        "\" is not known, or the file system is damaged; the kernel's log says which");
  }
  return status;
}

absl::StatusOr<Json> bind(const Json& request) {
  COLLAGE_ASSIGN_OR_RETURN(const std::string source, required_text(request, "source"));
  COLLAGE_ASSIGN_OR_RETURN(const std::string path, required_text(request, "target"));
  const bool read_only = flag(request, "readOnly");
  const std::string target = canonical_target(path);
  struct stat node {};
  if (::lstat(source.c_str(), &node) != 0) return errno_status(errno, "stat " + source);
  const bool is_device = S_ISBLK(node.st_mode);
  if (!is_device && !S_ISDIR(node.st_mode))
    return absl::FailedPreconditionError(source + " is neither a directory nor a block device");
  COLLAGE_ASSIGN_OR_RETURN(const MountLookup there, mounted_at(target));
  if (there.found)
    return absl::FailedPreconditionError(target + " is a mount point already, of " + there.mount.source);
  // The flag of a mount does not keep anybody from writing to a device node: the device itself must refuse.
  if (is_device) COLLAGE_RETURN_IF_ERROR(set_device_read_only(source, read_only));
  COLLAGE_RETURN_IF_ERROR(make_target(target, is_device ? Shape::kFile : Shape::kDirectory));
  COLLAGE_RETURN_IF_ERROR(bind_at_once(source, target, read_only && !is_device));
  return Json{{"already", false}};
}

absl::StatusOr<Json> unmount(const Json& request) {
  COLLAGE_ASSIGN_OR_RETURN(const std::string path, required_text(request, "target"));
  const std::string target = canonical_target(path);
  int unmounted = 0;
  for (;; ++unmounted) {
    COLLAGE_ASSIGN_OR_RETURN(const MountLookup there, mounted_at(target));
    if (!there.found) break;
    if (unmounted == kMostStacked)
      return absl::FailedPreconditionError(target + " has more mounts over each other than can be");
    if (::umount2(target.c_str(), UMOUNT_NOFOLLOW) != 0) {
      if (errno == EBUSY)
        return absl::FailedPreconditionError("unmount " + target + ": a process still uses it");
      return errno_status(errno, "unmount " + target);
    }
  }
  if (!flag(request, "remove")) return Json{{"unmounted", unmounted}};
  struct stat node {};
  if (::lstat(target.c_str(), &node) != 0) {
    if (errno == ENOENT) return Json{{"unmounted", unmounted}};
    return errno_status(errno, "stat " + target);
  }
  // Only what make_target() could have made: an empty directory or an empty file.
  if (S_ISDIR(node.st_mode)) {
    if (::rmdir(target.c_str()) != 0) return errno_status(errno, "remove " + target);
  } else if (S_ISREG(node.st_mode) && node.st_size == 0) {
    if (::unlink(target.c_str()) != 0) return errno_status(errno, "remove " + target);
  } else {
    return absl::FailedPreconditionError("remove " + target + ": it is not an empty file or directory");
  }
  return Json{{"unmounted", unmounted}};
}

}  // namespace collage::mount::helper
