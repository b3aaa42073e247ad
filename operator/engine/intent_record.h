#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "drivers/volume.h"
#include "operator/engine/claim_request.h"
#include "operator/engine/topology.h"

// What an intent says of a create that has begun: enough to repeat it, or to undo it, after a restart and
// when the claim is gone. The key is the claim's UID; the value is compact JSON of at most 512 bytes:
//   {"ns":claim namespace, "pvc":claim name, "sc":class name, "scu":class uid, "b":bytes, "max":limit in
//   bytes,
//    "m":access modes, one letter each (W ReadWriteOnce, R ReadOnlyMany, X ReadWriteMany, P ReadWriteOncePod;
//    left out: "W"), "blk":1 for raw block, "at":{segment the volume is placed at}, "node":name of the
//    selected node, left out when the segment says it}
// What the class says (parameters, file system, mount options) is read from the class again: its immutable
// fields cannot change, and another class of that name has another UID.
namespace collage::engine {

struct IntentRecord {
  ClaimFacts claim;        // claim.uid is the key, not part of the value
  std::string class_name;  // "" when it did not fit: find the class by its UID
  std::string class_uid;
  drivers::Topology
      segment;  // the first preferred one: where the create was sent first; empty when place does not matter
  std::string node;  // the claim's selected node; "" when bound at once
};

inline constexpr size_t kMaxIntentBytes = 512;

// The same record makes the same text. When it is too long the class's name is left out first, then the
// node's name (the segment says where). INVALID_ARGUMENT names what is still too long: only segments of
// several long labels are.
absl::StatusOr<std::string> encode_intent(const IntentRecord& record);
// INVALID_ARGUMENT when the text is not of that form; unknown fields are left alone, a later version may have
// written them.
absl::StatusOr<IntentRecord> decode_intent(std::string_view claim_uid, std::string_view text);

// The place as a requirement, to repeat the create where it was begun. Both lists empty when place does not
// matter.
TopologyRequirement topology_of(const IntentRecord& record);

}  // namespace collage::engine
