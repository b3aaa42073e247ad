#include "operator/mount/helper/helper.h"

#include <fcntl.h>
#include <libmount/libmount.h>
#include <limits.h>
#include <spawn.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

extern char** environ;

namespace collage::mount::helper {

Fd& Fd::operator=(Fd&& other) noexcept {
  if (this != &other) {
    close();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

Fd::~Fd() {
  close();
}

void Fd::close() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

absl::Status errno_status(int error, std::string_view doing) {
  absl::StatusCode code = absl::StatusCode::kInternal;
  switch (error) {
    case ENOENT:
    case ENXIO:
    case ENODEV:
      code = absl::StatusCode::kNotFound;
      break;
    case EEXIST:
      code = absl::StatusCode::kAlreadyExists;
      break;
    case EACCES:
    case EPERM:
      code = absl::StatusCode::kPermissionDenied;
      break;
    case ENOSPC:
    case EDQUOT:
      code = absl::StatusCode::kResourceExhausted;
      break;
    case EBUSY:
    case EROFS:
    case ENOTEMPTY:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
      code = absl::StatusCode::kFailedPrecondition;
      break;
    case ETIMEDOUT:
      code = absl::StatusCode::kDeadlineExceeded;
      break;
    case EINVAL:
    case ENAMETOOLONG:
      code = absl::StatusCode::kInvalidArgument;
      break;
    case ESTALE:
    case ENOTCONN:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case EIO:
      code = absl::StatusCode::kUnavailable;
      break;
    default:
      break;
  }
  return absl::Status(code, std::string(doing) + ": " + std::strerror(error));
}

absl::StatusOr<Fd> open_path(const std::string& path, int flags) {
  Fd fd(::open(path.c_str(), flags | O_CLOEXEC));
  if (!fd) return errno_status(errno, "open " + path);
  return fd;
}

std::string text(const Json& request, const char* key) {
  auto it = request.find(key);
  return it != request.end() && it->is_string() ? it->get<std::string>() : std::string();
}

uint64_t number(const Json& request, const char* key) {
  auto it = request.find(key);
  return it != request.end() && it->is_number_integer() ? it->get<uint64_t>() : 0;
}

bool flag(const Json& request, const char* key) {
  auto it = request.find(key);
  return it != request.end() && it->is_boolean() && it->get<bool>();
}

absl::StatusOr<std::string> required_text(const Json& request, const char* key) {
  std::string value = text(request, key);
  if (value.empty()) return absl::InvalidArgumentError(std::string(key) + ": must be set");
  return value;
}

std::string device_number(dev_t device) {
  return std::to_string(major(device)) + ":" + std::to_string(minor(device));
}

absl::StatusOr<ProgramResult> run_program(const std::vector<std::string>& arguments) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return errno_status(errno, "pipe");
  Fd read_end(ends[0]), write_end(ends[1]);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, write_end.get(), 1);
  posix_spawn_file_actions_adddup2(&actions, write_end.get(), 2);
  pid_t pid = 0;
  int error = ::posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error == ENOENT) return absl::FailedPreconditionError(arguments[0] + " is not installed in this image");
  if (error != 0) return errno_status(error, "run " + arguments[0]);
  write_end.close();
  ProgramResult result;
  char buffer[1024];
  for (ssize_t n; (n = ::read(read_end.get(), buffer, sizeof buffer)) != 0;) {
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;
    if (result.output.size() < 4096) result.output.append(buffer, static_cast<size_t>(n));
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return errno_status(errno, "wait for " + arguments[0]);
  }
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  while (!result.output.empty() && std::isspace(static_cast<unsigned char>(result.output.back())))
    result.output.pop_back();
  return result;
}

absl::StatusOr<MountLookup> mounted_at(const std::string& target) {
  std::unique_ptr<libmnt_table, decltype(&mnt_unref_table)> table(
      mnt_new_table_from_file("/proc/self/mountinfo"), mnt_unref_table);
  if (!table) return absl::InternalError("cannot read /proc/self/mountinfo");
  std::unique_ptr<libmnt_iter, decltype(&mnt_free_iter)> iterator(mnt_new_iter(MNT_ITER_BACKWARD),
                                                                  mnt_free_iter);
  auto string = [](const char* s) { return std::string(s != nullptr ? s : ""); };
  libmnt_fs* fs = nullptr;
  while (mnt_table_next_fs(table.get(), iterator.get(), &fs) == 0) {
    if (string(mnt_fs_get_target(fs)) != target) continue;
    MountLookup lookup{true, {}};
    lookup.mount = {string(mnt_fs_get_source(fs)), string(mnt_fs_get_fstype(fs)), string(mnt_fs_get_root(fs)),
                    device_number(mnt_fs_get_devno(fs))};
    const std::string options = "," + string(mnt_fs_get_vfs_options(fs)) + ",";
    lookup.mount.read_only = options.find(",ro,") != std::string::npos;
    return lookup;
  }
  return MountLookup{};
}

std::string canonical_target(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos || slash == 0) return path;
  char resolved[PATH_MAX];
  if (::realpath(path.substr(0, slash).c_str(), resolved) == nullptr) return path;
  const std::string parent = resolved;
  return (parent == "/" ? "" : parent) + path.substr(slash);
}

}  // namespace collage::mount::helper
