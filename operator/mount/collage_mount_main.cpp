#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "base/status.h"
#include "operator/mount/helper/helper.h"

namespace {

using collage::mount::helper::Json;

enum class Way { kForward, kBack };

struct Verb {
  const char* name;
  Way way;
  absl::StatusOr<Json> (*run)(const Json& request);
};

constexpr Verb kVerbs[] = {
    {"loop-attach", Way::kForward, collage::mount::helper::loop_attach},
    {"loop-detach", Way::kBack, collage::mount::helper::loop_detach},
    {"find-device", Way::kForward, collage::mount::helper::find_device},
    {"format", Way::kForward, collage::mount::helper::format},
    {"mount", Way::kForward, collage::mount::helper::mount_device},
    {"bind", Way::kForward, collage::mount::helper::bind},
    {"unmount", Way::kBack, collage::mount::helper::unmount},
    {"inspect", Way::kBack, collage::mount::helper::inspect},
};

constexpr int kLockTries = 100;
constexpr auto kLockPoll = std::chrono::milliseconds(10);

// Held until this process and all that it started have ended, even where the kernel does not let them end: so
// at most one of them hangs for a volume. Not close-on-exec: mkfs keeps it too.
absl::Status take_lock(const std::string& path, Way way) {
  if (path.empty()) return absl::OkStatus();
  int fd = ::open(path.c_str(), O_RDWR | O_CREAT, 0600);
  if (fd < 0 && errno == EROFS) fd = ::open(path.c_str(), O_RDONLY);
  if (fd < 0) {
    // A state directory that is full or read-only never keeps a volume mounted.
    if (way == Way::kBack && (errno == ENOSPC || errno == EDQUOT || errno == EROFS || errno == ENOENT))
      return absl::OkStatus();
    return collage::mount::helper::errno_status(errno, "open " + path);
  }
  // What was killed a moment ago may still be on its way out.
  for (int i = 0; i < kLockTries; ++i) {
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return absl::OkStatus();
    std::this_thread::sleep_for(kLockPoll);
  }
  return absl::UnavailableError(
      "an earlier step on this volume hangs in the kernel: its storage does not answer");
}

absl::StatusOr<Json> carry_out(const std::string& input) {
  const Json request = Json::parse(input, nullptr, false);
  if (!request.is_object()) return absl::InvalidArgumentError("the request is not a JSON object");
  const std::string name = collage::mount::helper::text(request, "verb");
  for (const Verb& verb : kVerbs) {
    if (name != verb.name) continue;
    COLLAGE_RETURN_IF_ERROR(take_lock(collage::mount::helper::text(request, "lock"), verb.way));
    return verb.run(request);
  }
  return absl::UnimplementedError("verb: \"" + name +
                                  "\" is not known; is this helper of the same version as the agent?");
}

}  // namespace

int main() {
  ::setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
  const std::string input{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  absl::StatusOr<Json> result = absl::InternalError("nothing was done");
  try {
    result = carry_out(input);
  } catch (const std::exception& error) {  // of the JSON and file libraries
    result = absl::InternalError(error.what());
  }
  Json answer{{"code", static_cast<int>(result.status().code())},
              {"message", std::string(result.status().message())}};
  if (result.ok()) answer["result"] = *result;
  std::cout << answer.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
  return std::cout.flush() ? 0 : 1;
}
