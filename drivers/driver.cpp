#include "drivers/driver.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/quantity.h"
#include "base/status.h"

namespace collage::drivers {

namespace {

template <typename T>
bool contains(const std::vector<T>& all, const T& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

template <typename T>
std::string names(const std::vector<T>& values) {
  return absl::StrJoin(values, ", ", [](std::string* out, const T& value) { out->append(to_string(value)); });
}

}  // namespace

std::vector<std::string> features(Driver& driver) {
  std::vector<std::string> result;
  if (driver.attacher() != nullptr) result.push_back("Attach");
  if (supports(driver.info(), VolumeMode::kBlock)) result.push_back("RawBlock");
  if (driver.capacity_reporter() != nullptr) result.push_back("Capacity");
  return result;
}

bool supports(const DriverInfo& info, VolumeMode mode) {
  return contains(info.volume_modes, mode);
}

bool supports(const DriverInfo& info, AccessMode mode) {
  return contains(info.access_modes, mode);
}

std::string to_string(AccessMode mode) {
  switch (mode) {
    case AccessMode::kSingleNodeWriter:
      return "SINGLE_NODE_WRITER";
    case AccessMode::kSingleNodeReaderOnly:
      return "SINGLE_NODE_READER_ONLY";
    case AccessMode::kMultiNodeReaderOnly:
      return "MULTI_NODE_READER_ONLY";
    case AccessMode::kMultiNodeSingleWriter:
      return "MULTI_NODE_SINGLE_WRITER";
    case AccessMode::kMultiNodeMultiWriter:
      return "MULTI_NODE_MULTI_WRITER";
    case AccessMode::kSingleNodeSingleWriter:
      return "SINGLE_NODE_SINGLE_WRITER";
    case AccessMode::kSingleNodeMultiWriter:
      return "SINGLE_NODE_MULTI_WRITER";
  }
  return absl::StrCat("ACCESS_MODE_", static_cast<int>(mode));
}

std::string to_string(VolumeMode mode) {
  switch (mode) {
    case VolumeMode::kFilesystem:
      return "Filesystem";
    case VolumeMode::kBlock:
      return "Block";
  }
  return absl::StrCat("VOLUME_MODE_", static_cast<int>(mode));
}

std::string csi_driver_name(const std::string& kind) {
  return absl::StrCat(kind, ".collage.storage");
}

std::string node_topology_key(const std::string& kind) {
  return absl::StrCat(csi_driver_name(kind), "/node");
}

absl::StatusOr<int64_t> volume_size(const DriverInfo& info, const CreateRequest& request) {
  if (request.required_bytes <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("size: must be above zero, but ", request.required_bytes, " bytes are asked for"));
  }
  if (request.limit_bytes < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("size: the limit of ", request.limit_bytes, " bytes is negative"));
  }
  if (request.required_bytes < info.minimum_bytes) {
    return absl::OutOfRangeError(absl::StrCat("size: ", base::human_bytes(request.required_bytes),
                                              " is asked for, but the smallest ", info.kind, " volume is ",
                                              base::human_bytes(info.minimum_bytes)));
  }
  const int64_t granularity = std::max<int64_t>(info.granularity_bytes, 1);
  const int64_t rest = request.required_bytes % granularity;
  const int64_t padding = rest == 0 ? 0 : granularity - rest;
  if (request.required_bytes > std::numeric_limits<int64_t>::max() - padding) {
    return absl::OutOfRangeError(absl::StrCat("size: ", request.required_bytes, " bytes is too large"));
  }
  const int64_t size = request.required_bytes + padding;
  if (request.limit_bytes != 0 && size > request.limit_bytes) {
    return absl::OutOfRangeError(absl::StrCat("size: at least ", request.required_bytes, " and at most ",
                                              request.limit_bytes, " bytes are asked for, but sizes of ",
                                              info.kind, " volumes are multiples of ", granularity,
                                              " bytes"));
  }
  return size;
}

absl::Status validate_capability(const DriverInfo& info, const VolumeCapability& capability) {
  if (!supports(info, capability.mode)) {
    return absl::InvalidArgumentError(absl::StrCat("volume mode ", to_string(capability.mode),
                                                   ": not offered by kind ", info.kind, "; it has ",
                                                   names(info.volume_modes)));
  }
  if (!supports(info, capability.access_mode)) {
    return absl::InvalidArgumentError(absl::StrCat("access mode ", to_string(capability.access_mode),
                                                   ": not offered by kind ", info.kind, "; it has ",
                                                   names(info.access_modes)));
  }
  if (capability.mode == VolumeMode::kBlock || capability.fs_type.empty()) return absl::OkStatus();
  if (info.fs_types.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("fsType ", capability.fs_type, ": volumes of kind ",
                                                   info.kind,
                                                   " come with their own file system; leave fsType out"));
  }
  if (!contains(info.fs_types, capability.fs_type)) {
    return absl::InvalidArgumentError(absl::StrCat("fsType ", capability.fs_type, ": not offered by kind ",
                                                   info.kind, "; it has ",
                                                   absl::StrJoin(info.fs_types, ", ")));
  }
  return absl::OkStatus();
}

absl::Status validate_parameters(const DriverInfo& info, const StringMap& parameters) {
  for (const auto& [key, value] : parameters) {
    if (contains(info.parameters, key)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("parameters.", key, ": not known to kind ", info.kind, "; it knows ",
                     info.parameters.empty() ? std::string("none") : absl::StrJoin(info.parameters, ", ")));
  }
  return absl::OkStatus();
}

absl::Status validate_create(const DriverInfo& info, const CreateRequest& request) {
  if (request.name.empty()) return absl::InvalidArgumentError("name: must not be empty");
  if (request.capabilities.empty()) {
    return absl::InvalidArgumentError(
        "capabilities: at least one volume mode and access mode must be asked for");
  }
  for (const VolumeCapability& capability : request.capabilities) {
    COLLAGE_RETURN_IF_ERROR(validate_capability(info, capability));
  }
  COLLAGE_RETURN_IF_ERROR(validate_parameters(info, request.parameters));
  return volume_size(info, request).status();
}

bool is_final(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kAborted:
      return false;
    default:
      return true;
  }
}

}  // namespace collage::drivers
