#pragma once

#include "absl/status/statusor.h"
#include "base/context.h"
#include "drivers/driver.h"
#include "drivers/store/image_store.h"

// What the kinds that keep volumes as image files have in common.
namespace collage::drivers {

// `info` with what an image file can be: single node, raw block or a file system, its sizes and class
// parameters.
DriverInfo image_file_info(DriverInfo info);

// Checks a request and turns it into what the store makes. Beside validate_create(): the name must be a file
// name, the parameter `allocation` full or sparse, and a volume for XFS at least as large as mkfs.xfs takes
// (OUT_OF_RANGE).
absl::StatusOr<NewVolume> image_request(const DriverInfo& info, const CreateRequest& request);

// The class parameter `allocation`; INVALID_ARGUMENT for any other parameter or value.
absl::StatusOr<Allocation> allocation_of(const DriverInfo& info, const StringMap& parameters);

absl::StatusOr<Capacity> capacity_of(const DriverInfo& info, const ImageStore& store);

// Removes old debris. A failure is logged, and tried again at the next probe.
void tidy_up(const base::Context& context, ImageStore& store, const StoreDirectory& directory);

}  // namespace collage::drivers
