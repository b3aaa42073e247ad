#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "base/secret.h"
#include "drivers/kind.h"

namespace collage::drivers {

// The driver, each call of which is counted in
//   csi_plugin_operations_seconds{driver_name,method_name,grpc_status_code,migrated}
// as the CSI plugins of others count theirs: method_name is CSI's ("/csi.v1.Controller/CreateVolume"), or,
// for what CSI has no call for, "/collage.storage/Find" and the like. access() does no I/O and is not
// counted. What the storage says in an error goes on with every value of `secrets` made "***": callers put it
// into events, conditions and logs.
std::unique_ptr<Driver> metered(std::unique_ptr<Driver> driver, base::Secrets secrets = {});

// What a kind makes, metered, its credentials kept out of its errors: how every process comes by its drivers.
absl::StatusOr<std::unique_ptr<Driver>> make_driver(const Kind& kind, const DriverConfig& config);

}  // namespace collage::drivers
