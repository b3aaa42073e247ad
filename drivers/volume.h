#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

// The words of storage, as CSI v1 has them. Plain values.
namespace collage::drivers {

using StringMap = std::map<std::string, std::string>;

enum class VolumeMode { kFilesystem, kBlock };

// CSI VolumeCapability.AccessMode, same numbers.
enum class AccessMode {
  kSingleNodeWriter = 1,
  kSingleNodeReaderOnly = 2,
  kMultiNodeReaderOnly = 3,
  kMultiNodeSingleWriter = 4,
  kMultiNodeMultiWriter = 5,
  kSingleNodeSingleWriter = 6,
  kSingleNodeMultiWriter = 7,
};

inline bool for_readers(AccessMode mode) {
  return mode == AccessMode::kSingleNodeReaderOnly || mode == AccessMode::kMultiNodeReaderOnly;
}

struct VolumeCapability {
  VolumeMode mode = VolumeMode::kFilesystem;
  AccessMode access_mode = AccessMode::kSingleNodeWriter;
  std::string fs_type;                   // "" for the driver's default; unused when kBlock
  std::vector<std::string> mount_flags;  // as after mount -o
  friend bool operator==(const VolumeCapability&, const VolumeCapability&) = default;
};

// Where something is: label keys and values, e.g. {"local.collage.storage/node": "node-a"}.
using Topology = StringMap;

// What orchestrators call a volume by: "<backend>/<provider id>".
struct Handle {
  std::string backend;
  std::string id;
};
std::string volume_handle(std::string_view backend, std::string_view id);
// INVALID_ARGUMENT when it has no backend or no id.
absl::StatusOr<Handle> parse_handle(std::string_view handle);

// Tags that every volume carries where the provider has tags.
inline constexpr char kTagCluster[] = "collage/cluster";
inline constexpr char kTagClaim[] = "collage/claim";  // "<namespace>/<name>"
inline constexpr char kTagVolume[] = "collage/pv";

struct CreateRequest {
  std::string name;            // ours, e.g. "pvc-<uid>": the key that makes create idempotent
  int64_t required_bytes = 0;  // at least; > 0
  int64_t limit_bytes = 0;     // at most; 0 for none
  std::vector<VolumeCapability> capabilities;
  StringMap
      parameters;  // of the class, ours stripped; a key that the driver does not know is INVALID_ARGUMENT
  StringMap tags;
  std::vector<Topology> requisite;  // the volume must be reachable from one of these; empty: anywhere
  std::vector<Topology> preferred;  // in this order
};

struct Volume {
  std::string id;    // the provider's, unique within the backend
  std::string name;  // as in CreateRequest, "" when the provider does not keep it
  int64_t capacity_bytes = 0;
  StringMap context;                 // what access() needs to know later; never a secret
  std::vector<Topology> accessible;  // empty: from everywhere
  StringMap tags;
  std::string attached_to;  // node id of the holder, "" when none is known
  std::string problem;      // list() only: why this volume cannot be used, for a person; "" when all is well
  friend bool operator==(const Volume&, const Volume&) = default;
};

struct VolumePage {
  std::vector<Volume> volumes;
  std::string next_token;  // "" at the end
};

struct Capacity {
  int64_t total_bytes = 0;
  int64_t available_bytes = 0;
  int64_t maximum_volume_bytes = 0;  // 0: not known
  friend bool operator==(const Capacity&, const Capacity&) = default;
};

}  // namespace collage::drivers
