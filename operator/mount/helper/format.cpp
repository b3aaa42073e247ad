// The mkfs guard: the only place of the program that can format, and only what was proved blank in the same
// run.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/status.h"
#include "operator/mount/helper/content.h"
#include "operator/mount/helper/helper.h"

namespace collage::mount::helper {
namespace {

constexpr uint64_t kXfsMinimum = 300ull << 20;  // what mkfs.xfs asks for

struct Target {
  std::string device, volume, fs_type, uuid;
  uint64_t size = 0;
};

std::string name_of(const Target& target) {
  return target.device + " (volume " + target.volume + ")";
}

absl::Status run(const std::vector<std::string>& arguments, const Target& target) {
  COLLAGE_ASSIGN_OR_RETURN(const ProgramResult result, run_program(arguments));
  if (result.exit_code == 0) return absl::OkStatus();
  return absl::InternalError("format " + name_of(target) + ": " + arguments[0] + " ended with " +
                             std::to_string(result.exit_code) + ": " + result.output);
}

absl::StatusOr<Fd> open_exclusive(const Target& target, int flags) {
  absl::StatusOr<Fd> fd = open_path(target.device, flags | O_EXCL);
  if (!fd.ok() && fd.status().code() == absl::StatusCode::kFailedPrecondition) {
    return absl::FailedPreconditionError(name_of(target) + " is in use: mounted, or held by another program");
  }
  return fd;
}

absl::Status make_ext4(const Target& target) {
  {
    COLLAGE_ASSIGN_OR_RETURN(const Fd fd, open_exclusive(target, O_RDWR));
    COLLAGE_RETURN_IF_ERROR(write_mark(fd.get(), target.device, target.size, target.uuid));
  }
  COLLAGE_RETURN_IF_ERROR(run({"mkfs.ext4", "-q", "-F", "-m", "0", "-U", target.uuid, "-E", "nodiscard",
                               target.device, std::to_string((target.size - kMarkRoom) / 1024) + "k"},
                              target));
  COLLAGE_ASSIGN_OR_RETURN(const Fd fd, open_exclusive(target, O_RDWR));
  if (::fsync(fd.get()) != 0) return errno_status(errno, "flush " + target.device);
  return clear_mark(fd.get(), target.device, target.size);
}

absl::Status make_xfs(const Target& target) {
  if (target.size < kXfsMinimum) {
    return absl::FailedPreconditionError(
        "format " + name_of(target) + ": xfs needs at least 300 MiB and it has " +
        std::to_string(target.size >> 20) + ": make the claim larger or use fsType ext4");
  }
  return run({"mkfs.xfs", "-q", "-K", "-f", "-m", "uuid=" + target.uuid, target.device}, target);
}

// A file system with the error flag set was found damaged by the kernel: repaired if that is safe, else left
// to a person. A journal that is not empty needs nothing: the kernel replays it.
absl::Status mend_ext4(int fd, const Target& target) {
  unsigned char state[2];  // s_state, 0x3a into the superblock at 1024
  if (::pread(fd, state, sizeof state, 1024 + 0x3a) != sizeof state)
    return errno_status(errno, "read " + target.device);
  constexpr unsigned kErrors = 2;
  if ((state[0] & kErrors) == 0) return absl::OkStatus();
  COLLAGE_ASSIGN_OR_RETURN(const ProgramResult result, run_program({"e2fsck", "-p", target.device}));
  if (result.exit_code <= 1) return absl::OkStatus();
  return absl::FailedPreconditionError("the file system on " + name_of(target) +
                                       " has errors that need a person; run e2fsck on it: " + result.output);
}

absl::Status refuse(const Target& target, const Content& content) {
  if (content.holds == Holds::kFileSystem) {
    return absl::FailedPreconditionError(name_of(target) + " holds a file system of type " + content.type +
                                         ", not " + target.fs_type + ": set fsType to " + content.type +
                                         ", or, if its data is not needed, zero all of it (blkdiscard -z)");
  }
  return absl::FailedPreconditionError(
      name_of(target) + " is not blank, it holds " + content.type +
      ": it is never formatted; if its data is not needed, zero all of it (blkdiscard -z)");
}

}  // namespace

absl::StatusOr<Json> format(const Json& request) {
  Target target;
  COLLAGE_ASSIGN_OR_RETURN(target.device, required_text(request, "device"));
  COLLAGE_ASSIGN_OR_RETURN(target.fs_type, required_text(request, "fsType"));
  COLLAGE_ASSIGN_OR_RETURN(target.uuid, required_text(request, "uuid"));
  target.volume = text(request, "volume");
  if (target.fs_type != "ext4" && target.fs_type != "xfs") {
    return absl::InvalidArgumentError("fsType: " + target.fs_type +
                                      " cannot be made here, only ext4 and xfs");
  }
  const bool read_only = flag(request, "readOnly");
  absl::StatusOr<Content> content = Content{};
  {
    absl::StatusOr<Fd> opened = open_exclusive(target, read_only ? O_RDONLY : O_RDWR);
    // Held by the file system itself, which a pod's mount keeps alive where we do not see it: mount(2) finds
    // that very one, or refuses.
    if (!opened.ok() && opened.status().code() == absl::StatusCode::kFailedPrecondition &&
        flag(request, "refuseBlank"))
      return Json{{"formatted", false}};
    if (!opened.ok()) return opened.status();
    const Fd fd = *std::move(opened);
    if (::ioctl(fd.get(), BLKGETSIZE64, &target.size) != 0)
      return errno_status(errno, "size of " + target.device);
    content = read_content(fd.get(), target.device, target.size, target.uuid);
    if (!content.ok()) return content.status();
    if (content->holds == Holds::kFileSystem && content->type == target.fs_type) {
      if (read_only || target.fs_type != "ext4") return Json{{"formatted", false}};
      // e2fsck wants the device for itself.
    } else if (content->holds == Holds::kFileSystem || content->holds == Holds::kOther) {
      return refuse(target, *content);
    } else if (flag(request, "refuseBlank")) {
      return absl::FailedPreconditionError(
          name_of(target) +
          " is blank and was not before: its data is lost, or it is another device; it is not formatted. "
          "Restore it, or delete the pod to begin with an empty volume");
    } else if (read_only) {
      return absl::FailedPreconditionError(name_of(target) +
                                           " is blank and wanted read-only: it cannot be formatted");
    }
  }
  if (content->holds == Holds::kFileSystem) {
    COLLAGE_ASSIGN_OR_RETURN(const Fd fd, open_path(target.device, O_RDONLY));
    COLLAGE_RETURN_IF_ERROR(mend_ext4(fd.get(), target));
    return Json{{"formatted", false}};
  }
  COLLAGE_RETURN_IF_ERROR(target.fs_type == "xfs" ? make_xfs(target) : make_ext4(target));
  return Json{{"formatted", true}};
}

}  // namespace collage::mount::helper
