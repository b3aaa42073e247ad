#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "base/json.h"
#include "drivers/volume.h"

// The words of storage as JSON, lowerCamelCase as in Kubernetes: what travels through a StorageNode to the
// node that carries a call out, and back. Fields at their default value are left out. Errors:
// INVALID_ARGUMENT that names the field.
namespace collage::drivers {

base::Json to_json(const VolumeCapability& capability);
base::Json to_json(const CreateRequest& request);
base::Json to_json(const Volume& volume);
base::Json to_json(const VolumePage& page);
base::Json to_json(const Capacity& capacity);
base::Json to_json(const StringMap& map);

absl::StatusOr<VolumeCapability> capability_from_json(const base::Json& json);
absl::StatusOr<CreateRequest> create_request_from_json(const base::Json& json);
absl::StatusOr<Volume> volume_from_json(const base::Json& json);
absl::StatusOr<VolumePage> volume_page_from_json(const base::Json& json);
absl::StatusOr<Capacity> capacity_from_json(const base::Json& json);
absl::StatusOr<StringMap> string_map_from_json(const base::Json& json);

}  // namespace collage::drivers
