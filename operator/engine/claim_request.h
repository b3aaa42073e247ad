#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "drivers/driver.h"
#include "operator/engine/class_parameters.h"
#include "operator/engine/topology.h"

// From what a claim asks for to what a driver is asked for (contract C, 14 to 19): a pure function.
namespace collage::engine {

struct ClaimFacts {
  std::string uid, name_space, name;
  std::vector<std::string>
      access_modes;             // "ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"
  bool block = false;           // spec.volumeMode Block
  int64_t requested_bytes = 0;  // spec.resources.requests.storage; -1 when it is no quantity
  int64_t limit_bytes = 0;      // spec.resources.limits.storage; 0 for none
};

struct ClaimRequestInput {
  const ClaimFacts& claim;
  const ClassParameters& parameters;
  const std::vector<std::string>& mount_options;  // of the class
  const drivers::DriverInfo& info;
  const TopologyRequirement& topology;
  const std::string& cluster_id;
  std::string class_name;  // for messages; "" leaves it out
};

// INVALID_ARGUMENT or OUT_OF_RANGE (the size); every problem in one message, each naming the claim's field or
// the class's parameter, what was asked for and what can be had: "spec.accessModes: ReadWriteMany cannot be
// served by image, which serves ReadWriteOnce, ReadWriteOncePod".
absl::StatusOr<drivers::CreateRequest> make_create_request(const ClaimRequestInput& input);

// The driver's modes for a claim's or a PersistentVolume's access modes (contract 19), in the order given.
// INVALID_ARGUMENT names spec.accessModes: an unknown mode, ReadWriteOncePod combined with another, a mode
// that the driver cannot serve.
absl::StatusOr<std::vector<drivers::AccessMode>> map_access_modes(const std::vector<std::string>& modes,
                                                                  const drivers::DriverInfo& info);
// The one mode that a volume with these access modes is attached with: ReadWriteMany over ReadWriteOnce over
// ReadOnlyMany. INVALID_ARGUMENT also for ReadWriteOnce together with ReadOnlyMany, which no attachment can
// serve both of.
absl::StatusOr<drivers::AccessMode> attach_access_mode(const std::vector<std::string>& modes,
                                                       const drivers::DriverInfo& info);

}  // namespace collage::engine
