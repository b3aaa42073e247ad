#include "drivers/store/store_directory.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/files.h"
#include "base/status.h"

namespace collage::drivers {

StoreDirectory::StoreDirectory(std::string path, std::string node, StepHook step)
    : path_(std::move(path)), node_(std::move(node)), step_(std::move(step)) {}

std::string StoreDirectory::describe() const {
  return absl::StrCat("directory ", path_, " on ", node_.empty() ? "this machine" : node_);
}

absl::Status StoreDirectory::error(int number, absl::string_view doing) const {
  const std::string detail = absl::StrCat(" (", doing, ": ", strerror(number), ")");
  switch (number) {
    case 0:
      return absl::OkStatus();
    case ENOENT:
      return absl::NotFoundError(absl::StrCat(doing, ": no such file"));
    case EEXIST:
    case ENOTEMPTY:
      return absl::AlreadyExistsError(absl::StrCat(doing, ": exists already"));
    case ENOSPC:
      return absl::ResourceExhaustedError(absl::StrCat(describe(), " is full: make room there", detail));
    case EDQUOT:
      return absl::ResourceExhaustedError(
          absl::StrCat(describe(), " is over its quota: raise it, or make room", detail));
    case EROFS:
      return absl::FailedPreconditionError(
          absl::StrCat(describe(), " is read-only: mount it read-write", detail));
    case EACCES:
    case EPERM:
      return absl::FailedPreconditionError(
          absl::StrCat(describe(), " is not writable for user id ", geteuid(),
                       ": give that user the directory, or export it without root squash", detail));
    case EFBIG:
      return absl::OutOfRangeError(absl::StrCat(describe(), " cannot hold so large a file", detail));
    case EINTR:
    case EAGAIN:
    case EBUSY:
      return absl::AbortedError(absl::StrCat(describe(), " is busy", detail));
    case EIO:
    case ESTALE:
    case ENODEV:
    case ENXIO:
    case ENOTCONN:
    case ESHUTDOWN:
    case ETIMEDOUT:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ECONNREFUSED:
      return absl::UnavailableError(
          absl::StrCat(describe(), " does not answer: check its storage, mount it again", detail));
    default:
      return absl::InternalError(absl::StrCat(describe(), detail));
  }
}

absl::Status StoreDirectory::check(Need need) const {
  struct statx found {};
  if (statx(AT_FDCWD, path_.c_str(), AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &found) != 0) {
    if (errno == ENOENT) {
      return absl::FailedPreconditionError(
          absl::StrCat(describe(), " does not exist: make it, or mount the storage there"));
    }
    if (errno == ENOTDIR) {
      return absl::FailedPreconditionError(
          absl::StrCat(describe(), " cannot be reached: a part of its path is not a directory"));
    }
    return error(errno, "look at it");
  }
  if (!S_ISDIR(found.stx_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(describe(), " is not a directory: name another, or remove that file"));
  }
  const int mode = need == Need::kWrite ? R_OK | W_OK | X_OK : R_OK | X_OK;
  if (faccessat(AT_FDCWD, path_.c_str(), mode, AT_EACCESS) != 0) {
    if (errno == EACCES && need == Need::kRead) {
      return absl::FailedPreconditionError(absl::StrCat(describe(), " cannot be read by user id ", geteuid(),
                                                        ": give that user the directory"));
    }
    return error(errno, "ask for access");
  }
  return absl::OkStatus();
}

absl::Status StoreDirectory::refresh(const std::string& path) const {
  struct statx found {};
  if (statx(AT_FDCWD, path.c_str(), AT_STATX_FORCE_SYNC | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &found) ==
      0) {
    return absl::OkStatus();
  }
  return error(errno, absl::StrCat("look at ", path));
}

absl::StatusOr<StoreDirectory::Room> StoreDirectory::room() const {
  struct statvfs found {};
  if (statvfs(path_.c_str(), &found) != 0) return error(errno, "ask for its free space");
  const auto bytes = [&](uint64_t blocks) {
    const uint64_t most = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    const uint64_t unit = found.f_frsize != 0 ? found.f_frsize : found.f_bsize;
    return static_cast<int64_t>(unit == 0 || blocks > most / unit ? most : blocks * unit);
  };
  return Room{.total_bytes = bytes(found.f_blocks), .available_bytes = bytes(found.f_bavail)};
}

absl::StatusOr<std::vector<std::string>> StoreDirectory::list(const std::string& path) const {
  auto names = base::list_directory(path);
  if (!names.ok() && !absl::IsNotFound(names.status())) return base::annotate(names.status(), describe());
  return names;
}

absl::StatusOr<std::string> StoreDirectory::read(const std::string& path) const {
  return base::read_file(path, 1 << 20);
}

absl::Status StoreDirectory::make_directory(const std::string& path) const {
  COLLAGE_RETURN_IF_ERROR(step(absl::StrCat("make directory ", path)));
  if (mkdir(path.c_str(), 0700) != 0) return error(errno, absl::StrCat("make directory ", path));
  return absl::OkStatus();
}

absl::Status StoreDirectory::write_new(const std::string& path, absl::string_view content) const {
  COLLAGE_RETURN_IF_ERROR(step(absl::StrCat("create ", path)));
  base::UniqueFd file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return error(errno, absl::StrCat("create ", path));
  COLLAGE_RETURN_IF_ERROR(step(absl::StrCat("write ", path)));
  while (!content.empty()) {
    const ssize_t written = write(file.get(), content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return error(errno, absl::StrCat("write ", path));
    content.remove_prefix(static_cast<size_t>(written));
  }
  if (fsync(file.get()) != 0) return error(errno, absl::StrCat("flush ", path));
  // A network file system may tell only now that it did not store the bytes.
  if (close(file.release()) != 0) return error(errno, absl::StrCat("close ", path));
  return absl::OkStatus();
}

absl::Status StoreDirectory::clone(const std::string& from, const std::string& to) const {
  base::UniqueFd source(open(from.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!source) return error(errno, absl::StrCat("open ", from));
  COLLAGE_RETURN_IF_ERROR(step(absl::StrCat("create ", to)));
  base::UniqueFd file(open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return error(errno, absl::StrCat("create ", to));
  COLLAGE_RETURN_IF_ERROR(step(absl::StrCat("clone ", to)));
  if (ioctl(file.get(), FICLONE, source.get()) != 0) {
    const int number = errno;
    ::unlink(to.c_str());
    if (number == EOPNOTSUPP || number == ENOTTY || number == ENOSYS || number == EINVAL || number == EXDEV) {
      return absl::UnimplementedError(absl::StrCat(
          describe(), " is on a file system that cannot clone files (FICLONE: ", strerror(number), ")"));
    }
    return error(number, absl::StrCat("clone ", from));
  }
  if (fsync(file.get()) != 0) return error(errno, absl::StrCat("flush ", to));
  if (close(file.release()) != 0) return error(errno, absl::StrCat("close ", to));
  return absl::OkStatus();
}

absl::Status StoreDirectory::rename(const std::string& from, const std::string& to) const {
  COLLAGE_RETURN_IF_ERROR(step(absl::StrCat("rename ", from, " to ", to)));
  if (::rename(from.c_str(), to.c_str()) != 0) return error(errno, absl::StrCat("rename ", from, " to ", to));
  return absl::OkStatus();
}

absl::Status StoreDirectory::link(const std::string& from, const std::string& to) const {
  COLLAGE_RETURN_IF_ERROR(step(absl::StrCat("link ", to)));
  if (::link(from.c_str(), to.c_str()) != 0) return error(errno, absl::StrCat("link ", to));
  return absl::OkStatus();
}

absl::Status StoreDirectory::write_note(const std::string& path, const std::string& text) const {
  COLLAGE_RETURN_IF_ERROR(step(absl::StrCat("note ", path)));
  if (symlink(text.c_str(), path.c_str()) != 0)
    return error(errno, absl::StrCat("make symbolic link ", path));
  return absl::OkStatus();
}

absl::StatusOr<std::string> StoreDirectory::read_note(const std::string& path) const {
  char text[4096];
  const ssize_t size = readlink(path.c_str(), text, sizeof text);
  if (size < 0) return error(errno, absl::StrCat("read symbolic link ", path));
  return std::string(text, static_cast<size_t>(size));
}

absl::Status StoreDirectory::make_empty(const std::string& path) const {
  COLLAGE_RETURN_IF_ERROR(step(absl::StrCat("create ", path)));
  base::UniqueFd file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return error(errno, absl::StrCat("create ", path));
  return absl::OkStatus();
}

absl::Status StoreDirectory::unlink(const std::string& path) const {
  COLLAGE_RETURN_IF_ERROR(step(absl::StrCat("unlink ", path)));
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return error(errno, absl::StrCat("unlink ", path));
  return absl::OkStatus();
}

absl::Status StoreDirectory::remove_empty(const std::string& path) const {
  COLLAGE_RETURN_IF_ERROR(step(absl::StrCat("remove directory ", path)));
  if (rmdir(path.c_str()) == 0 || errno == ENOENT || errno == ENOTEMPTY || errno == EEXIST)
    return absl::OkStatus();
  return error(errno, absl::StrCat("remove directory ", path));
}

absl::Status StoreDirectory::remove_tree(const std::string& path) const {
  COLLAGE_RETURN_IF_ERROR(step(absl::StrCat("remove ", path)));
  std::error_code code;
  std::filesystem::remove_all(path, code);
  if (!code || code.value() == ENOENT) return absl::OkStatus();
  // NFS keeps a file that somebody on this node has open under another name; the directory goes once it is
  // closed.
  if (code.value() == ENOTEMPTY || code.value() == EEXIST || code.value() == EBUSY) {
    return absl::AbortedError(
        absl::StrCat(describe(), ": ", path, " is still in use; it is removed when asked again"));
  }
  return error(code.value(), absl::StrCat("remove ", path));
}

absl::Status StoreDirectory::sync(const std::string& directory) const {
  COLLAGE_RETURN_IF_ERROR(step(absl::StrCat("flush ", directory)));
  base::UniqueFd fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return error(errno, absl::StrCat("open ", directory));
  // Some network and user-space file systems know no fsync of a directory; there the server made it durable.
  if (fsync(fd.get()) != 0 && errno != EINVAL && errno != ENOSYS)
    return error(errno, absl::StrCat("flush ", directory));
  return absl::OkStatus();
}

absl::Status validate_volume_name(absl::string_view name) {
  constexpr size_t kLongest = 128;
  if (name.empty()) return absl::InvalidArgumentError("name: must not be empty");
  if (name.size() > kLongest) {
    return absl::InvalidArgumentError(
        absl::StrCat("name: ", name.size(), " characters long; at most ", kLongest, " are allowed"));
  }
  const auto alphanumeric = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  for (char c : name) {
    if (alphanumeric(c) || c == '.' || c == '_' || c == '-') continue;
    return absl::InvalidArgumentError("name: only letters, digits, '.', '_' and '-' are allowed");
  }
  if (!alphanumeric(name.front()))
    return absl::InvalidArgumentError("name: must begin with a letter or a digit");
  return absl::OkStatus();
}

}  // namespace collage::drivers
