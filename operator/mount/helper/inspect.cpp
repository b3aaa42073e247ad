// What a path is and how full it is. stat and statfs alone can hang for ever on a dead share.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <string>

#include "base/status.h"
#include "operator/mount/helper/helper.h"

namespace collage::mount::helper {

absl::StatusOr<Json> inspect(const Json& request) {
  COLLAGE_ASSIGN_OR_RETURN(const std::string path, required_text(request, "path"));
  struct stat node {};
  if (::lstat(path.c_str(), &node) != 0) {
    if (errno == ENOENT) return Json{{"type", "missing"}};
    return errno_status(errno, "stat " + path);
  }
  Json result{{"device", device_number(node.st_dev)}};
  if (S_ISBLK(node.st_mode)) {
    result["type"] = "block";
    result["number"] = device_number(node.st_rdev);
    COLLAGE_ASSIGN_OR_RETURN(const Fd fd, open_path(path, O_RDONLY | O_NONBLOCK));
    uint64_t size = 0;
    int read_only = 0;
    if (::ioctl(fd.get(), BLKGETSIZE64, &size) != 0 || ::ioctl(fd.get(), BLKROGET, &read_only) != 0) {
      return errno_status(errno, "look at " + path);
    }
    result["size"] = size;
    result["readOnly"] = read_only != 0;
    return result;
  }
  result["type"] = S_ISDIR(node.st_mode) ? "directory" : S_ISREG(node.st_mode) ? "file" : "other";
  struct statvfs fs {};
  if (::statvfs(path.c_str(), &fs) != 0) return errno_status(errno, "statfs " + path);
  const uint64_t block = fs.f_frsize != 0 ? fs.f_frsize : fs.f_bsize;
  result["totalBytes"] = fs.f_blocks * block;
  result["usedBytes"] = (fs.f_blocks - fs.f_bfree) * block;
  result["availableBytes"] = fs.f_bavail * block;
  result["totalInodes"] = fs.f_files;
  result["usedInodes"] = fs.f_files - fs.f_ffree;
  result["availableInodes"] = fs.f_favail;
  result["readOnly"] = (fs.f_flag & ST_RDONLY) != 0;
  return result;
}

}  // namespace collage::mount::helper
