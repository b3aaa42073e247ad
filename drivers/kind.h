#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/json.h"
#include "base/secret.h"
#include "drivers/driver.h"

namespace collage::drivers {

// What a driver is made from.
struct DriverConfig {
  std::string backend;  // the StorageBackend's name
  const base::Json*
      block;  // the spec's block of this kind: {"directory": "/srv/share"}; borrowed during the call
  base::Secrets credentials;
  std::string node;       // the node this process acts on; "" in the operator
  std::string system_id;  // of the storage that the backend was made for, "" when it is not known yet: no
                          // other is touched
};

// One kind of storage, compiled in. The operator sees every kind through this table; only
// drivers/registry.cpp fills it.
struct Kind {
  DriverInfo info;
  bool attaches =
      false;  // its drivers have an Attacher: fixed per kind, as CSIDriver.attachRequired is immutable
  bool reports_capacity = false;
  bool expands = false;  // its volumes can be made larger
  // Checks the block alone, without I/O: INVALID_ARGUMENT that names the field and the remedy
  // ("spec.image.directory: must be an absolute path, such as /srv/share").
  absl::Status (*validate)(const base::Json& block) = nullptr;
  absl::StatusOr<std::unique_ptr<Driver>> (*make)(const DriverConfig& config) = nullptr;
};

}  // namespace collage::drivers
