// Finds a block device by what it says of itself, never by the name that a provider predicts.
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "base/status.h"
#include "operator/mount/helper/helper.h"

namespace collage::mount::helper {
namespace {

std::string first_line(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  const size_t begin = line.find_first_not_of(" \t");
  if (begin == std::string::npos) return "";
  return line.substr(begin, line.find_last_not_of(" \t") - begin + 1);
}

// virtio tells its serial beside the disk, NVMe and SCSI below device/.
std::string serial_of(const std::filesystem::path& disk) {
  for (const char* place : {"serial", "device/serial", "device/vpd_pg80_serial"}) {
    std::string serial = first_line(disk / place);
    if (!serial.empty()) return serial;
  }
  return "";
}

}  // namespace

absl::StatusOr<Json> find_device(const Json& request) {
  const std::string serial = text(request, "serial");
  const std::filesystem::path sys = request.value("sys", "/sys/block");
  const std::filesystem::path dev = request.value("dev", "/dev");
  std::string device;
  std::error_code error;
  const auto names = request.find("byId");
  if (names != request.end() && names->is_array()) {
    for (const Json& name : *names) {
      if (!name.is_string()) continue;
      const auto resolved = std::filesystem::canonical(dev / "disk/by-id" / name.get<std::string>(), error);
      if (error) continue;
      if (!device.empty() && device != resolved) {
        return absl::FailedPreconditionError("the names of one volume lead to two devices: " + device +
                                             " and " + resolved.string());
      }
      device = resolved;
    }
  }
  if (device.empty() && !serial.empty()) {
    for (const auto& disk : std::filesystem::directory_iterator(sys, error)) {
      if (serial_of(disk.path()) != serial) continue;
      const std::string candidate = dev / disk.path().filename();
      if (!device.empty()) {
        return absl::FailedPreconditionError("two devices have the serial " + serial + ": " + device +
                                             " and " + candidate);
      }
      device = candidate;
    }
  }
  if (device.empty())
    return absl::NotFoundError("no block device with serial \"" + serial +
                               "\" or one of the given by-id names");
  struct stat node {};
  if (::stat(device.c_str(), &node) != 0) return errno_status(errno, "stat " + device);
  if (!S_ISBLK(node.st_mode)) return absl::FailedPreconditionError(device + " is not a block device");
  return Json{{"device", device}, {"number", device_number(node.st_rdev)}};
}

}  // namespace collage::mount::helper
