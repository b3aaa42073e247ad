#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Files, durably. Errors are errno_status with the path in the message.
namespace collage::base {

// Owns a file descriptor.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  ~UniqueFd() { reset(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release();
  void reset();

 private:
  int fd_ = -1;
};

absl::StatusOr<std::string> read_file(const std::string& path, size_t max_bytes = 16 << 20);
// A temporary file in the same directory, fsync, rename, fsync of the directory: after a crash the old or the
// new content is there, never a part. Mode e.g. 0600.
absl::Status write_file_atomic(const std::string& path, std::string_view content, mode_t mode);
absl::Status fsync_directory(const std::string& directory);
absl::Status make_directories(const std::string& path,
                              mode_t mode);         // mkdir -p; existing ones are left as they are
absl::Status remove_file(const std::string& path);  // OK when it is not there; the directory is fsynced
absl::StatusOr<std::vector<std::string>> list_directory(
    const std::string& path);  // names, sorted, without . and ..
bool exists(const std::string& path);

// An exclusive flock on `path` (created 0600), held as long as the object lives: one process a resource.
// FAILED_PRECONDITION "<path> is held by another process (pid N)" when taken.
class FileLock {
 public:
  static absl::StatusOr<FileLock> acquire(const std::string& path);

 private:
  explicit FileLock(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace collage::base
