#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// collage-mount: one request on stdin, one thing done, one answer on stdout. Everything here may hang in the
// kernel; that is why it is a process of its own that the agent can give up on. Single threaded; linked with
// nothing that starts a thread.
namespace collage::mount::helper {

using Json = nlohmann::json;

// The verbs. Each takes the request's fields and answers the result's fields (see ../helper_client.h for
// both).
absl::StatusOr<Json> loop_attach(const Json& request);
absl::StatusOr<Json> loop_detach(const Json& request);
absl::StatusOr<Json> find_device(const Json& request);
absl::StatusOr<Json> format(const Json& request);
absl::StatusOr<Json> mount_device(const Json& request);
absl::StatusOr<Json> bind(const Json& request);
absl::StatusOr<Json> unmount(const Json& request);
absl::StatusOr<Json> inspect(const Json& request);

// ---- What the verbs share.

class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept;
  ~Fd();
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void close();

 private:
  int fd_;
};

// "<doing>: <strerror>" with the code that the rest of the program gives to this errno.
absl::Status errno_status(int error, std::string_view doing);
absl::StatusOr<Fd> open_path(const std::string& path, int flags);  // O_CLOEXEC is added

std::string text(const Json& request, const char* key);
uint64_t number(const Json& request, const char* key);
bool flag(const Json& request, const char* key);
absl::StatusOr<std::string> required_text(const Json& request, const char* key);

std::string device_number(dev_t device);  // "7:3", as in mountinfo

struct ProgramResult {
  int exit_code = 0;
  std::string output;  // stdout and stderr, the first 4 KiB
};
// Runs a program from the system's directories and waits. It stays in this process's group: who kills the
// helper kills it too, and it keeps the helper's lock for as long as it lives.
absl::StatusOr<ProgramResult> run_program(const std::vector<std::string>& arguments);

// One line of the mount table, the topmost mount at `target`.
struct MountPoint {
  std::string source, fs_type, root, device;  // device: "7:3"
  bool read_only = false;
};
// nullopt-like: found == false when nothing is mounted exactly there. The table is read, no path is touched.
struct MountLookup {
  bool found = false;
  MountPoint mount;
};
absl::StatusOr<MountLookup> mounted_at(const std::string& target);
// The parent resolved, the last component kept: the form in which the mount table shows a target.
std::string canonical_target(const std::string& path);

}  // namespace collage::mount::helper
