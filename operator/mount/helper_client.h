#pragma once

#include <chrono>
#include <string>

#include "absl/status/statusor.h"
#include "base/context.h"
#include "base/json.h"

namespace collage::mount {

// Runs collage-mount once per call: {"verb", "volume", "lock", ...} on its stdin, {"code", "message",
// "result"} on its stdout.
//
//   loop-attach  file, readOnly                        device, number, fileDevice, fileInode, created
//   loop-detach  file, fileDevice, fileInode | device  detached, flushError
//   find-device  serial, byId[]                        device, number
//   format       device, fsType, uuid, readOnly, refuseBlank  formatted
//   mount        device, target, fsType, options, readOnly   already
//   bind         source, target, readOnly              already
//   unmount      target, remove                        unmounted
//   inspect      path                                  type, number, device, readOnly, size | totalBytes,
//   usedBytes, ...
//
// Thread safe.
class HelperClient {
 public:
  HelperClient(std::string program, std::string lock_directory)
      : program_(std::move(program)), lock_directory_(std::move(lock_directory)) {}

  // The helper's own status and result. DEADLINE_EXCEEDED when it did not end in time: it is killed, and
  // where even that does not end it, it keeps the volume's lock, so that later calls for this volume fail at
  // once (UNAVAILABLE) and no second one hangs.
  absl::StatusOr<base::Json> call(const base::Context& context, const std::string& verb,
                                  const std::string& volume, std::chrono::seconds timeout,
                                  base::Json request) const;

 private:
  std::string program_;
  std::string lock_directory_;
};

}  // namespace collage::mount
