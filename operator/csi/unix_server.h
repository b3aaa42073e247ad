#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/files.h"

namespace collage::csi {

// A gRPC server on a unix socket of its own. gRPC takes over a live socket without an error, and removes the
// file at a socket's path whoever made it; so the path is ours only while we hold `lock_path`, and nobody
// else's listener is ever replaced. Not thread safe.
class UnixServer {
 public:
  // FAILED_PRECONDITION naming the path and the remedy when it is in use, or is not a socket. The socket's
  // directory is made with `directory_mode` if it is missing; the socket itself is 0600. The services must
  // outlive the server.
  static absl::StatusOr<std::unique_ptr<UnixServer>> start(const std::string& path, mode_t directory_mode,
                                                           const std::string& lock_path,
                                                           const std::vector<grpc::Service*>& services);
  ~UnixServer();  // as stop(0)

  // The socket goes at once; calls under way have this long before they are cancelled, and are always waited
  // for.
  void stop(std::chrono::milliseconds drain);
  // False when somebody removed or replaced the socket.
  bool in_place() const;

 private:
  UnixServer(std::string path, base::FileLock lock) : path_(std::move(path)), lock_(std::move(lock)) {}

  std::string path_;
  std::optional<base::FileLock> lock_;  // let go last
  std::unique_ptr<grpc::Server> server_;
  ino_t inode_ = 0;
};

}  // namespace collage::csi
