#include "base/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "base/random.h"
#include "base/status.h"
#include "base/strings.h"

namespace collage::base {
namespace {

std::string parent_of(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::Status write_all(int fd, std::string_view content, const std::string& path) {
  while (!content.empty()) {
    const ssize_t wrote = write(fd, content.data(), content.size());
    if (wrote < 0) {
      if (errno == EINTR) continue;
      return errno_status(errno, cat("write ", path));
    }
    content.remove_prefix(static_cast<size_t>(wrote));
  }
  return absl::OkStatus();
}

// Writes and syncs a new file; the caller removes it on error.
absl::Status write_new_file(const std::string& path, std::string_view content, mode_t mode) {
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return errno_status(errno, cat("create ", path));
  // Not by open's mode: the umask would take bits from it.
  if (fchmod(fd.get(), mode) != 0) return errno_status(errno, cat("chmod ", path));
  COLLAGE_RETURN_IF_ERROR(write_all(fd.get(), content, path));
  if (fsync(fd.get()) != 0) return errno_status(errno, cat("fsync ", path));
  // A network file system may tell of a failed write only now.
  if (close(fd.release()) != 0) return errno_status(errno, cat("close ", path));
  return absl::OkStatus();
}

}  // namespace

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = other.release();
  }
  return *this;
}

int UniqueFd::release() {
  return std::exchange(fd_, -1);
}

void UniqueFd::reset() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

absl::StatusOr<std::string> read_file(const std::string& path, size_t max_bytes) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return errno_status(errno, cat("open ", path));
  std::string content;
  char buffer[16 << 10];
  while (true) {
    const ssize_t got = read(fd.get(), buffer, sizeof buffer);
    if (got == 0) return content;
    if (got < 0) {
      if (errno == EINTR) continue;
      return errno_status(errno, cat("read ", path));
    }
    content.append(buffer, static_cast<size_t>(got));
    if (content.size() > max_bytes) {
      return absl::OutOfRangeError(cat("read ", path, ": larger than ", max_bytes, " bytes"));
    }
  }
}

absl::Status write_file_atomic(const std::string& path, std::string_view content, mode_t mode) {
  // The name says whose it is: what a crash leaves behind is found by its prefix and suffix.
  const std::string temporary = cat(path, ".", random_hex(6), ".tmp");
  absl::Cleanup remove_temporary = [&] { unlink(temporary.c_str()); };
  COLLAGE_RETURN_IF_ERROR(write_new_file(temporary, content, mode));
  if (rename(temporary.c_str(), path.c_str()) != 0) return errno_status(errno, cat("rename to ", path));
  std::move(remove_temporary).Cancel();
  return fsync_directory(parent_of(path));
}

absl::Status fsync_directory(const std::string& directory) {
  UniqueFd fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return errno_status(errno, cat("open ", directory));
  if (fsync(fd.get()) != 0) return errno_status(errno, cat("fsync ", directory));
  return absl::OkStatus();
}

absl::Status make_directories(const std::string& path, mode_t mode) {
  for (size_t at = path.find_first_not_of('/'); at != std::string::npos && at < path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    const std::string part = path.substr(0, end);
    at = path.find_first_not_of('/', end);
    if (mkdir(part.c_str(), mode) == 0) {
      // Not by mkdir's mode: the umask would take bits from it.
      if (chmod(part.c_str(), mode) != 0) return errno_status(errno, cat("chmod ", part));
      COLLAGE_RETURN_IF_ERROR(fsync_directory(parent_of(part)));
      continue;
    }
    const int error = errno;
    struct stat status {};
    if (stat(part.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) continue;
    return errno_status(error == EEXIST ? ENOTDIR : error, cat("make directory ", part));
  }
  return absl::OkStatus();
}

absl::Status remove_file(const std::string& path) {
  if (unlink(path.c_str()) != 0) {
    if (errno == ENOENT) return absl::OkStatus();
    return errno_status(errno, cat("remove ", path));
  }
  return fsync_directory(parent_of(path));
}

absl::StatusOr<std::vector<std::string>> list_directory(const std::string& path) {
  DIR* directory = opendir(path.c_str());
  if (directory == nullptr) return errno_status(errno, cat("open ", path));
  absl::Cleanup close_directory = [&] { closedir(directory); };
  std::vector<std::string> names;
  while (true) {
    errno = 0;
    const dirent* entry = readdir(directory);
    if (entry == nullptr) break;
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  if (errno != 0) return errno_status(errno, cat("list ", path));
  std::sort(names.begin(), names.end());
  return names;
}

bool exists(const std::string& path) {
  struct stat status {};
  return lstat(path.c_str(), &status) == 0;
}

absl::StatusOr<FileLock> FileLock::acquire(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  // On a disk that can only be read, the file of an earlier process will do.
  if (!fd && errno == EROFS) fd = UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) return errno_status(errno, cat("open ", path));
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return errno_status(errno, cat("lock ", path));
    char buffer[32] = {};
    const ssize_t got = pread(fd.get(), buffer, sizeof buffer - 1, 0);
    int64_t pid = 0;
    const bool known = got > 0 && absl::SimpleAtoi(absl::StripTrailingAsciiWhitespace(buffer), &pid);
    return absl::FailedPreconditionError(
        cat(path, " is held by another process", known ? cat(" (pid ", pid, ")") : ""));
  }
  // For a person and the message above; the lock itself does not depend on it, nor on a disk with room.
  const std::string pid = cat(getpid(), "\n");
  const bool noted = ftruncate(fd.get(), 0) == 0 && pwrite(fd.get(), pid.data(), pid.size(), 0) > 0;
  static_cast<void>(noted);
  return FileLock(std::move(fd));
}

}  // namespace collage::base
