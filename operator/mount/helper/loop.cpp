// Loop devices, over the kernel's own interface (loop(4)): found by the device and inode of the image file,
// never by its name alone, so that a renamed, replaced or bind mounted file is not mistaken for another.
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "base/status.h"
#include "operator/mount/helper/helper.h"

namespace collage::mount::helper {
namespace {

constexpr int kTries = 64;                              // others take free devices at the same time
constexpr auto kReleaseWait = std::chrono::seconds(5);  // for udev's short look at the device
constexpr auto kReleasePoll = std::chrono::milliseconds(10);

struct FileId {
  uint64_t device = 0, inode = 0;
};

struct Loop {
  std::string path;  // "/dev/loop3"
  loop_info64 info{};
};

// The last two components: "pvc-1/image.0". What stands before differs with the mount namespace that looks.
std::string short_name(const std::string& path) {
  const size_t last = path.find_last_of('/');
  if (last == std::string::npos || last == 0) return path;
  const size_t parent = path.find_last_of('/', last - 1);
  return parent == std::string::npos ? path : path.substr(parent + 1);
}

// The short name of the file behind "loop3"; "" when there is none.
std::string backing_name(const std::string& loop) {
  std::ifstream file("/sys/block/" + loop + "/loop/backing_file");
  std::string line;
  std::getline(file, line);
  constexpr std::string_view kDeleted = " (deleted)";
  if (line.ends_with(kDeleted)) line.resize(line.size() - kDeleted.size());
  return short_name(line);
}

// The loop devices of one image file. Asking a loop device for its status makes the kernel look at its image
// file, which hangs on a dead share: so only devices whose file has the same short name are asked.
absl::StatusOr<std::vector<Loop>> loops_of(const std::string& file, FileId id) {
  const std::string name = short_name(file);
  std::vector<Loop> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/block", error)) {
    const std::string loop = entry.path().filename();
    if (!loop.starts_with("loop") || backing_name(loop) != name) continue;
    Fd fd(::open(("/dev/" + loop).c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) {
      return absl::FailedPreconditionError(
          "/dev/" + loop + " is missing or closed to us: the host's /dev must be mounted at /dev");
    }
    Loop candidate{"/dev/" + loop, {}};
    if (::ioctl(fd.get(), LOOP_GET_STATUS64, &candidate.info) != 0) continue;  // let go just now
    const bool whole = candidate.info.lo_offset == 0 && candidate.info.lo_sizelimit == 0;
    if (whole && candidate.info.lo_device == id.device && candidate.info.lo_inode == id.inode)
      found.push_back(candidate);
  }
  if (error) return errno_status(error.value(), "list /sys/block");
  std::sort(found.begin(), found.end(), [](const Loop& a, const Loop& b) { return a.path < b.path; });
  return found;
}

absl::StatusOr<Json> answer(const std::string& device, FileId id, bool created) {
  struct stat node {};
  if (::stat(device.c_str(), &node) != 0) return errno_status(errno, "stat " + device);
  return Json{{"device", device},
              {"number", device_number(node.st_rdev)},
              {"fileDevice", id.device},
              {"fileInode", id.inode},
              {"created", created}};
}

// A device that is there already: made to last and to have the file's size.
absl::Status adopt(const Loop& loop, const std::string& file, bool read_only) {
  const bool is_read_only = (loop.info.lo_flags & LO_FLAGS_READ_ONLY) != 0;
  if (is_read_only != read_only) {
    return absl::FailedPreconditionError(file + " is attached already as " + loop.path +
                                         (is_read_only ? ", read-only" : ", for writing"));
  }
  COLLAGE_ASSIGN_OR_RETURN(Fd fd, open_path(loop.path, O_RDONLY));
  if ((loop.info.lo_flags & LO_FLAGS_AUTOCLEAR) != 0) {
    // An earlier detach that found it open left this; a raw block volume would lose its device with the first
    // close.
    loop_info64 info = loop.info;
    info.lo_flags &= ~static_cast<uint32_t>(LO_FLAGS_AUTOCLEAR);
    if (::ioctl(fd.get(), LOOP_SET_STATUS64, &info) != 0) return errno_status(errno, "keep " + loop.path);
  }
  if (::ioctl(fd.get(), LOOP_SET_CAPACITY, 0) != 0)
    return errno_status(errno, "set the size of " + loop.path);
  return absl::OkStatus();
}

// What a file system is made for stays: by itself the kernel would choose the size that direct I/O to this
// very file wants, which is larger for a file that shares blocks with a clone, and the file system that was
// made before would not be mounted any more. Where 512 is too small for direct I/O, the kernel does without.
constexpr uint32_t kBlockSize = 512;

// OK and errno 0, or the errno of the kernel's refusal.
int configure(int loop, int file, const std::string& name, bool read_only, bool direct) {
  loop_config config{};
  config.fd = static_cast<uint32_t>(file);
  config.block_size = kBlockSize;
  config.info.lo_flags = (read_only ? LO_FLAGS_READ_ONLY : 0) | (direct ? LO_FLAGS_DIRECT_IO : 0);
  std::strncpy(reinterpret_cast<char*>(config.info.lo_file_name), name.c_str(), LO_NAME_SIZE - 1);
  return ::ioctl(loop, LOOP_CONFIGURE, &config) == 0 ? 0 : errno;
}

// By the image file's identity; or, where the journal was lost, by the device that was mounted.
absl::StatusOr<std::vector<Loop>> loops_to_detach(const Json& request) {
  const std::string file = text(request, "file");
  if (file.empty()) {
    COLLAGE_ASSIGN_OR_RETURN(const std::string device, required_text(request, "device"));
    if (!device.starts_with("/dev/loop")) {
      return absl::InvalidArgumentError("device: " + device + " is no loop device");
    }
    COLLAGE_ASSIGN_OR_RETURN(const Fd fd, open_path(device, O_RDONLY));
    Loop loop{device, {}};
    if (::ioctl(fd.get(), LOOP_GET_STATUS64, &loop.info) == 0) return std::vector<Loop>{loop};
    if (errno == ENXIO) return std::vector<Loop>{};
    return errno_status(errno, "look at " + device);
  }
  FileId id{number(request, "fileDevice"), number(request, "fileInode")};
  if (id.inode == 0) {
    struct stat node {};
    if (::lstat(file.c_str(), &node) != 0) {
      if (errno == ENOENT) return std::vector<Loop>{};
      return errno_status(errno, "stat " + file);
    }
    id = {node.st_dev, node.st_ino};
  }
  return loops_of(file, id);
}

// The kernel lets go of the file with the last close of the device, whoever's that is.
absl::Status wait_until_free(const std::string& device, const std::string& file) {
  const auto deadline = std::chrono::steady_clock::now() + kReleaseWait;
  while (!file.empty() && backing_name(device.substr(5)) == file) {
    if (std::chrono::steady_clock::now() > deadline) {
      return absl::FailedPreconditionError(device + " (" + file + ") is still open in some process");
    }
    std::this_thread::sleep_for(kReleasePoll);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Json> loop_attach(const Json& request) {
  COLLAGE_ASSIGN_OR_RETURN(const std::string file, required_text(request, "file"));
  const bool read_only = flag(request, "readOnly");
  COLLAGE_ASSIGN_OR_RETURN(Fd image,
                           open_path(file, (read_only ? O_RDONLY : O_RDWR) | O_NOFOLLOW | O_NONBLOCK));
  struct stat node {};
  if (::fstat(image.get(), &node) != 0) return errno_status(errno, "stat " + file);
  if (!S_ISREG(node.st_mode)) return absl::FailedPreconditionError(file + " is not a regular file");
  const FileId id{node.st_dev, node.st_ino};
  COLLAGE_ASSIGN_OR_RETURN(const std::vector<Loop> loops, loops_of(file, id));
  if (!loops.empty()) {
    COLLAGE_RETURN_IF_ERROR(adopt(loops.front(), file, read_only));
    return answer(loops.front().path, id, false);
  }
  COLLAGE_ASSIGN_OR_RETURN(Fd control, open_path("/dev/loop-control", O_RDWR));
  for (int i = 0; i < kTries; ++i) {
    const int index = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (index < 0) return errno_status(errno, "find a free loop device");
    const std::string device = "/dev/loop" + std::to_string(index);
    Fd loop(::open(device.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC));
    if (!loop && errno == ENOENT) {
      return absl::FailedPreconditionError(device + " is missing: the host's /dev must be mounted at /dev");
    }
    if (!loop) return errno_status(errno, "open " + device);
    int error = configure(loop.get(), image.get(), file, read_only, true);
    // Not every file system can read past the page cache.
    if (error != 0 && error != EBUSY) error = configure(loop.get(), image.get(), file, read_only, false);
    if (error == 0) {
      // The flag of a read-only publication outlives the image that a device had.
      const int writable = 0;
      if (!read_only && ::ioctl(loop.get(), BLKROSET, &writable) != 0)
        return errno_status(errno, "make " + device + " writable");
      return answer(device, id, true);
    }
    if (error != EBUSY) return errno_status(error, "attach " + file + " to " + device);
  }
  return absl::UnavailableError("attach " + file + ": other programs took every free loop device first");
}

absl::StatusOr<Json> loop_detach(const Json& request) {
  COLLAGE_ASSIGN_OR_RETURN(const std::vector<Loop> loops, loops_to_detach(request));
  std::string flush_error;
  for (const Loop& loop : loops) {
    const bool read_only = (loop.info.lo_flags & LO_FLAGS_READ_ONLY) != 0;
    const std::string file = backing_name(loop.path.substr(5));
    Fd fd(::open(loop.path.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_EXCL | O_CLOEXEC));
    // A raw block volume that was published read-only cannot be opened for writing, and has nothing to flush.
    if (!fd && (errno == EACCES || errno == EPERM)) {
      fd = Fd(::open(loop.path.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
    }
    if (!fd && errno == EBUSY) return absl::FailedPreconditionError(loop.path + " is still mounted");
    if (!fd) return errno_status(errno, "open " + loop.path);
    if (!read_only && ::fsync(fd.get()) != 0) {
      flush_error = std::string(errno_status(errno, "flush " + loop.path).message());
    }
    if (::ioctl(fd.get(), LOOP_CLR_FD, 0) != 0 && errno != ENXIO) {
      return errno_status(errno, "detach " + loop.path);
    }
    fd.close();
    COLLAGE_RETURN_IF_ERROR(wait_until_free(loop.path, file));
  }
  return Json{{"detached", loops.size()}, {"flushError", flush_error}};
}

}  // namespace collage::mount::helper
