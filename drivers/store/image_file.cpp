#include "drivers/store/image_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/files.h"
#include "base/status.h"

namespace collage::drivers {

namespace {

// One answer of the kernel at a time is short enough to notice a cancelled context.
constexpr int64_t kReserveAtOnce = int64_t{1} << 30;
constexpr int64_t kWriteAtOnce = int64_t{1} << 20;

absl::Status write_zeros(const base::Context& context, const StoreDirectory& directory, int fd,
                         const std::string& path, int64_t bytes) {
  const std::vector<char> zeros(kWriteAtOnce, 0);
  for (int64_t at = 0; at < bytes;) {
    COLLAGE_RETURN_IF_ERROR(context.status());
    const ssize_t written =
        pwrite(fd, zeros.data(), static_cast<size_t>(std::min(kWriteAtOnce, bytes - at)), at);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return directory.error(errno, absl::StrCat("write ", path));
    at += written;
  }
  return absl::OkStatus();
}

absl::Status reserve(const base::Context& context, const StoreDirectory& directory, int fd,
                     const std::string& path, int64_t bytes) {
  for (int64_t at = 0; at < bytes;) {
    COLLAGE_RETURN_IF_ERROR(context.status());
    const int64_t length = std::min(kReserveAtOnce, bytes - at);
    if (fallocate(fd, 0, at, length) == 0) {
      at += length;
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EOPNOTSUPP || errno == ENOSYS) return write_zeros(context, directory, fd, path, bytes);
    return directory.error(errno, absl::StrCat("allocate ", path));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status make_image_file(const base::Context& context, const StoreDirectory& directory,
                             const std::string& path, int64_t bytes, Allocation allocation) {
  COLLAGE_RETURN_IF_ERROR(directory.step(absl::StrCat("create ", path)));
  base::UniqueFd file(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return directory.error(errno, absl::StrCat("create ", path));
  COLLAGE_RETURN_IF_ERROR(directory.step(absl::StrCat("allocate ", path)));
  if (allocation == Allocation::kFull) {
    COLLAGE_RETURN_IF_ERROR(reserve(context, directory, file.get(), path, bytes));
  } else if (ftruncate(file.get(), bytes) != 0) {
    return directory.error(errno, absl::StrCat("size ", path));
  }
  COLLAGE_RETURN_IF_ERROR(directory.step(absl::StrCat("flush ", path)));
  if (fsync(file.get()) != 0) return directory.error(errno, absl::StrCat("flush ", path));
  if (close(file.release()) != 0) return directory.error(errno, absl::StrCat("close ", path));
  return absl::OkStatus();
}

}  // namespace collage::drivers
