#include "operator/csi/unix_server.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace collage::csi {
namespace {

std::string parent_of(const std::string& path) {
  return path.substr(0, path.find_last_of('/'));
}

// Makes room for a new socket: what an earlier process left is removed, what is alive is not.
absl::Status clear_path(const std::string& path) {
  sockaddr_un address{};
  if (path.size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError(
        absl::StrCat("socket ", path, ": its path is longer than the kernel allows, ",
                     sizeof address.sun_path - 1, " bytes: choose a shorter kubelet directory"));
  }
  struct stat node {};
  if (::lstat(path.c_str(), &node) != 0)
    return errno == ENOENT ? absl::OkStatus() : base::errno_status(errno, "stat " + path);
  if (!S_ISSOCK(node.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat("socket ", path, ": something that is not a socket is there: remove it"));
  }
  const base::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return base::errno_status(errno, "make a socket");
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  // EAGAIN: somebody listens, and is busy.
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ||
      errno == EAGAIN) {
    return absl::FailedPreconditionError(absl::StrCat(
        "socket ", path, " is in use: another program listens there; stop it, then this goes on by itself"));
  }
  if (errno != ECONNREFUSED) return base::errno_status(errno, "connect to " + path);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return base::errno_status(errno, "remove " + path);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<UnixServer>> UnixServer::start(const std::string& path, mode_t directory_mode,
                                                              const std::string& lock_path,
                                                              const std::vector<grpc::Service*>& services) {
  COLLAGE_RETURN_IF_ERROR(base::make_directories(parent_of(lock_path), 0700));
  absl::StatusOr<base::FileLock> lock = base::FileLock::acquire(lock_path);
  if (absl::IsFailedPrecondition(lock.status())) {
    return absl::FailedPreconditionError(
        absl::StrCat("socket ", path, " is in use by another collage: ", std::string(lock.status().message()),
                     "; stop that process"));
  }
  COLLAGE_RETURN_IF_ERROR(lock.status());
  COLLAGE_RETURN_IF_ERROR(base::make_directories(parent_of(path), directory_mode));
  COLLAGE_RETURN_IF_ERROR(clear_path(path));
  std::unique_ptr<UnixServer> server(new UnixServer(path, *std::move(lock)));
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + path, grpc::InsecureServerCredentials());
  for (grpc::Service* service : services) builder.RegisterService(service);
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr) {
    return absl::UnavailableError(absl::StrCat(
        "socket ", path, " cannot be served: is its directory writable, and the disk not full?"));
  }
  // Until here only root's directories stood between it and others.
  struct stat node {};
  if (::chmod(path.c_str(), 0600) != 0 || ::lstat(path.c_str(), &node) != 0)
    return base::errno_status(errno, "chmod " + path);
  server->inode_ = node.st_ino;
  return server;
}

UnixServer::~UnixServer() {
  stop(std::chrono::milliseconds(0));
}

bool UnixServer::in_place() const {
  struct stat node {};
  return server_ != nullptr && ::lstat(path_.c_str(), &node) == 0 && node.st_ino == inode_;
}

void UnixServer::stop(std::chrono::milliseconds drain) {
  if (server_ == nullptr) return;
  if (in_place()) ::unlink(path_.c_str());
  server_->Shutdown(std::chrono::system_clock::now() + drain);
  server_->Wait();
  server_.reset();
  lock_.reset();
}

}  // namespace collage::csi
