#include "drivers/store/image_request.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/quantity.h"
#include "base/status.h"

namespace collage::drivers {

namespace {

constexpr char kAllocation[] = "allocation";
// The smallest that mkfs.ext4 makes a useful file system of.
constexpr int64_t kMinimumBytes = int64_t{1} << 20;
// mkfs.xfs refuses less since xfsprogs 5.19.
constexpr int64_t kMinimumXfsBytes = int64_t{300} << 20;
// A page, and the largest sector of a loop device.
constexpr int64_t kGranularityBytes = 4096;

}  // namespace

DriverInfo image_file_info(DriverInfo info) {
  info.access_modes = {AccessMode::kSingleNodeWriter, AccessMode::kSingleNodeReaderOnly,
                       AccessMode::kSingleNodeSingleWriter, AccessMode::kSingleNodeMultiWriter};
  info.volume_modes = {VolumeMode::kFilesystem, VolumeMode::kBlock};
  info.fs_types = {"ext4", "xfs"};
  info.parameters = {kAllocation};
  info.minimum_bytes = kMinimumBytes;
  info.granularity_bytes = kGranularityBytes;
  return info;
}

absl::StatusOr<Allocation> allocation_of(const DriverInfo& info, const StringMap& parameters) {
  COLLAGE_RETURN_IF_ERROR(validate_parameters(info, parameters));
  const auto found = parameters.find(kAllocation);
  if (found == parameters.end() || found->second == "full") return Allocation::kFull;
  if (found->second == "sparse") return Allocation::kSparse;
  return absl::InvalidArgumentError(
      absl::StrCat("parameters.", kAllocation, ": \"", found->second, "\" is neither full nor sparse"));
}

absl::StatusOr<NewVolume> image_request(const DriverInfo& info, const CreateRequest& request) {
  COLLAGE_RETURN_IF_ERROR(validate_create(info, request));
  COLLAGE_RETURN_IF_ERROR(validate_volume_name(request.name));
  COLLAGE_ASSIGN_OR_RETURN(const Allocation allocation, allocation_of(info, request.parameters));
  COLLAGE_ASSIGN_OR_RETURN(const int64_t bytes, volume_size(info, request));
  for (const VolumeCapability& capability : request.capabilities) {
    if (capability.mode != VolumeMode::kFilesystem || capability.fs_type != "xfs" ||
        bytes >= kMinimumXfsBytes)
      continue;
    return absl::OutOfRangeError(absl::StrCat("size: ", base::human_bytes(request.required_bytes),
                                              " is asked for, but an xfs file system takes at least ",
                                              base::human_bytes(kMinimumXfsBytes),
                                              "; ask for more, or for fsType ext4"));
  }
  return NewVolume{.name = request.name,
                   .bytes = bytes,
                   .required_bytes = request.required_bytes,
                   .limit_bytes = request.limit_bytes,
                   .allocation = allocation,
                   .tags = request.tags};
}

absl::StatusOr<Capacity> capacity_of(const DriverInfo& info, const ImageStore& store) {
  COLLAGE_ASSIGN_OR_RETURN(const StoreDirectory::Room room, store.room());
  const int64_t granularity = std::max<int64_t>(info.granularity_bytes, 1);
  return Capacity{.total_bytes = room.total_bytes,
                  .available_bytes = room.available_bytes,
                  .maximum_volume_bytes = room.available_bytes / granularity * granularity};
}

void tidy_up(const base::Context& context, ImageStore& store, const StoreDirectory& directory) {
  const auto removed = store.tidy(context);
  if (!removed.ok()) {
    base::log::warning(context, "could not remove what earlier calls left behind",
                       {{"directory", directory.path()}, {"error", removed.status()}});
  } else if (*removed > 0) {
    base::log::info(context, "removed what earlier calls left behind",
                    {{"directory", directory.path()}, {"count", *removed}});
  }
}

}  // namespace collage::drivers
